// Who holds which KV block. Blocks are ids: the memory behind them belongs to the model.
#ifndef CADRE_ENGINE_SCHEDULE_BLOCK_POOL_H_
#define CADRE_ENGINE_SCHEDULE_BLOCK_POOL_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace cadre {

// A block is in the free list (count 0) or held (count of its holders), never both. A pure state machine; not
// thread-safe. Releasing a block that nobody holds, or allocating more than is free, is our own mistake and ends the
// process.
class BlockPool {
 public:
  // REQUIRES: num_blocks >= 0.
  explicit BlockPool(int32_t num_blocks);

  int32_t num_total() const { return static_cast<int32_t>(ref_counts_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t num_in_use() const { return num_total() - num_free(); }
  int32_t ref_count(int32_t block) const { return ref_counts_[static_cast<size_t>(block)]; }

  // Takes `count` blocks, each with one holder. REQUIRES: count <= num_free().
  std::vector<int32_t> Allocate(int32_t count);
  // One holder fewer for each of `blocks`; the last one's block is free again.
  void Release(std::span<const int32_t> blocks);

  // INTERNAL unless every block is exactly once in the free list or has holders.
  absl::Status Audit() const;

 private:
  std::vector<int32_t> free_;        // a stack: the block released last is still warm and goes first
  std::vector<int32_t> ref_counts_;  // [num_total]
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SCHEDULE_BLOCK_POOL_H_
