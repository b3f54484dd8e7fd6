#include "tests/support/scheduler_simulation.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace cadre {

namespace {

// FNV-1a over the tokens.
uint64_t HistoryOf(std::span<const int32_t> tokens) {
  uint64_t hash = 0xCBF29CE484222325;
  for (int32_t token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 0x100000001B3;
  return hash;
}

// What the key and value at `position` depend on: the tokens up to it, or, in a prompt with groups, up to the end of
// its group. Behind such a prompt, also on where it ended.
uint64_t HistoryOfRow(const Sequence& sequence, int32_t position) {
  const int32_t group = sequence.traits().prompt_group;
  const int32_t length = sequence.num_prompt_tokens();
  const bool is_grouped = group > 0 && position < length;
  const int32_t end = is_grouped ? std::min((position / group + 1) * group, length) : position + 1;
  const uint64_t history = HistoryOf(sequence.tokens().first(static_cast<size_t>(end)));
  if (group == 0) return history;
  constexpr uint64_t kSpread = 0x9E3779B97F4A7C15;
  return history +
         kSpread * (is_grouped ? static_cast<uint64_t>(end - position) : static_cast<uint64_t>(1000 + length));
}

}  // namespace

SchedulerSimulation::SchedulerSimulation(const SchedulerOptions& options, int32_t num_blocks, int32_t prompt_group)
    : prompt_group_(prompt_group),
      pool_(num_blocks),
      scheduler_(options, &pool_),
      slots_(static_cast<size_t>(num_blocks) * static_cast<size_t>(options.block_size)) {}

std::vector<int32_t> SchedulerSimulation::MakePrompt(const SimulatedArrival& arrival) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < arrival.num_prompt_tokens; ++i) {
    const bool is_shared = arrival.family > 0 && i < arrival.num_family_tokens;
    prompt.push_back(is_shared ? arrival.family * 100 + i % 7 : static_cast<int32_t>(1000 + num_arrived_));
  }
  return prompt;
}

absl::Status SchedulerSimulation::Arrive(const SimulatedArrival& arrival) {
  const std::vector<int32_t> prompt = MakePrompt(arrival);
  num_arrived_ += arrival.num_sequences;
  if (!scheduler_.CheckFits(arrival.num_prompt_tokens, arrival.max_tokens).ok()) {
    num_refused_ += arrival.num_sequences;
    return Audit();
  }
  SequenceTraits traits{.max_tokens = arrival.max_tokens, .priority = arrival.priority, .tenant = arrival.tenant};
  traits.prompt_group = prompt_group_;
  if (arrival.is_cached) traits.cache_domain = "of " + arrival.tenant;
  for (int32_t i = 0; i < arrival.num_sequences; ++i) {
    const SequenceId id = next_id_++;
    traits.needs_prompt_logits = arrival.needs_prompt_logits && i == 0 && prompt_group_ == 0;
    if (i > 0) traits.leader = id - i;
    Live live{Sequence(id, prompt, traits), arrival.num_generated, now_ + arrival.ttl};
    scheduler_.Add(&live_.try_emplace(id, std::move(live)).first->second.sequence);
  }
  return Audit();
}

SequenceId SchedulerSimulation::InFlight(uint32_t index) const {
  return std::next(live_.begin(), static_cast<std::ptrdiff_t>(index % live_.size()))->first;
}

absl::Status SchedulerSimulation::Cancel(uint32_t index) {
  if (!live_.empty()) End(InFlight(index));
  return Audit();
}

absl::Status SchedulerSimulation::Fail(uint32_t index) {
  if (!live_.empty()) End(InFlight(index), false);
  return Audit();
}

