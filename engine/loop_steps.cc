// The life of a step: planned, ordered, waited for, told. On a runner that can, the host is one step behind.
#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/failpoint.h"
#include "engine/batch_builder.h"
#include "engine/engine_loop.h"
#include "kernels/ops.h"

namespace cadre {
namespace {

// A step's failure as the caller may hear it: the codes that TokenSink promises, whatever the device said.
absl::Status AsForwardError(const absl::Status& status) {
  if (absl::IsUnavailable(status) || absl::IsInternal(status)) return status;
  return absl::InternalError(absl::StrCat("the model could not run the step: ", status.message()));
}

}  // namespace

bool EngineLoop::Step() {
  const absl::Time begin = parts_.clock->Now();
  const int64_t num_ended = notice_.snapshot.num_finished();
  Admit(begin);
  std::unique_ptr<OrderedStep> step;
  if (in_flight_.empty()) {
    MoveMemory();
    step = NewStep(begin);
    Plan(begin, step.get());
  }
  CloseBooks();
  SayFarewells();
  if (step != nullptr) {
    if (step->plan.empty()) {
      CADRE_CHECK(active_.empty());  // whoever waits or runs is always part of some step
      spare_steps_.push_back(std::move(step));
      return notice_.snapshot.num_finished() != num_ended;
    }
    parts_.runner->PlaceExperts();
    step->status = Order(step.get());
    in_flight_.push_back(std::move(step));
  }
  OrderAhead(begin);
  FinishStep();
  return true;
}

std::unique_ptr<OrderedStep> EngineLoop::NewStep(absl::Time begin) {
  std::unique_ptr<OrderedStep> step;
  if (spare_steps_.empty()) {
    step = std::make_unique<OrderedStep>();
  } else {
    step = std::move(spare_steps_.back());
    spare_steps_.pop_back();
  }
  step->plan = {};
  step->report = {};
  step->begin = begin;
  step->is_ahead = false;
  step->is_finished = false;
  step->status = absl::OkStatus();
  return step;
}

absl::Status EngineLoop::Order(OrderedStep* step) {
  CADRE_FAILPOINT_RETURN("engine.forward");
  std::vector<const Sequence*> sequences;
  sequences.reserve(step->plan.chunks.size());
  for (const ScheduledChunk& chunk : step->plan.chunks) sequences.push_back(&Find(chunk.sequence).sequence);
  BuildForwardBatch(step->plan, sequences, limits_.kv_block_size, &step->batch);
  LimitCapacity(step);
  ReplayRouting(step);
  DescribeSequences(step);
  step->batch.keep_choices = std::ranges::any_of(
      step->plan.chunks, [&](const ScheduledChunk& chunk) { return Find(chunk.sequence).record.has_value(); });
  if (!step->is_ahead) PlanChoices(step);  // else OrderAhead has done it
  step->batch.keep_expert_ids = WantsProfile();
  wants_profile_.reset();
  parts_.board->SetInForward(true);
  absl::Status status = parts_.runner->Order(step->batch, &step->result);
  parts_.board->SetInForward(false);
  return status;
}

bool EngineLoop::WantsProfile() {
  if (!wants_profile_) wants_profile_ = parts_.routing_profile->WantsStep();
  return *wants_profile_;
}

std::optional<std::vector<size_t>> EngineLoop::RowsThatGoOn(const OrderedStep& step) const {
  const bool has_only_decodes = std::ssize(step.plan.chunks) == step.plan.num_decodes;
  if (!has_only_decodes || step.batch.sample_rows.empty()) return std::nullopt;
  // What limits, or asks for, the choice of experts is told row by row, and must not see rows that nobody wants.
  if (step.batch.keep_choices || !step.batch.capacity.empty()) return std::nullopt;
  std::vector<size_t> rows;
  for (size_t row = 0; row < step.plan.chunks.size(); ++row) {
    const auto it = active_.find(step.plan.chunks[row].sequence);
    if (it == active_.end()) continue;
    const Active& active = it->second;
    // Behind its last token there is no place for another.
    if (active.sequence.num_generated_tokens() + 1 >= active.sequence.traits().max_tokens) continue;
    const bool is_on_device = step.batch.sample_rows[row].is_wanted != 0;
    if (!is_on_device || active.chooser.needs_last_token()) return std::nullopt;
    if (active.response.group().request().replay != nullptr) return std::nullopt;
    rows.push_back(row);
  }
  return rows;
}

void EngineLoop::OrderAhead(absl::Time now) {
  if (!may_order_ahead_ || pressure_.load() >= MemoryPressure::kEvict) return;
  const OrderedStep& front = *in_flight_.front();
  if (!front.status.ok()) return;
  const std::optional<std::vector<size_t>> rows = RowsThatGoOn(front);
  if (!rows || rows->empty() || WantsProfile()) return;
  const auto sequence_of = [&](size_t row) -> Sequence& { return Find(front.plan.chunks[row].sequence).sequence; };
  for (const size_t row : *rows) sequence_of(row).Assume(SampledAt(static_cast<int32_t>(row)));

  std::unique_ptr<OrderedStep> step = NewStep(now);
  step->is_ahead = true;
  std::optional<StepPlan> plan = scheduler_.PlanAhead();
  if (plan) step->plan = *std::move(plan);
  if (step->plan.empty() || !PlanChoices(step.get())) {
    for (const size_t row : *rows) sequence_of(row).Retract();
    spare_steps_.push_back(std::move(step));
    return;
  }
  scheduler_.CommitAhead(step->plan);
  ObserveSeats(step->plan);
  step->report.num_sequences = static_cast<int32_t>(step->plan.chunks.size());
  step->report.is_ahead = true;
  step->status = Order(step.get());
  in_flight_.push_back(std::move(step));
}

void EngineLoop::Await(OrderedStep* step) {
  if (std::exchange(step->is_finished, true) || !step->status.ok()) return;
  parts_.board->SetInForward(true);
  step->status = parts_.runner->Finish(step->batch, &step->result);
  parts_.board->SetInForward(false);
}

void EngineLoop::FinishStep() {
  Await(in_flight_.front().get());
  std::unique_ptr<OrderedStep> step = std::move(in_flight_.front());
  in_flight_.pop_front();
  ReleaseRetired(*step);
  if (step->status.ok()) {
    Publish(step.get(), Sample(step.get()));
  } else {
    FailStep(*step);
  }
  CloseStep(step.get());
  spare_steps_.push_back(std::move(step));
}

void EngineLoop::ReleaseRetired(const OrderedStep& step) {
  // A row that nobody wants may be wrong as any other. All rows of a step that was ordered ahead are sampled.
  bool is_sound = step.status.ok();
  for (size_t i = 0; is_sound && step.is_ahead && i < step.plan.chunks.size(); ++i) {
    is_sound = IsActive(step.plan.chunks[i].sequence) || step.result.sampled.tokens[i] != kSampledNan;
  }
  if (is_sound) return scheduler_.ReleaseRetired();  // who ended before this has no row in the step behind
  const std::vector<int32_t> blocks = scheduler_.DiscardRetired();
  if (!blocks.empty()) ScrubBlocks(blocks);
}

void EngineLoop::ScrubBlocks(std::span<const int32_t> blocks) {
  // Nobody writes any more where it is cleared.
  for (const std::unique_ptr<OrderedStep>& step : in_flight_) Await(step.get());
  parts_.runner->ScrubBlocks(blocks);
}

void EngineLoop::FailStep(const OrderedStep& step) {
  // What is behind has tokens of this one.
  for (std::unique_ptr<OrderedStep>& behind : in_flight_) {
    Await(behind.get());
    spare_steps_.push_back(std::move(behind));
  }
  in_flight_.clear();
  notice_.snapshot.is_lost = parts_.runner->is_lost();
  for (const ScheduledChunk& chunk : step.plan.chunks) {
    const auto it = active_.find(chunk.sequence);
    if (it != active_.end() && it->second.sequence.is_assumed()) it->second.sequence.Retract();
  }
  const absl::Status error = AsForwardError(step.status);
  for (const ScheduledChunk& chunk : step.plan.chunks) End(chunk.sequence, error);
}

void EngineLoop::Publish(OrderedStep* step, std::vector<ChunkResult> results) {
  CADRE_FAILPOINT("engine.publish");
  const StepPlan& plan = step->plan;
  CountStep(step);
  CountRouting(*step);
  RecordRouting(*step);
  for (const ScheduledChunk& chunk : plan.chunks) {
    if (!IsActive(chunk.sequence)) continue;
    Sequence& sequence = Find(chunk.sequence).sequence;
    if (step->is_ahead) scheduler_.ChargeAhead(sequence);
    sequence.is_assumed() ? sequence.Settle() : sequence.Advance();
  }
  const absl::Time now = parts_.clock->Now();
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    const SequenceId id = plan.chunks[i].sequence;
    if (!results[i].status.ok()) {
      End(id, results[i].status);
    } else if (results[i].token) {
      PublishToken(id, *std::move(results[i].token), now);
    }
  }
}

