#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/failpoint.h"
#include "engine/request/request.h"

namespace cadre {
namespace {

SchedulerOptions Checked(SchedulerOptions options, const BlockPool& pool) {
  CADRE_CHECK_GE(options.max_num_seqs, 1);
  CADRE_CHECK_GE(options.max_num_batched_tokens, 1);
  CADRE_CHECK_GE(options.block_size, 1);
  CADRE_CHECK_GE(options.max_model_len, 1);
  CADRE_CHECK_GE(options.max_prefill_chunk, 0);
  // With at least one row for each running sequence, decodes can never use up the rows of an earlier prefill.
  options.max_num_seqs = std::min(options.max_num_seqs, options.max_num_batched_tokens);
  options.max_logit_rows = std::max(options.max_logit_rows, options.max_num_seqs);
  if (options.max_prefill_chunk == 0) options.max_prefill_chunk = options.max_num_batched_tokens;
  options.prefix_cache.block_size = options.block_size;
  CADRE_CHECK_GE(options.max_sequence_blocks, 0);
  CADRE_CHECK_LE(options.max_sequence_blocks, pool.num_total());
  if (options.max_sequence_blocks == 0) options.max_sequence_blocks = pool.num_total();
  return options;
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, BlockPool* pool)
    : options_(Checked(options, *pool)),
      pool_(pool),
      cache_(options_.prefix_cache, pool),
      fair_queue_(options_.fair_queue) {}

int32_t Scheduler::BlocksFor(int64_t num_tokens) const {
  return static_cast<int32_t>((num_tokens + options_.block_size - 1) / options_.block_size);
}

int32_t Scheduler::MostBlocks(const Sequence& sequence) const {
  const int32_t max_tokens = sequence.traits().max_tokens;
  const int64_t most =
      max_tokens > 0 ? int64_t{sequence.num_prompt_tokens()} + max_tokens - 1 : int64_t{options_.max_model_len};
  return std::min(BlocksFor(std::max<int64_t>(most, sequence.num_tokens())), options_.max_sequence_blocks);
}

std::vector<int32_t> Scheduler::FindPrefix(const Entry& entry) const {
  // A row that is not computed has no logits.
  if (entry.sequence->wants_all_logits()) return {};
  std::vector<int32_t> found = cache_.Find(*entry.sequence, entry.chain);
  const SequenceTraits& traits = entry.sequence->traits();
  const int64_t group = std::lcm(int64_t{traits.group_tokens}, int64_t{std::max(traits.prompt_group, 1)});
  const int64_t shareable = entry.sequence->num_shareable_tokens();
  const auto num_found = [&] { return static_cast<int64_t>(found.size()) * options_.block_size; };
  while (num_found() > shareable || num_found() % group != 0) found.pop_back();
  return found;
}

Scheduler::Entry& Scheduler::Find(SequenceId id) {
  const auto it = entries_.find(id);
  CADRE_CHECK(it != entries_.end());
  return it->second;
}

absl::Status Scheduler::CheckFits(int64_t num_prompt_tokens, int64_t max_tokens) const {
  const std::string request = absl::StrCat("prompt has ", num_prompt_tokens, " tokens and max_tokens is ", max_tokens);
  // Compared by subtraction: the sum of two numbers from outside may overflow.
  if (num_prompt_tokens > options_.max_model_len || max_tokens > options_.max_model_len - num_prompt_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(request, ", together more than the model's limit of ", options_.max_model_len, " tokens"));
  }
  const int64_t num_rows = num_prompt_tokens + max_tokens - 1;
  const int64_t capacity = static_cast<int64_t>(options_.max_sequence_blocks) * options_.block_size;
  if (num_rows > capacity) {
    return absl::InvalidArgumentError(
        absl::StrCat(request, ", together ", num_rows, " tokens to keep, but the KV cache holds ", capacity));
  }
  return absl::OkStatus();
}

void Scheduler::Add(Sequence* sequence) {
  CADRE_CHECK(sequence->state() == SequenceState::kWaiting);
  CADRE_CHECK_GT(sequence->id(), last_id_);
  last_id_ = sequence->id();
  const SequenceTraits& traits = sequence->traits();
  Entry& entry = entries_[sequence->id()];
  entry.sequence = sequence;
  entry.order = fair_queue_.Arrive(*sequence);
  entry.seniority.negative_priority = -int64_t{traits.priority};
  entry.chain = cache_.MakeChain(traits.cache_domain);
  cache_.ExtendChain(sequence->tokens(), &entry.chain);
  const auto leader = entries_.find(traits.leader);
  if (leader != entries_.end() && leader->second.sequence->num_generated_tokens() == 0) {
    entry.place = Place::kParked;
    parked_[traits.leader].push_back(&entry);
  } else {
    fair_queue_.Push(sequence, entry.order);
  }
}

void Scheduler::ReleaseSiblings(SequenceId leader) {
  if (parked_.empty()) return;
  auto siblings = parked_.extract(leader);
  if (siblings.empty()) return;
  for (Entry* entry : siblings.mapped()) {
    entry->place = Place::kNew;
    fair_queue_.Push(entry->sequence, entry->order);
  }
}

void Scheduler::Detach(Entry* entry) {
  switch (entry->place) {
    case Place::kParked: {
      const auto group = parked_.find(entry->sequence->traits().leader);
      std::erase(group->second, entry);
      if (group->second.empty()) parked_.erase(group);
      break;
    }
    case Place::kNew:
      fair_queue_.Remove(*entry->sequence, entry->order);
      break;
    case Place::kPreempted:
      std::erase(preempted_, entry);
      break;
    case Place::kRunning:
      std::erase(running_, entry);
      break;
  }
}

std::vector<int32_t> Scheduler::Remove(Sequence* sequence) {
  Entry& entry = Find(sequence->id());
  Detach(&entry);
  ReleaseSiblings(sequence->id());
  fair_queue_.Leave(*sequence);
  entries_.erase(sequence->id());
  return sequence->Finish();
}

void Scheduler::Finish(Sequence* sequence) { cache_.Release(Remove(sequence)); }

void Scheduler::Retire(Sequence* sequence) { retired_.push_back(Remove(sequence)); }

void Scheduler::ReleaseRetired() {
  for (const std::vector<int32_t>& blocks : retired_) cache_.Release(blocks);
  retired_.clear();
}

std::vector<int32_t> Scheduler::DiscardRetired() {
  std::vector<int32_t> forgotten;
  for (const std::vector<int32_t>& blocks : std::exchange(retired_, {})) {
    cache_.Release(blocks);
    if (blocks.empty()) continue;
    const std::vector<int32_t> more = cache_.Forget(blocks);
    forgotten.insert(forgotten.end(), more.begin(), more.end());
  }
  return forgotten;
}

std::vector<int32_t> Scheduler::Discard(Sequence* sequence) {
  const std::vector<int32_t> blocks = sequence->block_table();
  Finish(sequence);
  return blocks.empty() ? blocks : cache_.Forget(blocks);
}

bool Scheduler::SetUsableBlocks(int32_t count) {
  CADRE_CHECK_GE(count, options_.max_sequence_blocks);
  CADRE_CHECK_LE(count, pool_->num_total());
  const bool has_promise = std::ranges::any_of(
      running_, [](const Entry* entry) { return entry->sequence->num_preemptions() >= kMaxPreemptions; });
  if (has_promise && count < pool_->num_usable()) return false;
  cache_.SetUsableBlocks(count);
  return true;
}

int32_t Scheduler::CountMissingBlocks(int32_t count) const {
  int32_t wanted = 0;
  int32_t left = std::min(count, kMostCounted);
  const auto add = [&](const Sequence& sequence) {
    wanted += BlocksFor(sequence.num_tokens()) + 1;
    --left;
  };
  for (const Entry* entry : preempted_) {
    if (left > 0) add(*entry->sequence);
  }
  FairQueue::Cursor cursor(&fair_queue_);
  while (left > 0) {
    const Sequence* next = cursor.Next();
    if (next == nullptr) break;
    add(*next);
    cursor.Take(next->num_tokens());
  }
  return std::max(wanted - pool_->num_available(), 0);
}

void Scheduler::Confirm(Sequence* sequence) {
  Entry& entry = Find(sequence->id());
  cache_.ExtendChain(sequence->tokens(), &entry.chain);
  cache_.Enter(sequence, &entry.chain);
  ReleaseSiblings(sequence->id());
}

void Scheduler::Commit(const StepPlan& plan) {
  for (SequenceId id : plan.preempted) Preempt(id);
  // All found blocks are held before any block is evicted.
  for (const ScheduledChunk& chunk : plan.chunks) {
    if (Find(chunk.sequence).place != Place::kRunning) Start(chunk);
  }
  for (const ScheduledChunk& chunk : plan.chunks) {
    Charge(*Find(chunk.sequence).sequence, chunk.count);
    Run(chunk);
  }
}

void Scheduler::CommitAhead(const StepPlan& plan) {
  for (const ScheduledChunk& chunk : plan.chunks) Run(chunk);
}

void Scheduler::ChargeAhead(const Sequence& sequence) { Charge(sequence, 1); }

void Scheduler::Preempt(SequenceId id) {
  CADRE_FAILPOINT("scheduler.preempt");
  Entry* entry = running_.back();
  CADRE_CHECK_EQ(entry->sequence->id(), id);
  running_.pop_back();
  cache_.Release(entry->sequence->Preempt());
  entry->chain.num_entered = 0;
  entry->place = Place::kPreempted;
  if (entry->sequence->num_preemptions() == kMaxPreemptions) entry->seniority.guard = next_guard_++;
  InsertBySeniority(entry, &preempted_);
}

void Scheduler::Start(const ScheduledChunk& chunk) {
  Entry& entry = Find(chunk.sequence);
  if (entry.place == Place::kNew) {
    fair_queue_.Start(*entry.sequence, entry.order);
  } else {
    Detach(&entry);
  }
  const std::vector<int32_t> found = FindPrefix(entry);
  CADRE_CHECK_EQ(static_cast<int32_t>(found.size()) * options_.block_size, chunk.begin);
  cache_.Hold(found);
  entry.sequence->Resume(chunk.begin, found);
  entry.chain.num_entered = static_cast<int32_t>(found.size());
  if (!entry.sequence->started()) entry.seniority.rank = next_rank_++;
  entry.place = Place::kRunning;
  InsertBySeniority(&entry, &running_);
}

void Scheduler::Run(const ScheduledChunk& chunk) {
  Sequence* sequence = Find(chunk.sequence).sequence;
  CADRE_CHECK_EQ(sequence->num_computed_tokens(), chunk.begin);
  const int32_t missing = BlocksFor(chunk.begin + chunk.count) - static_cast<int32_t>(sequence->block_table().size());
  sequence->Schedule(chunk.count, cache_.Allocate(missing));
}

void Scheduler::Charge(const Sequence& sequence, int32_t num_rows) {
  const int64_t weight = sequence.state() == SequenceState::kDecode ? kGeneratedTokenService : 1;
  fair_queue_.Charge(sequence, weight * (num_rows - sequence.CountRecomputed(num_rows)));
}

void Scheduler::InsertBySeniority(Entry* entry, std::vector<Entry*>* list) {
  const auto place = std::ranges::upper_bound(*list, entry->seniority, {}, &Entry::seniority);
  list->insert(place, entry);
}

}  // namespace cadre
