// The answering half of translate.h.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/errors.h"
#include "server/proto_time.h"
#include "server/translate.h"

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

}  // namespace

void FillStarted(const RequestFacts& facts, v1::StartedEvent* event) {
  event->set_request_id(facts.request_id);
  event->set_model(facts.model);
  event->set_seed(facts.seed);
  event->set_prompt_tokens(facts.prompt_tokens);
}

void FillDelta(TokenDelta&& delta, v1::DeltaEvent* event) {
  event->set_text(std::move(delta.text));
  event->mutable_token_ids()->Assign(delta.token_ids.begin(), delta.token_ids.end());
}

void FillFinished(const FinishSummary& summary, v1::FinishedEvent* event) {
  event->set_reason(ToWire(summary.reason));
  event->set_text(summary.text);
  if (summary.reason == FinishReason::kStopString) {
    event->set_matched_stop_string(summary.matched_stop);
  } else if (summary.matched_token >= 0) {
    event->set_matched_token_id(summary.matched_token);
  }
  event->mutable_usage()->set_prompt_tokens(summary.usage.prompt_tokens);
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
      spec.reason = reason::kDeadlineExceeded;
      spec.message = absl::StrCat("the deadline passed after ", summary.usage.generated_tokens, " generated tokens");
      break;
    case absl::StatusCode::kUnavailable:
      spec.reason = reason::kDraining;
      spec.message = "the server ended before the request did; another server may serve it";
      spec.retry_delay = absl::Seconds(1);
      break;
    default:
      spec.code = absl::StatusCode::kInternal;
      spec.reason = reason::kEngineFailure;
      spec.message = absl::StrCat("the engine failed; the server's log tells more under request id ", request_id);
  }
  return MakeError(std::move(spec));
}

std::string ServerTiming(const RequestTimings& timings) {
  return absl::StrFormat("queue;dur=%.2f, prefill;dur=%.2f, decode;dur=%.2f", absl::ToDoubleMilliseconds(timings.queue),
                         absl::ToDoubleMilliseconds(timings.prefill), absl::ToDoubleMilliseconds(timings.decode));
}

}  // namespace cadre
