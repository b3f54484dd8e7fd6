// From the rows of logits of a step to its tokens: chosen by the device, where it can, or here.
#include <cstddef>
#include <optional>
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

bool EngineLoop::PlanChoices(OrderedStep* step) {
  ForwardBatch& batch = step->batch;
  batch.sample_rows.clear();
  batch.sample_extras.clear();
  int64_t num_rows = 0;
  for (const ScheduledChunk& chunk : step->plan.chunks) num_rows += chunk.num_logit_rows();
  if (num_rows > limits_.max_sample_rows) return false;
  const auto max_extras = static_cast<size_t>(limits_.max_sample_extras);
  bool are_all_wanted = true;
  for (const ScheduledChunk& chunk : step->plan.chunks) {
    for (int32_t i = 0; i < chunk.num_logit_rows(); ++i) batch.sample_rows.emplace_back();
    // A prompt's log probabilities need its logits here anyway.
    if (!chunk.samples || chunk.all_logits) continue;
    TokenChooser& chooser = Find(chunk.sequence).chooser;
    const std::optional<SampleRow> row =
        step->is_ahead ? chooser.PlanChoiceAhead(limits_.vocab_size, max_extras, &batch.sample_extras)
                       : chooser.PlanChoice(limits_.vocab_size, max_extras, &batch.sample_extras);
    batch.sample_rows.back() = row.value_or(SampleRow());
    are_all_wanted = are_all_wanted && row.has_value();
  }
  return are_all_wanted;
}

std::vector<EngineLoop::ChunkResult> EngineLoop::Sample(OrderedStep* step) {
  CADRE_FAILPOINT("engine.sample");
  const auto vocab_size = static_cast<size_t>(limits_.vocab_size);
  const StepPlan& plan = step->plan;
  const std::vector<SampleRow>& sample_rows = step->batch.sample_rows;
  const SampledRows& sampled = step->result.sampled;
  std::span<float> rest(step->result.logits);
  std::vector<ChunkResult> results;
  results.reserve(plan.chunks.size());
  // One sequence that fails ends its request: what its siblings would say is not worth the time, which all pay. But
  // whatever else failed, what was computed with NaN must not be kept.
  absl::flat_hash_map<const RequestGroup*, absl::Status> failures;
  for (const SequenceFault& fault : step->result.faults) {
    if (options_.tolerate_missing_experts) break;
    failures.try_emplace(
        &Find(plan.chunks[static_cast<size_t>(fault.sequence)].sequence).response.group(),
        MakeRefusal(Refusal::kExpertUnavailable, fault.status.code(), std::string(fault.status.message())));
  }
  size_t row = 0;  // of logits
  for (const ScheduledChunk& chunk : plan.chunks) {
    const auto num_rows = static_cast<size_t>(chunk.num_logit_rows());
    row += num_rows;
    const bool is_sampled = num_rows > 0 && !sample_rows.empty() && sample_rows[row - 1].is_wanted != 0;
    const std::span<float> logits = rest.first(is_sampled ? 0 : num_rows * vocab_size);
    rest = rest.subspan(logits.size());
    if (!IsActive(chunk.sequence)) {  // it ended while the step was computed
      results.emplace_back();
      continue;
    }
    const RequestGroup* group = &Find(chunk.sequence).response.group();
    const auto failure = failures.find(group);
    if (failure != failures.end()) {
      results.emplace_back();
    } else {
      results.push_back(is_sampled ? AdoptChoice(chunk, sampled, row - 1) : SampleChunk(chunk, logits));
    }
    absl::Status status = results.back().status;
    if (failure != failures.end() || !status.ok()) {
      const auto check = [&] {
        return is_sampled ? CheckSampledToken(sampled.tokens[row - 1], limits_.vocab_size)
                          : ArgMax(logits.last(vocab_size)).status();
      };
      if (absl::Status nan = chunk.samples ? check() : status; IsNanError(nan)) status = nan;
    }
    if (!status.ok()) failures.insert_or_assign(group, status);
  }
  CADRE_CHECK(rest.empty());
  for (size_t i = 0; i < results.size(); ++i) {
    if (!IsActive(plan.chunks[i].sequence)) continue;
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

EngineLoop::ChunkResult EngineLoop::AdoptChoice(const ScheduledChunk& chunk, const SampledRows& sampled, size_t row) {
  Active& active = Find(chunk.sequence);
  constexpr size_t kAlternatives = kMaxAlternatives;
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