void EngineLoop::PublishToken(SequenceId id, ChosenToken token, absl::Time now) {
  const auto it = active_.find(id);
  if (it == active_.end()) return;  // another sequence of its request failed in this step
  Active& active = it->second;
  active.sequence.AppendToken(token.token_id);
  scheduler_.Confirm(&active.sequence);
  ++notice_.snapshot.generated_tokens;
  const bool is_complete = active.chooser.done();
  if (active.response.Append(std::move(token), is_complete, now) != FinishReason::kNone) End(id, absl::OkStatus());
}

void EngineLoop::CountStep(OrderedStep* step) {
  StepReport& report = step->report;
  for (size_t i = 0; i < step->plan.chunks.size(); ++i) {
    const ScheduledChunk& chunk = step->plan.chunks[i];
    if (!IsActive(chunk.sequence)) {
      report.discarded_tokens += chunk.count;
      continue;
    }
    const bool decodes = i < static_cast<size_t>(step->plan.num_decodes);
    (decodes ? report.decode_tokens : report.prefill_tokens) += chunk.count;
    report.recomputed_tokens += Find(chunk.sequence).sequence.CountRecomputed(chunk.count);
  }
  notice_.snapshot.prefill_tokens += report.prefill_tokens;
  notice_.snapshot.decode_tokens += report.decode_tokens;
  notice_.snapshot.recomputed_tokens += report.recomputed_tokens;
  notice_.snapshot.discarded_tokens += report.discarded_tokens;
}

void EngineLoop::CloseStep(OrderedStep* step) {
  const absl::Time end = parts_.clock->Now();
  // A step that was ordered ahead began when the one in front had ended.
  step->report.duration = end - std::max(step->begin, notice_.snapshot.last_step_end);
  meter_.ObserveStep(step->plan, step->report.duration);
  ObserveBudget(*step);
  notice_.snapshot.last_step_end = end;
  ++notice_.snapshot.steps;
  if (step->is_ahead) ++notice_.snapshot.steps_ahead;
  NoteExperts();
  CloseBooks();
  TellExpertFaults();
  if (parts_.observer != nullptr) parts_.observer->OnStep(step->report);
  SayFarewells();
}

}  // namespace cadre
