#include "engine/schedule/block_pool.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace cadre {

BlockPool::BlockPool(int32_t num_blocks) {
  CADRE_CHECK_GE(num_blocks, 0);
  free_.resize(static_cast<size_t>(num_blocks));
  std::iota(free_.rbegin(), free_.rend(), 0);
  ref_counts_.assign(static_cast<size_t>(num_blocks), 0);
}

std::vector<int32_t> BlockPool::Allocate(int32_t count) {
  CADRE_CHECK_GE(count, 0);
  CADRE_CHECK_LE(count, num_free());
  std::vector<int32_t> blocks(free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - static_cast<size_t>(count));
  for (int32_t block : blocks) ref_counts_[static_cast<size_t>(block)] = 1;
  return blocks;
}

void BlockPool::Release(std::span<const int32_t> blocks) {
  for (int32_t block : blocks) {
    CADRE_CHECK_GE(block, 0);
    CADRE_CHECK_LT(block, num_total());
    int32_t& ref_count = ref_counts_[static_cast<size_t>(block)];
    CADRE_CHECK_GT(ref_count, 0);
    if (--ref_count == 0) free_.push_back(block);
  }
}

absl::Status BlockPool::Audit() const {
  std::vector<bool> listed(ref_counts_.size(), false);
  for (int32_t block : free_) {
    const auto i = static_cast<size_t>(block);
    if (listed[i]) return absl::InternalError(absl::StrCat("block ", block, " is twice in the free list"));
    if (ref_counts_[i] != 0) {
      return absl::InternalError(absl::StrCat("block ", block, " is free and has ", ref_counts_[i], " holders"));
    }
    listed[i] = true;
  }
  for (size_t i = 0; i < ref_counts_.size(); ++i) {
    if (!listed[i] && ref_counts_[i] <= 0) {
      return absl::InternalError(
          absl::StrCat("block ", i, " is not in the free list and has ", ref_counts_[i], " holders"));
    }
  }
  return absl::OkStatus();
}

}  // namespace cadre
