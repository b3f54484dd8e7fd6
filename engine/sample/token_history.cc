#include "engine/sample/token_history.h"

#include <cstddef>

namespace cadre {

TokenHistory::TokenHistory(std::span<const int32_t> prompt, Penalties penalties) : penalties_(penalties) {
  if (penalties_.repetition == 1.0f) return;
  for (const int32_t token : prompt) num_generated_.try_emplace(token, 0);
}

void TokenHistory::Add(int32_t token) {
  if (penalties_.any()) ++num_generated_[token];
}

void TokenHistory::Penalize(std::span<float> logits) const {
  // No token looks at another, so the table's order does not show.
  for (const auto& [token, count] : num_generated_) {
    float& logit = logits[static_cast<size_t>(token)];
    if (penalties_.repetition != 1.0f) {
      logit = logit > 0.0f ? logit / penalties_.repetition : logit * penalties_.repetition;
    }
    if (count == 0) continue;
    logit -= static_cast<float>(count) * penalties_.frequency;
    logit -= penalties_.presence;
  }
}

}  // namespace cadre
