#ifndef CADRE_ENGINE_TEXT_WINDOW_MERGER_H_
#define CADRE_ENGINE_TEXT_WINDOW_MERGER_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/text/merge_table.h"

namespace cadre {

// Merges a list of symbols: of all neighbors that merge the pair of the lowest rank, the leftmost among equals, as long
// as there is one. One thread; what it allocates serves its next list, too.
class WindowMerger {
 public:
  // What one symbol or several became.
  struct Token {
    std::int32_t id;
    std::uint32_t begin;  // its first symbol
  };

  // `table` must outlive this.
  explicit WindowMerger(const MergeTable* table) : table_(*table) {}

  // Replaces *tokens. O(n) up to 256 symbols, O(n log n) beyond. REQUIRES: 0 < n < 2^31 symbols.
  void Merge(std::span<const std::int32_t> symbols, std::vector<Token>* tokens);

 private:
  static constexpr std::uint32_t kBlock = 16;
  static constexpr std::uint32_t kMaxInBlocks = 256;

  // What stands at a symbol's place; what was merged with its left neighbor has left the list.
  struct Node {
    std::int32_t id;
    std::int32_t merged_id;  // with the next
    std::uint32_t rank;      // of that merge
    std::uint32_t previous;
    std::uint32_t next;
  };

  void LinkNodes(std::span<const std::int32_t> symbols);
  std::uint32_t MergeAt(std::uint32_t position);
  void FindMerge(std::uint32_t position);

  void MergeInBlocks();
  void FindFirstOfBlock(std::uint32_t block);
  void MergeWithHeap();
  void PushCandidate(std::uint32_t position);
  bool IsStale(std::uint64_t candidate) const;

  const MergeTable& table_;
  std::vector<Node> nodes_;
  // A candidate is a pair that merges, or did when it was found, as rank << 32 | position of the left one.
  std::vector<std::uint64_t> heap_;  // the lowest in front
  std::array<std::uint64_t, kMaxInBlocks> candidates_;
  std::array<std::uint64_t, kMaxInBlocks / kBlock> firsts_;  // of each block of candidates_
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_WINDOW_MERGER_H_
