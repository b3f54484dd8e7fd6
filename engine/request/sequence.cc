#include "engine/request/sequence.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "engine/base/check.h"

namespace cadre {
namespace {

bool IsValidTransition(SequenceState from, SequenceState to) {
  switch (from) {
    case SequenceState::kWaiting:
      return to == SequenceState::kPrefill || to == SequenceState::kFinished;
    case SequenceState::kPrefill:
      return to == SequenceState::kDecode || to == SequenceState::kWaiting || to == SequenceState::kFinished;
    case SequenceState::kDecode:
      return to == SequenceState::kWaiting || to == SequenceState::kFinished;
    case SequenceState::kFinished:
      return false;
  }
  return false;
}

}  // namespace

std::string_view SequenceStateName(SequenceState state) {
  switch (state) {
    case SequenceState::kWaiting:
      return "waiting";
    case SequenceState::kPrefill:
      return "prefill";
    case SequenceState::kDecode:
      return "decode";
    case SequenceState::kFinished:
      return "finished";
  }
  return "unknown";
}

Sequence::Sequence(SequenceId id, std::vector<int32_t> prompt, SequenceTraits traits)
    : id_(id),
      traits_(std::move(traits)),
      tokens_(std::move(prompt)),
      num_prompt_tokens_(static_cast<int32_t>(tokens_.size())) {
  CADRE_CHECK(!tokens_.empty());
}

int32_t Sequence::num_shareable_tokens() const {
  const int32_t group = traits_.prompt_group;
  // A prompt that goes on has another last group; and what was generated here may be a prompt there.
  return group == 0 ? num_tokens() : num_prompt_tokens_ / group * group;
}

int32_t Sequence::tokens_computed_together(int32_t block_size) const {
  return traits_.prompt_group == 0 ? block_size : std::lcm(block_size, traits_.prompt_group);
}

int32_t Sequence::WholeGroups(int32_t begin, int32_t count) const {
  const int32_t end = begin + count;
  if (traits_.prompt_group == 0 || end >= num_prompt_tokens_) return count;
  return std::max(0, end / traits_.prompt_group * traits_.prompt_group - begin);
}

int32_t Sequence::CountRecomputed(int32_t count) const {
  return std::clamp(peak_computed_tokens_ - num_computed_tokens_, 0, count);
}

void Sequence::Resume(int32_t count, std::span<const int32_t> blocks) {
  CADRE_CHECK(state_ == SequenceState::kWaiting);
  CADRE_CHECK(block_table_.empty());
  CADRE_CHECK_LT(count, num_tokens());
  num_computed_tokens_ = count;
  num_found_tokens_ += std::max(count - peak_computed_tokens_, 0);
  peak_computed_tokens_ = std::max(peak_computed_tokens_, count);
  block_table_.assign(blocks.begin(), blocks.end());
}

void Sequence::ReplaceBlock(int32_t index, int32_t block) {
  CADRE_CHECK_LT(static_cast<size_t>(index), block_table_.size());
  block_table_[static_cast<size_t>(index)] = block;
}

void Sequence::Schedule(int32_t count, std::span<const int32_t> new_blocks) {
  CADRE_CHECK_EQ(num_scheduled_tokens_, 0);
  CADRE_CHECK_GT(count, 0);
  CADRE_CHECK_LE(count, num_uncomputed_tokens());
  if (state_ == SequenceState::kWaiting) Transition(SequenceState::kPrefill);
  started_ = true;
  num_scheduled_tokens_ = count;
  block_table_.insert(block_table_.end(), new_blocks.begin(), new_blocks.end());
}

void Sequence::Advance() {
  CADRE_CHECK_GT(num_scheduled_tokens_, 0);
  num_computed_tokens_ += std::exchange(num_scheduled_tokens_, 0);
  peak_computed_tokens_ = std::max(peak_computed_tokens_, num_computed_tokens_);
}

void Sequence::Assume(int32_t placeholder) {
  CADRE_CHECK(state_ == SequenceState::kDecode && !is_assumed_);
  CADRE_CHECK_EQ(num_scheduled_tokens_, 1);
  CADRE_CHECK_EQ(peak_computed_tokens_, num_computed_tokens_);  // who decodes has computed all again that it ever had
  Advance();
  tokens_.push_back(placeholder);
  is_assumed_ = true;
}

void Sequence::Settle() {
  CADRE_CHECK(is_assumed_);
  tokens_.pop_back();
  is_assumed_ = false;
}

void Sequence::Retract() {
  Settle();
  peak_computed_tokens_ = --num_computed_tokens_;
  num_scheduled_tokens_ = 1;
}

void Sequence::AppendToken(int32_t token) {
  CADRE_CHECK_EQ(num_uncomputed_tokens(), 0);
  if (state_ != SequenceState::kDecode) Transition(SequenceState::kDecode);
  tokens_.push_back(token);
}

std::vector<int32_t> Sequence::Preempt() {
  CADRE_CHECK_EQ(num_scheduled_tokens_, 0);
  Transition(SequenceState::kWaiting);
  num_computed_tokens_ = 0;
  ++num_preemptions_;
  return std::exchange(block_table_, {});
}

std::vector<int32_t> Sequence::Finish() {
  Transition(SequenceState::kFinished);
  num_scheduled_tokens_ = 0;
  return std::exchange(block_table_, {});
}

void Sequence::Transition(SequenceState to) {
  if (!IsValidTransition(state_, to)) [[unlikely]] {
    std::string transition(SequenceStateName(state_));
    transition.append(" -> ").append(SequenceStateName(to));
    CADRE_CHECK_EQ(transition, "a transition of SequenceState");
  }
  state_ = to;
}

}  // namespace cadre
