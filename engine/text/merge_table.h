#ifndef CADRE_ENGINE_TEXT_MERGE_TABLE_H_
#define CADRE_ENGINE_TEXT_MERGE_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace cadre {

// Which pairs of tokens become one, and which of several pairs goes first: that of the lowest rank.
class MergeTable {
 public:
  static constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();
  struct Merge {
    std::uint32_t rank = kNoRank;
    std::int32_t merged_id = -1;
  };

  void Reserve(std::size_t num_merges) { merges_.reserve(num_merges); }

  // Of a pair that is added twice the last one counts. REQUIRES: ids are not negative; no other pair has this rank, and
  // ranks are dense; merged tokens are as long as what they are made of, less a length that is the same for all.
  void Add(std::int32_t left, std::int32_t right, Merge merge) {
    merges_.insert_or_assign(Key(left, right), merge);
    if (merge.rank >= merged_ids_.size()) merged_ids_.resize(merge.rank + std::size_t{1});
    merged_ids_[merge.rank] = merge.merged_id;
    keeps_left_ |= merge.merged_id == left;
  }

  // A merge with kNoRank when the two do not merge.
  Merge Find(std::int32_t left, std::int32_t right) const {
    const auto found = merges_.find(Key(left, right));
    return found == merges_.end() ? Merge{} : found->second;
  }

  // What the pair of that rank merges into. REQUIRES: there is one.
  std::int32_t MergedId(std::uint32_t rank) const { return merged_ids_[rank]; }

  // Whether a token can be merged and stay as it is: with one that continues a word and spells nothing.
  bool keeps_left() const { return keeps_left_; }

 private:
  static std::uint64_t Key(std::int32_t left, std::int32_t right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }

  absl::flat_hash_map<std::uint64_t, Merge> merges_;
  std::vector<std::int32_t> merged_ids_;  // by rank
  bool keeps_left_ = false;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_MERGE_TABLE_H_
