#include "tests/support/scheduler_simulation.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace cadre {

SchedulerSimulation::SchedulerSimulation(const SchedulerOptions& options, int32_t num_blocks)
    : pool_(num_blocks), scheduler_(options, &pool_) {}

absl::Status SchedulerSimulation::Arrive(int32_t num_prompt_tokens, int32_t max_tokens, int32_t num_generated,
                                         int64_t ttl) {
  ++num_arrived_;
  if (!scheduler_.CheckFits(num_prompt_tokens, max_tokens).ok()) {
    ++num_refused_;
    return Audit();
  }
  const SequenceId id = next_id_++;
  Live live{Sequence(id, std::vector<int32_t>(static_cast<size_t>(num_prompt_tokens), 7)), num_generated, now_ + ttl};
  scheduler_.Add(&live_.try_emplace(id, std::move(live)).first->second.sequence);
  return Audit();
}

absl::Status SchedulerSimulation::Cancel(uint32_t index) {
  if (!live_.empty()) End(std::next(live_.begin(), static_cast<std::ptrdiff_t>(index % live_.size()))->first);
  return Audit();
}

absl::Status SchedulerSimulation::StopSoon(uint32_t index) {
  if (!live_.empty()) {
    Live& live = std::next(live_.begin(), static_cast<std::ptrdiff_t>(index % live_.size()))->second;
    live.num_generated = live.sequence.num_generated_tokens() + 1;
  }
  return Audit();
}

absl::Status SchedulerSimulation::Expire(int64_t elapsed) {
  now_ += elapsed;
  for (auto it = live_.begin(); it != live_.end();) {
    const auto& [id, live] = *it++;
    if (live.expiry <= now_) End(id);
  }
  return Audit();
}

absl::Status SchedulerSimulation::Step() {
  const StepPlan plan = scheduler_.Plan();
  if (plan != scheduler_.Plan()) return absl::InternalError("planning twice gave two plans");
  CADRE_RETURN_IF_ERROR(Audit());  // planning changes nothing
  CADRE_RETURN_IF_ERROR(CheckPlan(plan));
  scheduler_.Commit(plan);
  CADRE_RETURN_IF_ERROR(CheckDecodesRun(plan));
  CADRE_RETURN_IF_ERROR(Audit());
  num_preemptions_ += static_cast<int64_t>(plan.preempted.size());
  for (const ScheduledChunk& chunk : plan.chunks) {
    Live& live = live_.at(chunk.sequence);
    num_rows_ += chunk.count;
    num_recomputed_ += live.sequence.CountRecomputed(chunk.count);
    live.sequence.Advance();
    if (!chunk.samples) continue;
    live.sequence.AppendToken(7);
    if (live.sequence.num_generated_tokens() >= live.num_generated) End(chunk.sequence);
  }
  return Audit();
}

absl::Status SchedulerSimulation::Drain() {
  int64_t bound = 0;
  for (const auto& [id, live] : live_) bound += live.sequence.num_prompt_tokens() + live.num_generated;
  for (int64_t step = 0; !live_.empty(); ++step) {
    if (step > bound) return absl::InternalError(absl::StrCat(live_.size(), " in flight after ", bound, " steps"));
    CADRE_RETURN_IF_ERROR(Step());
  }
  if (pool_.num_in_use() != 0) return absl::InternalError(absl::StrCat(pool_.num_in_use(), " blocks in use at idle"));
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::Audit() const {
  CADRE_RETURN_IF_ERROR(scheduler_.Audit());
  if (scheduler_.num_waiting() + scheduler_.num_running() != static_cast<int32_t>(live_.size())) {
    return absl::InternalError(absl::StrCat(live_.size(), " requests in flight, the scheduler knows ",
                                            scheduler_.num_waiting(), " + ", scheduler_.num_running()));
  }
  if (num_arrived_ != num_refused_ + num_ended_ + static_cast<int64_t>(live_.size())) {
    return absl::InternalError("arrived != refused + ended + in flight");
  }
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::CheckPlan(const StepPlan& plan) const {
  const SchedulerOptions& options = scheduler_.options();
  std::set<SequenceId> named(plan.preempted.begin(), plan.preempted.end());
  int64_t num_rows = 0;
  int32_t index = 0;
  for (const ScheduledChunk& chunk : plan.chunks) {
    const Sequence& sequence = live_.at(chunk.sequence).sequence;
    num_rows += chunk.count;
    if (!named.insert(chunk.sequence).second) return absl::InternalError("a sequence is named twice");
    const bool decodes = sequence.state() == SequenceState::kDecode;
    if (decodes != (index++ < plan.num_decodes)) return absl::InternalError("decodes do not come first");
    if (chunk.samples != (chunk.begin + chunk.count == sequence.num_tokens())) {
      return absl::InternalError("a chunk samples at the wrong place");
    }
  }
  if (num_rows > options.max_num_batched_tokens || index > options.max_num_seqs) {
    return absl::InternalError(absl::StrCat("step of ", num_rows, " rows and ", index, " sequences"));
  }
  const auto runs = [&](SequenceId id) { return std::ranges::count(plan.chunks, id, &ScheduledChunk::sequence) == 1; };
  if (!live_.empty() && !runs(live_.begin()->first)) {
    return absl::InternalError(absl::StrCat("the earliest request, ", live_.begin()->first, ", does not advance"));
  }
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::CheckDecodesRun(const StepPlan& plan) const {
  if (pool_.num_free() == 0) return absl::OkStatus();
  for (const auto& [id, live] : live_) {
    if (live.sequence.state() != SequenceState::kDecode) continue;
    if (std::ranges::count(plan.chunks, id, &ScheduledChunk::sequence) == 0) {
      return absl::InternalError(
          absl::StrCat("decode ", id, " is passed over with ", pool_.num_free(), " free blocks"));
    }
  }
  return absl::OkStatus();
}

void SchedulerSimulation::End(SequenceId id) {
  scheduler_.Finish(&live_.at(id).sequence);
  live_.erase(id);
  ++num_ended_;
}

absl::Status RunSchedulerBytes(std::span<const uint8_t> bytes) {
  const auto next = [&bytes]() -> int32_t {
    if (bytes.empty()) return 0;
    const uint8_t value = bytes.front();
    bytes = bytes.subspan(1);
    return value;
  };
  SchedulerOptions options;
  const int32_t num_blocks = 1 + next() % 32;
  options.block_size = 1 + next() % 8;
  options.max_num_batched_tokens = 1 + next() % 64;
  options.max_num_seqs = 1 + next() % 16;
  options.max_model_len = 160;
  SchedulerSimulation simulation(options, num_blocks);
  constexpr int kMaxOperations = 4000;
  for (int i = 0; i < kMaxOperations && !bytes.empty(); ++i) {
    absl::Status status;
    switch (next() % 8) {
      case 0:
      case 1: {
        const int32_t num_prompt_tokens = 1 + next() % 128;
        const int32_t max_tokens = 1 + next() % 48;
        const int32_t num_generated = 1 + next() % max_tokens;
        status = simulation.Arrive(num_prompt_tokens, max_tokens, num_generated, 1 + next());
        break;
      }
      case 2:
        status = simulation.Cancel(static_cast<uint32_t>(next()));
        break;
      case 3:
        status = simulation.StopSoon(static_cast<uint32_t>(next()));
        break;
      case 4:
        status = simulation.Expire(next() % 16);
        break;
      default:
        status = simulation.Step();
        break;
    }
    if (!status.ok()) return status;
  }
  return simulation.Drain();
}

}  // namespace cadre