absl::Status SchedulerSimulation::StopSoon(uint32_t index) {
  if (!live_.empty()) {
    Live& live = live_.at(InFlight(index));
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

absl::Status SchedulerSimulation::Resize(uint32_t count) {
  const auto least = static_cast<uint32_t>(scheduler_.options().max_sequence_blocks);
  const auto most = static_cast<uint32_t>(pool_.num_total());
  const int32_t before = pool_.num_usable();
  const auto wanted = static_cast<int32_t>(least + count % (most - least + 1));
  if (scheduler_.SetUsableBlocks(wanted)) {
    ++num_resizes_;
    is_draining_ = wanted < before;
  } else if (wanted >= before || pool_.num_usable() != before) {
    return absl::InternalError(absl::StrCat("a pool of ", before, " blocks refused ", wanted));
  }
  LoseWithdrawn();
  return Audit();
}

void SchedulerSimulation::LoseWithdrawn() {
  const auto block_size = static_cast<size_t>(scheduler_.options().block_size);
  for (int32_t block = pool_.num_usable(); block < pool_.num_total(); ++block) {
    if (pool_.ref_count(block) > 0) continue;
    std::fill_n(slots_.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(block) * block_size), block_size, 1);
  }
  if (is_draining_ && pool_.is_drained()) {
    ++num_drained_;
    is_draining_ = false;
  }
}

absl::Status SchedulerSimulation::Step() {
  LoseWithdrawn();
  const StepPlan plan = Plan();
  if (plan != Plan()) return absl::InternalError("planning twice gave two plans");
  CADRE_RETURN_IF_ERROR(Audit());  // planning changes nothing
  CADRE_RETURN_IF_ERROR(CheckPlan(plan));
  scheduler_.Commit(plan);
  CADRE_RETURN_IF_ERROR(CheckDecodesRun(plan));
  CADRE_RETURN_IF_ERROR(Audit());
  ++num_steps_;
  num_preemptions_ += static_cast<int64_t>(plan.preempted.size());
  for (const ScheduledChunk& chunk : plan.chunks) CADRE_RETURN_IF_ERROR(WriteRows(chunk));
  for (const ScheduledChunk& chunk : plan.chunks) {
    CADRE_RETURN_IF_ERROR(ReadRows(live_.at(chunk.sequence).sequence, chunk.begin + chunk.count));
  }
  for (const ScheduledChunk& chunk : plan.chunks) Advance(chunk);
  return Audit();
}

void SchedulerSimulation::Advance(const ScheduledChunk& chunk) {
  Live& live = live_.at(chunk.sequence);
  const int32_t num_recomputed = live.sequence.CountRecomputed(chunk.count);
  num_rows_ += chunk.count;
  num_recomputed_ += num_recomputed;
  rows_of_[live.sequence.traits().tenant] += chunk.count - num_recomputed;
  live.sequence.Advance();
  if (!chunk.samples) return;
  live.sequence.AppendToken(static_cast<int32_t>(HistoryOf(live.sequence.tokens()) % 1000));
  scheduler_.Confirm(&live.sequence);
  if (live.sequence.num_generated_tokens() >= live.num_generated) End(chunk.sequence);
}

absl::Status SchedulerSimulation::Drain() {
  int64_t bound = 0;
  for (const auto& [id, live] : live_) bound += live.sequence.num_prompt_tokens() + live.num_generated;
  bound *= 1 + Scheduler::kMaxPreemptions;
  for (int64_t step = 0; !live_.empty(); ++step) {
    if (step > bound) return absl::InternalError(absl::StrCat(live_.size(), " in flight after ", bound, " steps"));
    CADRE_RETURN_IF_ERROR(Step());
  }
  if (pool_.num_in_use() != 0) return absl::InternalError(absl::StrCat(pool_.num_in_use(), " blocks in use at idle"));
  if (num_rows_ - num_recomputed_ + num_found_ != sum_of_peaks_) {
    return absl::InternalError(absl::StrCat(num_rows_, " rows computed, ", num_recomputed_, " of them again, ",
                                            num_found_, " found, but ", sum_of_peaks_, " rows existed"));
  }
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::Audit() const {
  CADRE_RETURN_IF_ERROR(scheduler_.Audit());
  if (scheduler_.num_waiting() + scheduler_.num_running() != static_cast<int32_t>(live_.size())) {
    return absl::InternalError(absl::StrCat(live_.size(), " sequences in flight, the scheduler knows ",
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
  int64_t num_logit_rows = 0;
  int64_t num_prefill_rows = 0;
  int32_t index = 0;
  for (const ScheduledChunk& chunk : plan.chunks) {
    const Sequence& sequence = live_.at(chunk.sequence).sequence;
    num_rows += chunk.count;
    num_logit_rows += chunk.num_logit_rows();
    if (!named.insert(chunk.sequence).second) return absl::InternalError("a sequence is named twice");
    const bool decodes = sequence.state() == SequenceState::kDecode;
    if (decodes != (index++ < plan.num_decodes)) return absl::InternalError("decodes do not come first");
    if (!decodes) num_prefill_rows += chunk.count;
    if (chunk.samples != (chunk.begin + chunk.count == sequence.num_tokens())) {
      return absl::InternalError("a chunk samples at the wrong place");
    }
    const int32_t end = chunk.begin + chunk.count;
    const int32_t length = sequence.num_prompt_tokens();
    if (prompt_group_ > 0 &&
        ((chunk.begin < length && chunk.begin % prompt_group_ != 0) || (end < length && end % prompt_group_ != 0))) {
      return absl::InternalError("a chunk has a part of a group");
    }
    if (chunk.all_logits && chunk.begin > sequence.num_computed_tokens()) {
      return absl::InternalError("a prompt whose logits are wanted skips rows");
    }
  }
  if (num_rows > options.max_num_batched_tokens || index > options.max_num_seqs ||
      num_logit_rows > options.max_logit_rows) {
    return absl::InternalError(
        absl::StrCat("step of ", num_rows, " rows, ", index, " sequences and ", num_logit_rows, " rows of logits"));
  }
  if (plan.num_decodes > 0 && num_prefill_rows > options.max_prefill_chunk) {
    return absl::InternalError(absl::StrCat(num_prefill_rows, " prompt rows beside decodes"));
  }
  const auto runs = [&](SequenceId id) { return std::ranges::count(plan.chunks, id, &ScheduledChunk::sequence) == 1; };
  const SequenceId senior = scheduler_.most_senior();
  if (!live_.empty() && (plan.empty() || (senior != kNoSequence && !runs(senior)))) {
    return absl::InternalError(absl::StrCat("the most senior sequence, ", senior, ", does not advance"));
  }
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::CheckDecodesRun(const StepPlan& plan) const {
  if (pool_.num_available() == 0) return absl::OkStatus();
  for (const auto& [id, live] : live_) {
    if (live.sequence.state() != SequenceState::kDecode) continue;
    if (std::ranges::count(plan.chunks, id, &ScheduledChunk::sequence) == 0) {
      return absl::InternalError(
          absl::StrCat("decode ", id, " is passed over with ", pool_.num_available(), " available blocks"));
    }
  }
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::WriteRows(const ScheduledChunk& chunk) {
  const Sequence& sequence = live_.at(chunk.sequence).sequence;
  const int32_t block_size = scheduler_.options().block_size;
  for (int32_t position = chunk.begin; position < chunk.begin + chunk.count; ++position) {
    const int32_t block = sequence.block_table()[static_cast<size_t>(position / block_size)];
    if (pool_.ref_count(block) != 1) {
      return absl::InternalError(absl::StrCat("sequence ", chunk.sequence, " writes block ", block, ", which has ",
                                              pool_.ref_count(block), " holders"));
    }
    slots_[static_cast<size_t>(block * block_size + position % block_size)] = HistoryOfRow(sequence, position);
  }
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::ReadRows(const Sequence& sequence, int32_t count) const {
  const int32_t block_size = scheduler_.options().block_size;
  for (int32_t position = 0; position < count; ++position) {
    const int32_t block = sequence.block_table()[static_cast<size_t>(position / block_size)];
    const uint64_t history = slots_[static_cast<size_t>(block * block_size + position % block_size)];
    if (history != HistoryOfRow(sequence, position)) {
      return absl::InternalError(absl::StrCat("sequence ", sequence.id(), " finds another history at position ",
                                              position, ", in block ", block));
    }
  }
  return absl::OkStatus();
}

int64_t SchedulerSimulation::rows_of(const std::string& tenant) const {
  const auto it = rows_of_.find(tenant);
  return it == rows_of_.end() ? 0 : it->second;
}

int32_t SchedulerSimulation::num_in_flight(const std::string& tenant) const {
  return static_cast<int32_t>(
      std::ranges::count_if(live_, [&](const auto& entry) { return entry.second.sequence.traits().tenant == tenant; }));
}

void SchedulerSimulation::End(SequenceId id, bool is_sound) {
  Sequence* sequence = &live_.at(id).sequence;
  num_found_ += sequence->num_found_tokens();
  sum_of_peaks_ += sequence->peak_computed_tokens();
  most_preemptions_ = std::max(most_preemptions_, sequence->num_preemptions());
  if (is_sound) {
    scheduler_.Finish(sequence);
  } else {
    const auto block_size = static_cast<size_t>(scheduler_.options().block_size);
    for (int32_t block : scheduler_.Discard(sequence)) {
      std::fill_n(slots_.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(block) * block_size), block_size, 0);
    }
  }
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
  const int32_t blocks = next();
  options.block_size = 1 + blocks % 8;
  options.prefix_cache.key_bits = blocks / 8 % 2 == 0 ? 64 : 8;
  options.prefix_cache.keeps_idle = blocks / 16 % 4 != 1;
  const int32_t rows = next();
  options.max_num_batched_tokens = 1 + rows % 64;
  const int32_t sequences = next();
  options.max_num_seqs = 1 + sequences % 16;
  options.max_prefill_chunk = sequences / 16;
  options.max_model_len = 160;
  options.max_sequence_blocks = blocks / 128 == 0 ? 0 : (num_blocks + 1) / 2;
  options.fair_queue = {.priority_tokens = 64, .max_idle_tenants = 2};
  // So that the first prompt in line can always go on.
  int32_t prompt_group = std::min(rows / 64 * 4, options.max_num_batched_tokens - options.max_num_seqs);
  if (options.max_prefill_chunk > 0) prompt_group = std::min(prompt_group, options.max_prefill_chunk);
  SchedulerSimulation simulation(options, num_blocks, std::max(prompt_group, 0));
  constexpr int kMaxOperations = 4000;
  for (int i = 0; i < kMaxOperations && !bytes.empty(); ++i) {
    absl::Status status;
    const int32_t operation = next();
    const int32_t variant = operation / 8;  // 0: the plain one
    switch (operation % 8) {
      case 0:
      case 1: {
        SimulatedArrival arrival;
        arrival.num_prompt_tokens = 1 + next() % 128;
        arrival.max_tokens = 1 + next() % 48;
        arrival.num_generated = 1 + next() % arrival.max_tokens;
        arrival.ttl = 1 + next();
        arrival.family = variant % 4;
        arrival.num_sequences = 1 + variant / 4 % 3;
        if (variant / 16 % 2 == 1) {
          const int32_t traits = next();
          arrival.tenant = std::string(1, static_cast<char>('a' + traits % 4));
          arrival.priority = traits / 4 % 3 - 1;
          arrival.is_cached = traits / 16 % 4 != 0;
          arrival.needs_prompt_logits = traits / 64 == 0;
        }
        status = simulation.Arrive(arrival);
        break;
      }
      case 2:
        status = variant % 4 == 3 ? simulation.Fail(static_cast<uint32_t>(next()))
                                  : simulation.Cancel(static_cast<uint32_t>(next()));
        break;
      case 3:
        status = simulation.StopSoon(static_cast<uint32_t>(next()));
        break;
      case 4:
        status = variant % 4 == 3 ? simulation.Resize(static_cast<uint32_t>(next())) : simulation.Expire(next() % 16);
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
