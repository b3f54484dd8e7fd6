// One generation request, complete and validated, as the service hands it to the engine.
#ifndef CADRE_ENGINE_REQUEST_REQUEST_H_
#define CADRE_ENGINE_REQUEST_REQUEST_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/request/capacity_policy.h"
#include "engine/request/routing_replay.h"
#include "engine/request/sampling_params.h"
#include "engine/request/token_sink.h"

namespace cadre {

class TokenConstraint;  // engine/structured/token_constraint.h

// Set by any thread, once; read by the engine thread at the start of each step. Nothing else runs backwards.
class CancelFlag {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_release); }
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> cancelled_{false};
};

// What a tenant is charged for a token that it generates; for one of a prompt that is computed, 1. The weights of Sheng
// et al., "Fairness in Serving Large Language Models" (OSDI 2024).
inline constexpr int64_t kGeneratedTokenService = 2;

struct Request {
  std::string id;               // for logs; need not be unique
  std::vector<int32_t> prompt;  // token ids, never empty
  SamplingParams sampling;
  absl::Time arrival;  // by the engine's clock
  absl::Time deadline = absl::InfiniteFuture();
  bool wants_text = true;     // false: deltas carry token ids only, and stop strings must be empty
  int32_t num_sequences = 1;  // n: independent continuations of the one prompt
  absl::Duration time_limit = absl::InfiniteDuration();  // from arrival on; ends the request normally, kTimeLimit
  std::optional<int32_t> prompt_logprobs;                // alternatives beside each prompt token; absent: not wanted
  bool echo = false;                                     // the prompt's text and tokens stand before the output's
  std::string prompt_text;                               // what is repeated as text; filled by Engine::Submit
  bool may_end_early = false;                            // before max_tokens, by itself; filled by Engine::Submit
  // What all its sequences will generate together, as far as is known on arrival; filled by Engine::Submit.
  int64_t expected_tokens = 0;
  int32_t priority = 0;                         // higher runs earlier, [-100, 100]
  std::string tenant;                           // the unit of fair sharing
  std::string cache_salt;                       // with the tenant: whose cached prompt prefixes may be shared
  bool wants_routed_experts = false;            // in the summary of each sequence; shares no cached prompts
  std::shared_ptr<const RoutingReplay> replay;  // how its tokens are routed, as far as it goes; null: as usual
  // Says, of the engine's policy, what this request wants; called once, by Engine::Submit, so that it is asked of the
  // policy that then holds. Empty: what `capacity` says.
  std::function<absl::StatusOr<CapacityPolicy>(const CapacityPolicy& own)> choose_capacity;
  std::optional<CapacityPolicy> capacity;             // absent: the engine's, which Engine::Submit fills in
  std::shared_ptr<const TokenConstraint> constraint;  // the language of the output; null: none
  std::shared_ptr<TokenSink> sink;
  std::shared_ptr<CancelFlag> cancel;  // shared with whoever may cancel; never null
};

// Whether what the model says may end the request before max_tokens do.
bool MayEndEarly(const Request& request, bool has_eos_tokens);

}  // namespace cadre

#endif  // CADRE_ENGINE_REQUEST_REQUEST_H_
