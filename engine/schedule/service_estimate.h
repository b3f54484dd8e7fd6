// When a request would be answered if it were accepted now.
#ifndef CADRE_ENGINE_SCHEDULE_SERVICE_ESTIMATE_H_
#define CADRE_ENGINE_SCHEDULE_SERVICE_ESTIMATE_H_

#include <cstdint>

#include "absl/time/time.h"
#include "engine/schedule/step_cost_model.h"

namespace cadre {

// Work that is to be done, in sequences.
struct Work {
  int64_t num_sequences = 0;
  int64_t prompt_tokens = 0;  // to compute
  double output_tokens = 0;   // to generate, as expected

  Work& operator+=(const Work& other) {
    num_sequences += other.num_sequences;
    prompt_tokens += other.prompt_tokens;
    output_tokens += other.output_tokens;
    return *this;
  }
};

// What the engine knows of itself; a value.
struct ServiceState {
  StepCosts costs;
  double num_seats = 1.0;       // sequences that run at once: as many as are allowed, or as find blocks
  int32_t max_prompt_rows = 1;  // of a step that also decodes
  Work running;                 // what is left of the sequences that have started
  double mean_context = 0.0;    // tokens of a running sequence
  double prompt_ratio = 1.0;    // prompt tokens that had to be computed, of late, by all: the rest was cached
  double mean_output = 256.0;   // tokens after which sequences that may end early do, of late
};

// How many of `most` tokens a sequence is expected to generate, if each may be the last with the same probability.
double ExpectedOutput(const ServiceState& state, bool may_end_early, double most);

struct ServiceEstimate {
  absl::Duration first_token;
  absl::Duration last_token;
};

// A fluid model: rows and tokens flow through the seats in steps of equal time, in order of arrival. `ahead`
// waits and will be served before `own`, a request of one or more sequences with one prompt. REQUIRES: the costs are
// known.
ServiceEstimate EstimateService(const ServiceState& state, const Work& ahead, const Work& own);

}  // namespace cadre

#endif  // CADRE_ENGINE_SCHEDULE_SERVICE_ESTIMATE_H_
