// From the rows of logits of a step to its tokens: chosen by the device, where it can, or here.
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/base/check.h"
#include "engine/base/failpoint.h"
#include "engine/engine_loop.h"
#include "engine/request/nan_error.h"
#include "engine/request/refusal.h"
#include "engine/sample/arg_max.h"

namespace cadre {

void EngineLoop::PlanChoices(const StepPlan& plan) {
  batch_.sample_rows.clear();
  batch_.sample_extras.clear();
  if (std::ssize(batch_.logit_rows) > limits_.max_sample_rows) return;
  for (const ScheduledChunk& chunk : plan.chunks) {
    for (int32_t i = 0; i < chunk.num_logit_rows(); ++i) batch_.sample_rows.emplace_back();
    // A prompt's log probabilities need its logits here anyway.
    if (!chunk.samples || chunk.all_logits) continue;
    batch_.sample_rows.back() =
        Find(chunk.sequence)
            .chooser
            .PlanChoice(limits_.vocab_size, static_cast<size_t>(limits_.max_sample_extras), &batch_.sample_extras)
            .value_or(SampleRow());
  }
}

std::vector<EngineLoop::ChunkResult> EngineLoop::Sample(const StepPlan& plan) {
  CADRE_FAILPOINT("engine.sample");
  const auto vocab_size = static_cast<size_t>(limits_.vocab_size);
  std::span<float> rest(result_.logits);
  std::vector<ChunkResult> results;
  results.reserve(plan.chunks.size());
  // One sequence that fails ends its request: what its siblings would say is not worth the time, which all pay. But
  // whatever else failed, what was computed with NaN must not be kept.
  absl::flat_hash_map<const RequestGroup*, absl::Status> failures;
  for (const SequenceFault& fault : result_.faults) {
    if (options_.tolerate_missing_experts) break;
    failures.try_emplace(
        &Find(plan.chunks[static_cast<size_t>(fault.sequence)].sequence).response.group(),
        MakeRefusal(Refusal::kExpertUnavailable, fault.status.code(), std::string(fault.status.message())));
  }
  size_t row = 0;  // of logits
  for (const ScheduledChunk& chunk : plan.chunks) {
    const auto num_rows = static_cast<size_t>(chunk.num_logit_rows());
    row += num_rows;
    const bool is_sampled = num_rows > 0 && !batch_.sample_rows.empty() && batch_.sample_rows[row - 1].is_wanted != 0;
    const std::span<float> logits = rest.first(is_sampled ? 0 : num_rows * vocab_size);
    rest = rest.subspan(logits.size());
    const RequestGroup* group = &Find(chunk.sequence).response.group();
    const auto failure = failures.find(group);
    if (failure != failures.end()) {
      results.emplace_back();
    } else {
      results.push_back(is_sampled ? AdoptChoice(chunk, row - 1) : SampleChunk(chunk, logits));
    }
    absl::Status status = results.back().status;
    if (failure != failures.end() || !status.ok()) {
      const auto check = [&] {
        return is_sampled ? CheckSampledToken(result_.sampled.tokens[row - 1], limits_.vocab_size)
                          : ArgMax(logits.last(vocab_size)).status();
      };
      if (absl::Status nan = chunk.samples ? check() : status; IsNanError(nan)) status = nan;
    }
    if (!status.ok()) failures.insert_or_assign(group, status);
  }
  CADRE_CHECK(rest.empty());
  for (size_t i = 0; i < results.size(); ++i) {
    const auto failure = failures.find(&Find(plan.chunks[i].sequence).response.group());
    if (failure != failures.end()) results[i] = {.status = failure->second, .token = std::nullopt};
  }
  return results;
}

EngineLoop::ChunkResult EngineLoop::SampleChunk(const ScheduledChunk& chunk, std::span<float> logits) {
  const auto vocab_size = static_cast<size_t>(limits_.vocab_size);
  ChunkResult result;
  if (logits.empty()) return result;
  Active& active = Find(chunk.sequence);
  if (chunk.all_logits) {
    // Before the last row is given away to be changed.
    for (int32_t i = 0; i < chunk.count; ++i) {
      result.status = active.response.group().AddPromptLogits(
          active.sequence.tokens(), chunk.begin + i, logits.subspan(static_cast<size_t>(i) * vocab_size, vocab_size));
      if (!result.status.ok()) return result;
    }
  }
  if (!chunk.samples) return result;
  absl::StatusOr<ChosenToken> token = active.chooser.Choose(logits.last(vocab_size), &sampler_);
  result.status = token.status();
  if (!token.ok()) return result;
  active.chooser.Accept(token->token_id);
  result.token = *std::move(token);
  return result;
}

EngineLoop::ChunkResult EngineLoop::AdoptChoice(const ScheduledChunk& chunk, size_t row) {
  Active& active = Find(chunk.sequence);
  constexpr size_t kAlternatives = kMaxAlternatives;
  const SampledRows& sampled = result_.sampled;
  const DeviceChoice choice = {
      .token = sampled.tokens[row],
      .rank = sampled.ranks[row],
      .logprobs = std::span(sampled.logprobs).subspan(row * (1 + kAlternatives), 1 + kAlternatives),
      .alternatives = std::span(sampled.alternatives).subspan(row * kAlternatives, kAlternatives)};
  absl::StatusOr<ChosenToken> token = active.chooser.Adopt(choice, limits_.vocab_size);
  if (!token.ok()) return {.status = token.status(), .token = std::nullopt};
  active.chooser.Accept(token->token_id);
  return {.status = absl::OkStatus(), .token = *std::move(token)};
}

}  // namespace cadre
