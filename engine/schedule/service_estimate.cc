#include "engine/schedule/service_estimate.h"

#include <algorithm>
#include <cmath>

#include "engine/base/check.h"

namespace cadre {

double ExpectedOutput(const ServiceState& state, bool may_end_early, double most) {
  if (!may_end_early || most <= 0) return most;
  return -state.mean_output * std::expm1(-most / state.mean_output);
}

ServiceEstimate EstimateService(const ServiceState& state, const Work& ahead, const Work& own) {
  CADRE_CHECK(state.costs.is_known);
  CADRE_CHECK_GE(own.num_sequences, 1);
  Work before = state.running;
  before += ahead;
  const double seats = state.num_seats;
  const auto own_sequences = static_cast<double>(own.num_sequences);
  const double others = static_cast<double>(before.num_sequences);
  const double batch = std::min(seats, others + own_sequences);

  // A step in which everybody decodes.
  const double context = std::max(state.mean_context, static_cast<double>(own.prompt_tokens));
  const double decode_step = state.costs.step + batch * (state.costs.row + state.costs.position * context);
  // Steps until enough of the others have left a seat: they fill the seats until the last ones, which on average are
  // half done then.
  double wait_steps = 0.0;
  if (others + own_sequences > seats) {
    const double mean_output = before.output_tokens / std::max(others, 1.0);
    wait_steps = std::max(0.0, before.output_tokens - 0.5 * mean_output * std::min(seats, others)) / seats;
  }
  // Prompts travel in the rows beside the decodes: they cost their rows, and at least so many steps.
  const double prompt_rows = static_cast<double>(before.prompt_tokens + own.prompt_tokens);
  const double own_prompt = static_cast<double>(own.prompt_tokens);
  const double prompt_steps = std::ceil(prompt_rows / std::max(state.max_prompt_rows, 1));
  const double attention = state.costs.position * own_prompt * own_prompt / 2;
  const double first_token =
      std::max(wait_steps, prompt_steps) * decode_step + prompt_rows * state.costs.row + attention;

  // While the request generates, the seats that others leave are taken by prompts like those before.
  double decode_time = decode_step;
  if (others + own_sequences > seats && before.output_tokens > 0) {
    decode_time += state.costs.row * batch * static_cast<double>(before.prompt_tokens) / before.output_tokens;
  }
  const double rounds = std::ceil(own_sequences / seats);  // more sequences than seats take turns
  const double tokens = own.output_tokens / own_sequences * rounds;
  const double last_token = first_token + std::max(tokens - 1, 0.0) * decode_time;
  return {.first_token = absl::Seconds(first_token), .last_token = absl::Seconds(last_token)};
}

}  // namespace cadre
