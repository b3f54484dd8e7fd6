// Recorded choices of a router, by which a request is routed.
#ifndef CADRE_ENGINE_REQUEST_ROUTING_REPLAY_H_
#define CADRE_ENGINE_REQUEST_ROUTING_REPLAY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/request/token_sink.h"

namespace cadre {

struct RoutingReplay {
  int32_t first_position = 0;          // of the first recorded token in the sequence, prompt included
  bool uses_recorded_weights = false;  // else the experts get the weights that the router gives them now
  RoutedExperts record;                // without weights where they are not used

  int64_t num_positions() const {
    const int64_t of_position = int64_t{record.num_layers} * record.top_k;
    return of_position > 0 ? static_cast<int64_t>(record.expert_ids.size()) / of_position : 0;
  }
  // What it keeps on the host while its request is in flight.
  int64_t size_bytes() const {
    return static_cast<int64_t>(record.expert_ids.size() * sizeof(int32_t) + record.weights.size() * sizeof(float));
  }
};

// What a record must agree with.
struct ReplayBounds {
  int32_t num_layers = 0;  // MoE layers
  int32_t num_experts = 0;
  int32_t top_k = 0;            // most experts of a token
  int32_t min_k = 0;            // fewest
  bool experts_choose = false;  // the tokens of prompts
  int64_t num_positions = 0;    // that are computed at most: of the prompt, and all generated ones but the last
};

// The largest weight of a record; the smallest is 0.
inline constexpr float kMaxReplayWeight = 1e6f;

struct ReplayFault {
  std::string field;    // such as "record.expert_ids[17]"
  std::string problem;  // the value and the limit
};
// What is wrong with `replay`, if anything is. O(choices + E).
std::optional<ReplayFault> FindReplayFault(const RoutingReplay& replay, const ReplayBounds& bounds);

// How much the records of all requests in flight may take. Any thread.
class ReplayMemory {
 public:
  // `max_tenant_share` of it may be one named tenant's, who may have one record in any case.
  ReplayMemory(int64_t max_bytes, double max_tenant_share);

  // Charges for `replay` until the last copy of what it returns is gone, which may be after this object is.
  // RESOURCE_EXHAUSTED (Refusal::kQueueFull, kTenantShare): there is not enough left, and nothing is charged.
  absl::StatusOr<std::shared_ptr<const RoutingReplay>> Charge(std::shared_ptr<const RoutingReplay> replay,
                                                              std::string_view tenant);
  int64_t bytes_in_use() const;

 private:
  class Account;

  const int64_t max_bytes_;
  const double max_tenant_share_;
  const std::shared_ptr<Account> account_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_REQUEST_ROUTING_REPLAY_H_
