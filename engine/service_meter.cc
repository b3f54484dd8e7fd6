#include "engine/service_meter.h"

#include <algorithm>

namespace cadre {
namespace {

// Weight of the latest of the requests that make a ratio.
constexpr double kSmoothing = 0.05;

void Blend(double sample, double* mean) { *mean += kSmoothing * (sample - *mean); }

}  // namespace

ServiceMeter::ServiceMeter(int32_t max_num_seqs, int32_t max_prompt_rows) {
  state_.max_num_seqs = max_num_seqs;
  state_.max_prompt_rows = max_prompt_rows;
}

void ServiceMeter::ObserveStep(const StepPlan& plan, absl::Duration duration) {
  StepLoad load;
  int64_t context = 0;
  for (const ScheduledChunk& chunk : plan.chunks) {
    const int64_t count = chunk.count;
    load.rows += count;
    load.attended += count * chunk.begin + count * (count + 1) / 2;
    context += chunk.begin + count;
  }
  costs_.Observe(load, absl::ToDoubleSeconds(duration));
  state_.costs = costs_.costs();
  if (!plan.chunks.empty())
    state_.mean_context = static_cast<double>(context) / static_cast<double>(plan.chunks.size());
}

void ServiceMeter::ObserveStart(const Sequence& sequence) {
  const double found = sequence.num_found_tokens();
  Blend(1.0 - found / sequence.num_prompt_tokens(), &state_.prompt_ratio);
}

void ServiceMeter::ObserveEnd(const Sequence& sequence) {
  const double most = std::max(sequence.traits().max_tokens, 1);
  Blend(std::min(1.0, sequence.num_generated_tokens() / most), &state_.output_ratio);
}

void ServiceMeter::AddRunning(const Sequence& sequence) {
  const int32_t generated = sequence.num_generated_tokens();
  const double expected = state_.output_ratio * sequence.traits().max_tokens - generated;
  state_.running += {.num_sequences = 1,
                     .prompt_tokens = sequence.num_uncomputed_tokens() - (generated > 0 ? 1 : 0),
                     .output_tokens = std::max(expected, 1.0)};
}

}  // namespace cadre
