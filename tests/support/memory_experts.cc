#include "tests/support/memory_experts.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/model/expert_layout.h"

namespace cadre {

MemoryExperts::MemoryExperts(std::vector<std::vector<std::byte>> experts) : experts_(std::move(experts)) {
  CADRE_CHECK(!experts_.empty());
}

absl::Status MemoryExperts::Read(ExpertId expert, std::span<std::byte> to, ReadPace pace) const {
  const std::vector<std::byte>& from = experts_[static_cast<size_t>(expert)];
  CADRE_CHECK_EQ(from.size(), to.size());
  {
    const std::lock_guard lock(mutex_);
    ++reads_[expert];
  }
  const size_t piece = (from.size() + kPieces - 1) / kPieces;
  for (size_t begin = 0; begin < from.size(); begin += piece) {
    CADRE_RETURN_IF_ERROR(pace());
    const size_t count = std::min(piece, from.size() - begin);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !stuck_.contains(expert); });
    std::ranges::copy(std::span(from).subspan(begin, count), to.subspan(begin).begin());
    ++pieces_[expert];
  }
  const std::lock_guard lock(mutex_);
  if (const auto it = failures_.find(expert); it != failures_.end() && it->second.times > 0) {
    --it->second.times;
    std::ranges::fill(to.first(to.size() / 2), std::byte{0xff});  // as a read that ended early leaves it
    return it->second.status;
  }
  if (zero_.contains(expert)) std::ranges::fill(to, std::byte{0});
  if (corrupt_.contains(expert)) to.back() ^= std::byte{1};
  return absl::OkStatus();
}

std::string MemoryExperts::Describe(ExpertId expert) const { return absl::StrCat("expert number ", expert); }

void MemoryExperts::Fail(ExpertId expert, const absl::Status& status, int64_t times) {
  const std::lock_guard lock(mutex_);
  failures_[expert] = {status, times};
}

int64_t MemoryExperts::num_failures_left(ExpertId expert) const {
  const std::lock_guard lock(mutex_);
  const auto it = failures_.find(expert);
  return it == failures_.end() ? 0 : it->second.times;
}

void MemoryExperts::SetCorrupt(ExpertId expert, bool is_corrupt) {
  const std::lock_guard lock(mutex_);
  if (is_corrupt) {
    corrupt_.insert(expert);
  } else {
    corrupt_.erase(expert);
  }
}

void MemoryExperts::SetZero(ExpertId expert) {
  const std::lock_guard lock(mutex_);
  zero_.insert(expert);
}

void MemoryExperts::SetStuck(ExpertId expert, bool is_stuck) {
  {
    const std::lock_guard lock(mutex_);
    if (is_stuck) {
      stuck_.insert(expert);
    } else {
      stuck_.erase(expert);
    }
  }
  changed_.notify_all();
}

int64_t MemoryExperts::num_reads(ExpertId expert) const {
  const std::lock_guard lock(mutex_);
  return reads_[expert];
}

int64_t MemoryExperts::num_pieces(ExpertId expert) const {
  const std::lock_guard lock(mutex_);
  return pieces_[expert];
}

std::vector<std::vector<std::byte>> MakeNumberedExperts(int count, size_t bytes) {
  std::vector<std::vector<std::byte>> experts;
  experts.reserve(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) experts.emplace_back(bytes, std::byte(i + 1));
  return experts;
}

std::vector<std::vector<std::byte>> TakeExperts(const ModelConfig& config, Weights* weights) {
  const ExpertLayout layout(config, weights->expert_dtype);
  std::vector<std::vector<std::byte>> experts;
  for (LayerWeights& layer : weights->layers) {
    for (MlpWeights& expert : layer.experts) {
      // Where rows are aligned nothing is between matrices; what is, stays 0.
      std::vector<std::byte>& bytes = experts.emplace_back(static_cast<size_t>(layout.size_bytes()));
      const std::array<ConstView, ExpertLayout::kNumMatrices> matrices = {expert.gate, expert.up, expert.down};
      for (size_t i = 0; i < matrices.size(); ++i) {
        std::memcpy(layout.Matrix(i, bytes.data()).raw(), matrices[i].raw(), matrices[i].size_bytes());
      }
      expert = {};
    }
  }
  return experts;
}

}  // namespace cadre
