#include "engine/service_meter.h"

#include <algorithm>

namespace cadre {
namespace {

// Weight of the latest of the requests that make a ratio.
constexpr double kSmoothing = 0.05;
// How much of the seats that were taken for want of blocks is forgotten in a step without that want.
constexpr double kSeatRecovery = 0.01;

void Blend(double sample, double* mean) { *mean += kSmoothing * (sample - *mean); }

}  // namespace

ServiceMeter::ServiceMeter(int32_t max_num_seqs, int32_t max_prompt_rows) : max_num_seqs_(max_num_seqs) {
  state_.num_seats = max_num_seqs;
  state_.max_prompt_rows = max_prompt_rows;
  output_tokens_ = state_.mean_output;
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

void ServiceMeter::ObserveEnd(const Sequence& sequence, bool by_itself) {
  if (sequence.num_generated_tokens() == 0) return;
  // Who was cut off tells how long it was at least: many tokens, and no end.
  output_tokens_ = (1 - kSmoothing) * output_tokens_ + sequence.num_generated_tokens();
  num_own_ends_ = (1 - kSmoothing) * num_own_ends_ + (by_itself ? 1 : 0);
  constexpr double kMaxMean = 1e9;
  state_.mean_output = std::min(output_tokens_ / std::max(num_own_ends_, 1 / kMaxMean), kMaxMean);
}

void ServiceMeter::ObserveSeats(int32_t num_running, bool for_blocks) {
  double* seats = &state_.num_seats;
  *seats += for_blocks ? kSmoothing * (num_running - *seats) : kSeatRecovery * (max_num_seqs_ - *seats);
  *seats = std::clamp<double>(*seats, std::max(num_running, 1), max_num_seqs_);
}

void ServiceMeter::AddRunning(const Sequence& sequence, bool may_end_early) {
  const int32_t generated = sequence.num_generated_tokens();
  const double expected = ExpectedOutput(state_, may_end_early, sequence.traits().max_tokens - generated);
  // Who waits for a sibling to compute their prompt will find it.
  const bool shares_prompt = !sequence.started() && sequence.traits().leader != kNoSequence;
  state_.running += {.num_sequences = 1,
                     .prompt_tokens = shares_prompt ? 1 : sequence.num_uncomputed_tokens() - (generated > 0 ? 1 : 0),
                     .output_tokens = std::max(expected, 1.0)};
}

}  // namespace cadre
