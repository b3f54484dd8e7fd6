#include "tools/answer_summary.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "google/protobuf/duration.pb.h"
#include "tools/generation_printer.h"

namespace cadre {
namespace {

constexpr double kMebibyte = 1 << 20;

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

void AddRouting(const v1::RoutingReport& of_sequence, v1::RoutingReport* sum) {
  sum->set_processed(sum->processed() + of_sequence.processed());
  sum->set_expert_cache_hits(sum->expert_cache_hits() + of_sequence.expert_cache_hits());
  sum->set_expert_cache_misses(sum->expert_cache_misses() + of_sequence.expert_cache_misses());
  sum->set_expert_bytes_loaded(sum->expert_bytes_loaded() + of_sequence.expert_bytes_loaded());
  // Sequences of a request wait together.
  if (FromProto(of_sequence.expert_wait()) > FromProto(sum->expert_wait())) {
    *sum->mutable_expert_wait() = of_sequence.expert_wait();
  }
  sum->set_rerouted(sum->rerouted() + of_sequence.rerouted());
  sum->set_reweighted(sum->reweighted() + of_sequence.reweighted());
  sum->set_dropped(sum->dropped() + of_sequence.dropped());
  sum->set_gate_weight(sum->gate_weight() + of_sequence.gate_weight());
  sum->set_lost_gate_weight(sum->lost_gate_weight() + of_sequence.lost_gate_weight());
  *sum->mutable_capacity() = of_sequence.capacity();
}

std::string RoutingText(const v1::RoutingReport& routing) {
  const int64_t lost = routing.reweighted() + routing.dropped();
  const int64_t all = lost + routing.processed() + routing.rerouted();
  std::string text;
  if (lost > 0) absl::StrAppendFormat(&text, ", lost assignments: %d of %d", lost, all);
  if (routing.rerouted() > 0) absl::StrAppendFormat(&text, ", rerouted: %d of %d", routing.rerouted(), all);
  if (lost > 0) {
    absl::StrAppendFormat(&text, ", fidelity: %.4f", 1.0 - routing.lost_gate_weight() / routing.gate_weight());
  }
  if (const int64_t lookups = routing.expert_cache_hits() + routing.expert_cache_misses(); lookups > 0) {
    absl::StrAppendFormat(&text, ", experts in memory: %d of %d", routing.expert_cache_hits(), lookups);
    absl::StrAppendFormat(&text, " (%.1f MiB read, waited %.1f ms)",
                          static_cast<double>(routing.expert_bytes_loaded()) / kMebibyte,
                          absl::ToDoubleMilliseconds(FromProto(routing.expert_wait())));
  }
  if (lost + routing.rerouted() > 0 && routing.capacity().scope() == v1::CAPACITY_SCOPE_BATCH) {
    text += " (depends on the requests beside it)";
  }
  return text;
}

}  // namespace

void AnswerSummary::Add(const v1::FinishedEvent& finished) {
  ++num_finished_;
  generated_tokens_ += finished.usage().generated_tokens();
  AddRouting(finished.routing(), &routing_);
  const v1::Timings& timings = finished.timings();
  if (finished.usage().generated_tokens() > 0) {  // others have no first token
    ++num_begun_;
    first_ = std::min(first_, FromProto(timings.queue()) + FromProto(timings.prefill()));
    end_ = std::max(end_, FromProto(timings.total()));
  }
  last_ = finished;
}

std::string AnswerSummary::Text(absl::Duration first_token) const {
  std::string text =
      absl::StrFormat("%d tokens after a prompt of %d", generated_tokens_, last_->usage().prompt_tokens());
  if (generated_tokens_ > num_begun_ && end_ > first_) {
    absl::StrAppendFormat(&text, ", %.1f tokens/s",
                          static_cast<double>(generated_tokens_ - num_begun_) / absl::ToDoubleSeconds(end_ - first_));
  }
  absl::StrAppendFormat(&text, ", first token after %.1f ms", absl::ToDoubleMilliseconds(first_token));
  absl::StrAppend(&text, num_finished_ > 1 ? absl::StrCat(", ", num_finished_, " sequences")
                                           : absl::StrCat(", end: ", FinishReasonText(*last_)));
  return absl::StrCat(text, RoutingText(routing_));
}

}  // namespace cadre
