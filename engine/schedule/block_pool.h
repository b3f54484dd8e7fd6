// Who holds which KV block. Blocks are ids: the memory behind them belongs to the model.
#ifndef CADRE_ENGINE_SCHEDULE_BLOCK_POOL_H_
#define CADRE_ENGINE_SCHEDULE_BLOCK_POOL_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace cadre {

// Every block is in exactly one of four places:
//
//   free       nobody holds it, and what it contains is worth nothing
//   in use     held by at least one sequence
//   idle       nobody holds it, but it is worth keeping: whoever kept it may want its contents again
//   withdrawn  nobody holds it, and nobody may: the memory behind it belongs to somebody else
//
// A pure state machine; not thread-safe. A release without a holder, an allocation of more than is free and the like
// are our own mistakes and end the process.
class BlockPool {
 public:
  // All are usable at first. REQUIRES: num_blocks >= 0.
  explicit BlockPool(int32_t num_blocks);

  int32_t num_total() const { return static_cast<int32_t>(ref_counts_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t num_idle() const { return num_idle_; }
  int32_t num_available() const { return num_free() + num_idle_; }      // free, or would be if they were forgotten
  int32_t num_present() const { return num_total() - num_withdrawn_; }  // those with memory behind them
  int32_t num_in_use() const { return num_present() - num_available(); }
  int32_t ref_count(int32_t block) const { return ref_counts_[static_cast<size_t>(block)]; }
  bool is_kept(int32_t block) const { return is_kept_[static_cast<size_t>(block)]; }
  bool is_idle(int32_t block) const { return is_kept(block) && ref_count(block) == 0; }

  // From now on the blocks [0, count) alone are given out. Those of the others that are free are withdrawn at once,
  // those in use when their last holder releases them; is_drained says when all are. REQUIRES: 0 <= count <=
  // num_total(), and none of the others is kept.
  void SetUsable(int32_t count);
  int32_t num_usable() const { return num_usable_; }
  bool is_usable(int32_t block) const { return block < num_usable_; }
  bool is_drained() const { return num_withdrawn_ == num_total() - num_usable_; }

  // Takes `count` free blocks, each with one holder. REQUIRES: count <= num_free().
  std::vector<int32_t> Allocate(int32_t count);
  // One holder more. REQUIRES: in use or idle.
  void AddHolder(int32_t block);
  // One holder fewer. The last one's block is idle when it is kept, else free, or withdrawn.
  void Release(int32_t block);

  // From now on the block is idle, not free, when nobody holds it. REQUIRES: in use, and usable.
  void Keep(int32_t block);
  // Takes that back: an idle block is free. REQUIRES: kept.
  void Forget(int32_t block);
  // The block that has been idle for the longest time. REQUIRES: num_idle() > 0.
  int32_t OldestIdle() const;
  std::vector<int32_t> IdleBlocks() const;  // oldest first
  // Free blocks that somebody held since this last returned them; at first, all. What is behind them may be given back.
  std::vector<int32_t> TakeUsedFree();

  // INTERNAL unless every block is in exactly one place.
  absl::Status Audit() const;

 private:
  // The idle blocks are a ring through an element of their own, number num_total(): the oldest is next to it.
  struct Link {
    int32_t previous = 0;
    int32_t next = 0;
  };

  // To where a block goes that nobody holds or keeps any more.
  void SetFree(int32_t block);
  void AppendIdle(int32_t block);
  void RemoveIdle(int32_t block);
  int32_t ring() const { return num_total(); }
  Link& link(int32_t block) { return links_[static_cast<size_t>(block)]; }

  absl::Status AuditPlaces(const std::vector<int32_t>& listed) const;

  std::vector<int32_t> free_;        // a stack: the block released last is still warm and goes first
  std::vector<int32_t> ref_counts_;  // [num_total]
  std::vector<bool> is_kept_;        // [num_total]
  std::vector<bool> is_used_;        // [num_total]; held since TakeUsedFree last returned it
  std::vector<Link> links_;          // [num_total + 1]
  int32_t num_idle_ = 0;
  int32_t num_usable_;
  int32_t num_withdrawn_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SCHEDULE_BLOCK_POOL_H_
