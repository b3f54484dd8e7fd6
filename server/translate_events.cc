// The answering half of translate.h.
#include <algorithm>
#include <array>
#include <charconv>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/request/nan_error.h"
#include "engine/request/refusal.h"
#include "server/errors.h"
#include "server/proto_time.h"
#include "server/translate.h"
#include "server/translate_capacity.h"

namespace cadre {
namespace {

v1::FinishReason ToWire(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEos:
      return v1::FINISH_REASON_END_OF_SEQUENCE;
    case FinishReason::kStopToken:
      return v1::FINISH_REASON_STOP_TOKEN;
    case FinishReason::kStopString:
      return v1::FINISH_REASON_STOP_STRING;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kTimeLimit:
      return v1::FINISH_REASON_TIME_LIMIT;
    case FinishReason::kConstraintEnd:
      return v1::FINISH_REASON_CONSTRAINT_END;
    case FinishReason::kNone:
      break;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

// `facts` says whether the token's bytes are wanted, and who knows them.
void FillBytes(int32_t token_id, const RequestFacts& facts, std::string* bytes) {
  if (facts.has_token_bytes) *bytes = TokenBytes(token_id, *facts.tokenizer);
}

void FillDetail(const TokenLogprob& logprob, const RequestFacts& facts, v1::TokenDetail* detail) {
  detail->set_token_id(logprob.token_id);
  detail->set_logprob(logprob.logprob);
  detail->set_rank(logprob.rank);
  FillBytes(logprob.token_id, facts, detail->mutable_token_bytes());
  for (const TokenAlternative& alternative : logprob.alternatives) {
    v1::TokenAlternative* wire = detail->add_alternatives();
    wire->set_token_id(alternative.token_id);
    wire->set_logprob(alternative.logprob);
    FillBytes(alternative.token_id, facts, wire->mutable_token_bytes());
  }
}

}  // namespace

std::string TokenBytes(int32_t token_id, const Tokenizer& tokenizer, bool is_first) {
  if (auto spelling = tokenizer.SpellToken(token_id)) return std::move(is_first ? spelling->first : spelling->later);
  if (tokenizer.IsSpecial(token_id)) return std::string(tokenizer.IdToToken(token_id));
  return tokenizer.Decode(std::span(&token_id, 1), /*skip_special_tokens=*/false);
}

void FillStarted(const RequestFacts& facts, const RequestStart& start, v1::StartedEvent* event) {
  event->set_request_id(facts.request_id);
  event->set_model(facts.model);
  event->set_seed(facts.seed);
  event->set_prompt_tokens(facts.prompt_tokens);
  event->set_cached_prompt_tokens(start.cached_prompt_tokens);
  for (const TokenLogprob& logprob : start.prompt_logprobs) FillDetail(logprob, facts, event->add_prompt_details());
}

void FillDelta(TokenDelta&& delta, const RequestFacts& facts, v1::DeltaEvent* event) {
  event->set_index(delta.index);
  event->set_text(std::move(delta.text));
  for (const TokenLogprob& logprob : delta.logprobs) FillDetail(logprob, facts, event->add_details());
  if (facts.has_token_bytes && delta.logprobs.empty()) {
    for (const int32_t id : delta.token_ids)
      FillDetail({.token_id = id, .alternatives = {}}, facts, event->add_details());
  }
  event->mutable_token_ids()->Assign(delta.token_ids.begin(), delta.token_ids.end());
}

void FillFinished(const FinishSummary& summary, v1::FinishedEvent* event) {
  event->set_index(summary.index);
  event->set_reason(ToWire(summary.reason));
  event->set_text(summary.text);
  if (summary.reason == FinishReason::kStopString) {
    event->set_matched_stop_string(summary.matched_stop);
  } else if (summary.matched_token >= 0) {
    event->set_matched_token_id(summary.matched_token);
  }
  event->mutable_usage()->set_prompt_tokens(summary.usage.prompt_tokens);
  event->mutable_usage()->set_cached_prompt_tokens(summary.usage.cached_prompt_tokens);
  event->mutable_usage()->set_generated_tokens(summary.usage.generated_tokens);
  v1::Timings* timings = event->mutable_timings();
  *timings->mutable_queue() = ToProto(summary.timings.queue);
  *timings->mutable_prefill() = ToProto(summary.timings.prefill);
  *timings->mutable_decode() = ToProto(summary.timings.decode);
  *timings->mutable_total() = ToProto(summary.timings.total);
  timings->set_preemptions(summary.num_preemptions);
  v1::RoutingReport* routing = event->mutable_routing();
  routing->set_processed(summary.routing.processed);
  routing->set_rerouted(summary.routing.rerouted);
  routing->set_reweighted(summary.routing.reweighted);
  routing->set_dropped(summary.routing.dropped);
  routing->set_lost_gate_weight(summary.routing.lost_gate_weight);
  routing->set_expert_cache_hits(summary.routing.cache_hits);
  routing->set_expert_cache_misses(summary.routing.cache_misses);
  routing->set_expert_bytes_loaded(summary.routing.cache_bytes);
  *routing->mutable_expert_wait() = ToProto(summary.routing.cache_wait);
  routing->set_fidelity(summary.routing.fidelity());
  routing->set_gate_weight(summary.routing.total_gate_weight);
  FillCapacity(summary.capacity, routing->mutable_capacity());
  const RoutedExperts& routed = summary.routed_experts;
  if (routed.num_layers == 0) return;
  v1::RoutedExperts* const experts = event->mutable_routed_experts();
  experts->set_num_layers(routed.num_layers);
  experts->set_top_k(routed.top_k);
  experts->mutable_expert_ids()->Assign(routed.expert_ids.begin(), routed.expert_ids.end());
  experts->mutable_weights()->Assign(routed.weights.begin(), routed.weights.end());
}

absl::Status FinishError(const FinishSummary& summary, const std::string& request_id) {
  ErrorSpec spec{.code = summary.status.code()};
  spec.metadata.emplace_back("request_id", request_id);
  spec.metadata.emplace_back("generated_tokens", absl::StrCat(summary.usage.generated_tokens));
  switch (spec.code) {
    case absl::StatusCode::kOk:
      return absl::OkStatus();
    case absl::StatusCode::kCancelled:
      spec.reason = reason::kCancelled;
      spec.message = "cancelled";
      break;
    case absl::StatusCode::kDeadlineExceeded:
      if (RefusalOf(summary.status) == Refusal::kDeadlineUnreachable) {
        spec.reason = reason::kDeadlineUnreachable;
        spec.message = std::string(summary.status.message());
        break;
      }
      spec.reason = reason::kDeadlineExceeded;
      spec.message = absl::StrCat("the deadline passed after ", summary.usage.generated_tokens, " generated tokens");
      break;
    case absl::StatusCode::kResourceExhausted:
      spec.reason = reason::kConstraintTooCostly;
      spec.message = absl::StrCat("structured_output, after ", summary.usage.generated_tokens,
                                  " generated tokens: ", summary.status.message());
      break;
    case absl::StatusCode::kUnavailable:
      spec.retry_delay = absl::Seconds(1);
      if (RefusalOf(summary.status) == Refusal::kExpertUnavailable) {
        spec.reason = reason::kExpertUnavailable;
        spec.message = absl::StrCat(
            "an expert that the request needs cannot be read from the checkpoint; the server's log tells more under "
            "request id ",
            request_id);
        break;
      }
      spec.reason = reason::kDraining;
      spec.message = "the server ended before the request did; another server may serve it";
      break;
    default:
      spec.code = absl::StatusCode::kInternal;
      spec.reason = IsNanError(summary.status) ? reason::kNotANumber : reason::kEngineFailure;
      spec.message =
          absl::StrCat(IsNanError(summary.status)
                           ? "the model computed values that are not numbers for this request, and for no other"
                           : "the engine failed",
                       "; the server's log tells more under request id ", request_id);
  }
  return MakeError(std::move(spec));
}

RequestTimings CoverBoth(const RequestTimings& a, const RequestTimings& b) {
  // A sequence that ended while it waited has no more than a total.
  const auto has_token = [](const RequestTimings& timings) {
    return timings.prefill + timings.decode > absl::ZeroDuration();
  };
  RequestTimings both = has_token(a) ? a : b;
  if (!has_token(a) && !has_token(b)) {
    // One that never left the queue tells none.
    const auto [less, more] = std::minmax(a.queue, b.queue);
    both.queue = less > absl::ZeroDuration() ? less : more;
  }
  if (has_token(a) && has_token(b)) {
    both.queue = std::min(a.queue, b.queue);
    both.prefill = std::min(a.queue + a.prefill, b.queue + b.prefill) - both.queue;
  }
  both.total = std::max(a.total, b.total);
  if (has_token(both)) both.decode = both.total - both.queue - both.prefill;
  return both;
}

std::string RoutingTrailer(const RoutingReport& routing) {
  const auto digits = [](double number) {
    std::array<char, 32> text = {};
    return std::string(text.data(), std::to_chars(text.data(), text.data() + text.size(), number).ptr);
  };
  return absl::StrCat("processed=", routing.processed, ";rerouted=", routing.rerouted,
                      ";reweighted=", routing.reweighted, ";dropped=", routing.dropped,
                      ";gate_weight=", digits(routing.total_gate_weight),
                      ";lost_gate_weight=", digits(routing.lost_gate_weight), ";fidelity=", digits(routing.fidelity()));
}

std::string ServerTiming(const RequestTimings& timings) {
  return absl::StrFormat("queue;dur=%.2f, prefill;dur=%.2f, decode;dur=%.2f", absl::ToDoubleMilliseconds(timings.queue),
                         absl::ToDoubleMilliseconds(timings.prefill), absl::ToDoubleMilliseconds(timings.decode));
}

}  // namespace cadre
