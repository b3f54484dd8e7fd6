#include "engine/sample/arg_max.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/request/nan_error.h"

namespace cadre {

absl::StatusOr<int32_t> ArgMax(std::span<const float> logits) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  // Independent lanes, so that the compiler compares a whole vector at a time.
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> largest;
  std::array<int32_t, kLanes> num_nans{};
  largest.fill(-kInfinity);
  const auto visit = [&](size_t lane, float logit) {
    largest[lane] = logit > largest[lane] ? logit : largest[lane];
    num_nans[lane] += logit != logit;
  };
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) visit(lane, logits[i + lane]);
  }
  for (; i < logits.size(); ++i) visit(0, logits[i]);
  if (std::reduce(num_nans.begin(), num_nans.end()) > 0) return NotANumberError();
  const float max = *std::max_element(largest.begin(), largest.end());
  if (max == -kInfinity) return NoTokenError(logits.size());
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), max) - logits.begin());
}

absl::Status NotANumberError() { return MakeNanError("the model computed logits that are not numbers"); }

absl::Status NoTokenError(size_t vocab_size) {
  return MakeNanError(absl::StrCat("all ", vocab_size, " logits are -inf"));
}

}  // namespace cadre
