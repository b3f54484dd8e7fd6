#ifndef CADRE_ENGINE_TEXT_MERGER_H_
#define CADRE_ENGINE_TEXT_MERGER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/text/merge_table.h"
#include "engine/text/window_merger.h"

namespace cadre {

// Merges the symbols of a piece: of all neighbors that merge the pair of the lowest rank, the leftmost among equals, as
// long as there is one. One thread; what a merger allocates serves its next piece, too.
//
// A long piece is merged in windows that overlap, so that its time is linear in its length and the work stays in the
// nearest cache. This is exact for every table, because merging sees neighbors only:
// 1. A run of tokens of a result is the result of the run's own symbols. Nothing was merged across its ends, and what
//    was merged inside was, each time, the first pair of the run as well.
// 2. When the results of two texts that overlap share a token, made of the same symbols, then the first up to this
//    token and the second from there on are together the result of both. As the token has a symbol at any time, each
//    pair lies within one of the two texts, and the first pair of all is the first of each text in which it lies.
// Two windows that share no token are replaced by one that reaches back twice as far.
class Merger {
 public:
  // `table` must outlive the merger.
  explicit Merger(const MergeTable* table) : table_(*table), window_merger_(table) {}

  // Appends the tokens. O(n log w), where w is the widest window that was needed: 256 symbols, unless the table has
  // longer tokens or what becomes of a symbol depends on others so far away. Memory: n / 8 bytes, and 36 w. REQUIRES:
  // n < 2^31 symbols.
  void Merge(std::span<const std::int32_t> symbols, std::vector<std::int32_t>* ids);

 private:
  using Token = WindowMerger::Token;

  void MergeShort(std::span<const std::int32_t> symbols, std::vector<std::int32_t>* ids) const;
  void MergeLong(std::span<const std::int32_t> symbols, std::vector<std::int32_t>* ids);
  void ReachBack(std::size_t end, std::size_t overlap, const std::vector<std::int32_t>& ids);
  bool Join(std::size_t end, std::size_t window_end, std::vector<std::int32_t>* ids);

  const MergeTable& table_;
  WindowMerger window_merger_;
  std::vector<bool> is_begin_;  // by symbol: whether a token begins there
  std::vector<Token> tail_;     // the last tokens so far: those that the window repeats
  std::vector<Token> window_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_MERGER_H_
