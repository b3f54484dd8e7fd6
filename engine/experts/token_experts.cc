#include "engine/experts/token_experts.h"

#include <algorithm>

#include "engine/base/check.h"

namespace cadre {
namespace {

int64_t RowBytes(const TokenExpertsShape& shape) {
  return int64_t{sizeof(int32_t)} + int64_t{sizeof(uint16_t)} * shape.num_layers * shape.top_k;
}

int64_t CountRows(const TokenExpertsShape& shape, int64_t max_bytes) {
  return std::clamp<int64_t>(max_bytes / RowBytes(shape), 1, std::max(shape.vocab_size, 1));
}

}  // namespace

TokenExperts::TokenExperts(const TokenExpertsShape& shape, int64_t max_bytes)
    : shape_(shape),
      owners_(static_cast<size_t>(CountRows(shape, max_bytes)), -1),
      experts_(owners_.size() * num_choices(), kNone) {
  CADRE_CHECK_LE(shape.num_experts, kMaxExperts);
}

int64_t TokenExperts::Bytes(const TokenExpertsShape& shape, int64_t max_bytes) {
  return CountRows(shape, max_bytes) * RowBytes(shape);
}

size_t TokenExperts::num_choices() const {
  return static_cast<size_t>(shape_.num_layers) * static_cast<size_t>(shape_.top_k);
}

void TokenExperts::Observe(std::span<const int32_t> token_ids, std::span<const int32_t> expert_ids) {
  const size_t num_tokens = token_ids.size();
  CADRE_CHECK_EQ(expert_ids.size(), num_tokens * num_choices());
  const auto top_k = static_cast<size_t>(shape_.top_k);
  const size_t count = std::min(num_tokens, kMaxLearned);
  for (size_t i = 0; i < count; ++i) {
    const size_t t = i * num_tokens / count;
    const size_t row = RowOf(token_ids[t]);
    owners_[row] = token_ids[t];
    uint16_t* to = &experts_[row * num_choices()];
    for (size_t layer = 0; layer < static_cast<size_t>(shape_.num_layers); ++layer) {
      const std::span<const int32_t> chosen = expert_ids.subspan((layer * num_tokens + t) * top_k, top_k);
      for (const int32_t expert : chosen) *to++ = expert < 0 ? kNone : static_cast<uint16_t>(expert);
    }
  }
}

double TokenExperts::ResidentShare(std::span<const int32_t> prompt, std::span<const ExpertTier> tiers,
                                   ExpertTier slowest) const {
  CADRE_CHECK_EQ(tiers.size(), static_cast<size_t>(shape_.num_layers) * static_cast<size_t>(shape_.num_experts));
  const size_t count = std::min(prompt.size(), kMaxLookedUp);
  if (count == 0 || num_choices() == 0) return 0.0;
  double sum = 0.0;
  for (size_t i = 0; i < count; ++i) {
    const int32_t token = prompt[i * prompt.size() / count];
    const size_t row = RowOf(token);
    if (owners_[row] != token) continue;
    const uint16_t* next = &experts_[row * num_choices()];
    int32_t num_chosen = 0;
    int32_t num_resident = 0;
    for (size_t layer = 0; layer < static_cast<size_t>(shape_.num_layers); ++layer) {
      const std::span<const ExpertTier> layer_tiers =
          tiers.subspan(layer * static_cast<size_t>(shape_.num_experts), static_cast<size_t>(shape_.num_experts));
      for (int32_t k = 0; k < shape_.top_k; ++k, ++next) {
        if (*next == kNone) continue;
        ++num_chosen;
        num_resident += layer_tiers[*next] >= slowest ? 1 : 0;
      }
    }
    if (num_chosen > 0) sum += static_cast<double>(num_resident) / num_chosen;
  }
  return sum / static_cast<double>(count);
}

}  // namespace cadre
