#include "engine/deadline_admission.h"

#include "absl/strings/str_cat.h"
#include "engine/request/refusal.h"

namespace cadre {
namespace {

Work ExpectedWork(const ServiceState& state, const QueueCost& cost) {
  return {.num_sequences = cost.sequences,
          .prompt_tokens = static_cast<int64_t>(static_cast<double>(cost.prompt_tokens) * state.prompt_ratio),
          .output_tokens = static_cast<double>(cost.expected_tokens)};
}

// Three digits are enough, and a message should not change with every nanosecond.
std::string Rounded(absl::Duration duration) {
  return absl::FormatDuration(absl::Trunc(duration + absl::Microseconds(500), absl::Milliseconds(1)));
}

ServiceEstimate Estimate(const ServiceState& state, const QueueCost& ahead, const QueueCost& own) {
  if (!state.costs.is_known) return {};
  return EstimateService(state, ExpectedWork(state, ahead), ExpectedWork(state, own));
}

// As if nobody were before the request, but beside what runs.
ServiceEstimate EstimateWithoutWait(const ServiceState& state, const QueueCost& own) {
  ServiceState without_wait = state;
  without_wait.running = {.num_sequences = state.running.num_sequences};
  return Estimate(without_wait, {}, own);
}

}  // namespace

bool IsLimitedByDeadline(const Request& request) {
  return request.deadline != absl::InfiniteFuture() && request.time_limit >= request.deadline - request.arrival;
}

absl::Duration ExpectedTime(const ServiceState& state, const QueueCost& ahead, const QueueCost& own) {
  return Estimate(state, ahead, own).last_token;
}

absl::Duration ExpectedServiceTime(const ServiceState& state, const QueueCost& own) {
  return EstimateWithoutWait(state, own).last_token;
}

absl::Duration ExpectedWait(const ServiceState& state, const QueueCost& ahead, const QueueCost& own) {
  return Estimate(state, ahead, own).first_token - EstimateWithoutWait(state, own).first_token;
}

absl::Status CheckWait(const ServiceState& state, const QueueCost& ahead, const QueueCost& own,
                       absl::Duration max_wait) {
  const absl::Duration expected = ExpectedWait(state, ahead, own);
  if (expected <= max_wait) return absl::OkStatus();
  return MakeRefusal(Refusal::kQueueFull, absl::StatusCode::kResourceExhausted,
                     absl::StrCat("the request is expected to wait for ", Rounded(expected), " behind ", ahead.requests,
                                  " others, the limit is ", Rounded(max_wait)));
}

absl::Status CheckDeadline(const ServiceState& state, const QueueCost& ahead, const QueueCost& own,
                           absl::Duration time_left) {
  const absl::Duration expected = kDeadlineSafety * ExpectedTime(state, ahead, own);
  if (expected <= time_left) return absl::OkStatus();
  const absl::Duration service = kDeadlineSafety * ExpectedServiceTime(state, own);
  const std::string left = absl::StrCat("the deadline is in ", Rounded(time_left));
  if (service > time_left) {
    return MakeRefusal(Refusal::kDeadlineUnreachable, absl::StatusCode::kDeadlineExceeded,
                       absl::StrCat(left, ", and the answer would take ", Rounded(service)));
  }
  return MakeRefusal(Refusal::kDeadlineUnreachable, absl::StatusCode::kResourceExhausted,
                     absl::StrCat(left, ", and with ", ahead.requests, " requests waiting the answer is expected in ",
                                  Rounded(expected)));
}

}  // namespace cadre
