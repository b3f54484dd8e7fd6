// Whether a request can be answered before its deadline, and without a longer wait than the operator allows: who cannot
// is refused at once, and costs no work.
#ifndef CADRE_ENGINE_DEADLINE_ADMISSION_H_
#define CADRE_ENGINE_DEADLINE_ADMISSION_H_

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/request/request_queue.h"
#include "engine/schedule/service_estimate.h"

namespace cadre {

// Estimates are stretched by this before they are compared: what is accepted should be finished, not just begun.
inline constexpr double kDeadlineSafety = 1.25;

// Whether a deadline may cut the request off: not one that a time limit ends well before it.
bool IsLimitedByDeadline(const Request& request);

// What the request's last token is expected to take from now on, with `ahead` of it in the queue. As much of its prompt
// is expected to be computed as of late, and as many tokens as the costs say. Zero while nothing is known.
absl::Duration ExpectedTime(const ServiceState& state, const QueueCost& ahead, const QueueCost& own);
// The same without any wait, but beside what runs.
absl::Duration ExpectedServiceTime(const ServiceState& state, const QueueCost& own);

// How much later the first token is expected because of `ahead` and of what runs.
absl::Duration ExpectedWait(const ServiceState& state, const QueueCost& ahead, const QueueCost& own);
// OK, or a Refusal (kQueueFull): RESOURCE_EXHAUSTED says what is expected and what is allowed.
absl::Status CheckWait(const ServiceState& state, const QueueCost& ahead, const QueueCost& own,
                       absl::Duration max_wait);

// OK, or a Refusal (kDeadlineUnreachable) that says what is expected and what is left: RESOURCE_EXHAUSTED when the
// queue is the reason, so that it makes sense to try again; DEADLINE_EXCEEDED when even without it the time would not
// do.
absl::Status CheckDeadline(const ServiceState& state, const QueueCost& ahead, const QueueCost& own,
                           absl::Duration time_left);

}  // namespace cadre

#endif  // CADRE_ENGINE_DEADLINE_ADMISSION_H_
