#include "engine/schedule/block_pool.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/failpoint.h"

namespace cadre {

BlockPool::BlockPool(int32_t num_blocks) : num_usable_(num_blocks) {
  CADRE_CHECK_GE(num_blocks, 0);
  const auto size = static_cast<size_t>(num_blocks);
  free_.resize(size);
  std::iota(free_.rbegin(), free_.rend(), 0);
  ref_counts_.assign(size, 0);
  is_kept_.assign(size, false);
  is_used_.assign(size, true);
  links_.resize(size + 1);
  link(ring()) = {.previous = ring(), .next = ring()};
}

std::vector<int32_t> BlockPool::Allocate(int32_t count) {
  CADRE_FAILPOINT("blocks.allocate");
  CADRE_CHECK_GE(count, 0);
  CADRE_CHECK_LE(count, num_free());
  std::vector<int32_t> blocks(free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - static_cast<size_t>(count));
  for (int32_t block : blocks) {
    ref_counts_[static_cast<size_t>(block)] = 1;
    is_used_[static_cast<size_t>(block)] = true;
  }
  return blocks;
}

void BlockPool::AddHolder(int32_t block) {
  CADRE_CHECK(is_kept(block) || ref_count(block) > 0);
  if (is_idle(block)) RemoveIdle(block);
  ++ref_counts_[static_cast<size_t>(block)];
}

void BlockPool::Release(int32_t block) {
  CADRE_FAILPOINT("blocks.release");
  CADRE_CHECK_GE(block, 0);
  CADRE_CHECK_LT(block, num_total());
  CADRE_CHECK_GT(ref_count(block), 0);
  if (--ref_counts_[static_cast<size_t>(block)] > 0) return;
  if (is_kept(block)) {
    AppendIdle(block);
  } else {
    SetFree(block);
  }
}

void BlockPool::SetFree(int32_t block) {
  if (is_usable(block)) {
    free_.push_back(block);
  } else {
    ++num_withdrawn_;
  }
}

void BlockPool::SetUsable(int32_t count) {
  CADRE_CHECK_GE(count, 0);
  CADRE_CHECK_LE(count, num_total());
  const int32_t before = std::exchange(num_usable_, count);
  for (int32_t block = count; block < before; ++block) CADRE_CHECK(!is_kept(block));
  num_withdrawn_ += static_cast<int32_t>(std::erase_if(free_, [this](int32_t block) { return !is_usable(block); }));
  std::vector<int32_t> returned;
  for (int32_t block = count - 1; block >= before; --block) {
    if (ref_count(block) > 0) continue;
    is_used_[static_cast<size_t>(block)] = true;  // it has memory again
    returned.push_back(block);
  }
  num_withdrawn_ -= static_cast<int32_t>(returned.size());
  free_.insert(free_.begin(), returned.begin(), returned.end());  // cold ones go last
}

void BlockPool::Keep(int32_t block) {
  CADRE_CHECK_GT(ref_count(block), 0);
  CADRE_CHECK(is_usable(block));
  is_kept_[static_cast<size_t>(block)] = true;
}

void BlockPool::Forget(int32_t block) {
  CADRE_CHECK(is_kept(block));
  if (is_idle(block)) {
    RemoveIdle(block);
    SetFree(block);
  }
  is_kept_[static_cast<size_t>(block)] = false;
}

std::vector<int32_t> BlockPool::TakeUsedFree() {
  std::vector<int32_t> blocks;
  for (int32_t block : free_) {
    if (!is_used_[static_cast<size_t>(block)]) continue;
    is_used_[static_cast<size_t>(block)] = false;
    blocks.push_back(block);
  }
  return blocks;
}

int32_t BlockPool::OldestIdle() const {
  CADRE_CHECK_GT(num_idle_, 0);
  return links_.back().next;
}

std::vector<int32_t> BlockPool::IdleBlocks() const {
  std::vector<int32_t> blocks;
  for (int32_t block = links_.back().next; block != ring(); block = links_[static_cast<size_t>(block)].next) {
    blocks.push_back(block);
    if (std::ssize(blocks) > num_total()) break;  // a broken ring, which the audit then finds
  }
  return blocks;
}

void BlockPool::AppendIdle(int32_t block) {
  const int32_t last = link(ring()).previous;
  link(block) = {.previous = last, .next = ring()};
  link(last).next = block;
  link(ring()).previous = block;
  ++num_idle_;
}

void BlockPool::RemoveIdle(int32_t block) {
  const Link removed = link(block);
  link(removed.previous).next = removed.next;
  link(removed.next).previous = removed.previous;
  --num_idle_;
}

absl::Status BlockPool::Audit() const {
  std::vector<int32_t> places(ref_counts_.size(), 0);
  for (int32_t block : free_) {
    ++places[static_cast<size_t>(block)];
    if (!is_usable(block)) return absl::InternalError(absl::StrCat("block ", block, " is free and not usable"));
    if (ref_count(block) != 0 || is_kept(block)) {
      return absl::InternalError(absl::StrCat("block ", block, " is free and ", is_kept(block) ? "kept" : "", " has ",
                                              ref_count(block), " holders"));
    }
  }
  const std::vector<int32_t> idle = IdleBlocks();
  if (std::ssize(idle) != num_idle_) {
    return absl::InternalError(absl::StrCat(idle.size(), " blocks are in the idle ring, ", num_idle_, " are counted"));
  }
  for (int32_t block : idle) {
    ++places[static_cast<size_t>(block)];
    if (!is_idle(block)) return absl::InternalError(absl::StrCat("block ", block, " is not idle but in the ring"));
  }
  return AuditPlaces(places);
}

absl::Status BlockPool::AuditPlaces(const std::vector<int32_t>& listed) const {
  int32_t num_withdrawn = 0;
  for (int32_t block = 0; block < num_total(); ++block) {
    const bool is_withdrawn = !is_usable(block) && ref_count(block) == 0;
    num_withdrawn += is_withdrawn ? 1 : 0;
    const int32_t num_places =
        listed[static_cast<size_t>(block)] + (ref_count(block) > 0 ? 1 : 0) + (is_withdrawn ? 1 : 0);
    if (num_places != 1 || ref_count(block) < 0) {
      return absl::InternalError(
          absl::StrCat("block ", block, " is in ", num_places, " places and has ", ref_count(block), " holders"));
    }
    if (!is_usable(block) && is_kept(block)) {
      return absl::InternalError(absl::StrCat("block ", block, " is kept and not usable"));
    }
  }
  if (num_withdrawn == num_withdrawn_) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(num_withdrawn, " blocks are withdrawn, ", num_withdrawn_, " are counted"));
}

}  // namespace cadre
