// Which experts a token is likely to need, by where its id went when it was last seen: what tells, before a prompt is
// computed, how much of what it needs is in memory.
#ifndef CADRE_ENGINE_EXPERTS_TOKEN_EXPERTS_H_
#define CADRE_ENGINE_EXPERTS_TOKEN_EXPERTS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/experts/expert_placement.h"

namespace cadre {

struct TokenExpertsShape {
  int32_t vocab_size = 0;
  int32_t num_layers = 0;   // with experts
  int32_t num_experts = 0;  // of a layer, at most kMaxExperts
  int32_t top_k = 0;        // experts of a token in a layer, at most
};

// A guess: routers look at the context, too. One row for a token id; where there is no memory for the whole vocabulary,
// ids that are equal modulo the number of rows share one, which then tells of the one that was seen last. Not
// thread-safe; deterministic.
class TokenExperts {
 public:
  static constexpr int32_t kMaxExperts = 65535;
  static constexpr int64_t kMaxBytes = int64_t{16} << 20;  // but for one row, which is always there
  // Tokens of one step that are learned, evenly spread: with 48 layers of 8 experts less than a thousandth of a second.
  static constexpr size_t kMaxLearned = 512;
  // Tokens of a prompt that are looked up, evenly spread: with as many experts some 50 millionths of a second.
  static constexpr size_t kMaxLookedUp = 32;

  explicit TokenExperts(const TokenExpertsShape& shape, int64_t max_bytes = kMaxBytes);

  // What the table of this shape takes.
  static int64_t Bytes(const TokenExpertsShape& shape, int64_t max_bytes = kMaxBytes);

  // Where the assignments of a step went: `token_ids` [T], below vocab_size; `expert_ids` [layers, T, K], negative
  // where an assignment was lost or there was none.
  void Observe(std::span<const int32_t> token_ids, std::span<const int32_t> expert_ids);

  // Of the (layer, expert) pairs that the tokens of `prompt` last chose, the share that is in `tiers` [layers, experts]
  // in the tier `slowest` or a faster one: the mean over the tokens, and 0 of a token that is not known. In [0, 1].
  double ResidentShare(std::span<const int32_t> prompt, std::span<const ExpertTier> tiers,
                       ExpertTier slowest = ExpertTier::kDevice) const;

 private:
  static constexpr uint16_t kNone = 65535;

  size_t RowOf(int32_t token) const { return static_cast<size_t>(token) % owners_.size(); }
  size_t num_choices() const;  // of a token

  const TokenExpertsShape shape_;
  std::vector<int32_t> owners_;    // [rows] token ids; -1: none yet
  std::vector<uint16_t> experts_;  // [rows, layers, K]; kNone: none
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_TOKEN_EXPERTS_H_
