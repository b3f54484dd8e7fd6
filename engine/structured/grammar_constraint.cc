#include "engine/structured/grammar_constraint.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/structured/grammar_automaton.h"
#include "engine/structured/step_meter.h"

namespace cadre {
namespace {

constexpr int64_t kPreparedStates = 4000;

}  // namespace

// Everything that the states of one constraint have in common.
class GrammarConstraint::Shared {
 public:
  Shared(Grammar grammar, std::shared_ptr<const TokenVocabulary> vocabulary, int64_t max_cache_bytes,
         int64_t max_mask_work)
      : grammar_(std::move(grammar)),
        vocabulary_(std::move(vocabulary)),
        max_cache_bytes_(max_cache_bytes),
        max_mask_work_(max_mask_work) {
    UseAutomaton(std::make_unique<GrammarAutomaton>(&grammar_, &meter_));
  }

  const TokenVocabulary& vocabulary() const { return *vocabulary_; }

  // Before everything else.
  absl::Status FindStart() {
    const std::lock_guard lock(mutex_);
    meter_.Limit(max_mask_work_);
    start_ = automaton_->Start();
    if (start_ == GrammarAutomaton::kUnfinished) return MaskLimitError(meter_, max_automaton_bytes());
    places_.push_back(&start_);
    return absl::OkStatus();
  }
  // Registers a state's place, which Flush keeps valid, at the start of the language.
  void Enter(int32_t* place) {
    const std::lock_guard lock(mutex_);
    *place = start_;
    places_.push_back(place);
  }
  void Leave(int32_t* place) {
    const std::lock_guard lock(mutex_);
    std::erase(places_, place);
  }
  absl::Status Fill(const int32_t* place, bool is_first, std::span<uint64_t> mask) {
    const std::lock_guard lock(mutex_);
    meter_.Limit(max_mask_work_);
    if (automaton_->memory_bytes() + masks_->memory_bytes() > max_cache_bytes_) Flush();
    return is_first ? masks_->FillFirst(*place, mask) : masks_->Fill(*place, mask);
  }
  absl::Status Prepare(int64_t work) {
    const std::lock_guard lock(mutex_);
    return masks_->Prepare(kPreparedStates, work, max_mask_work_);
  }
  // REQUIRES: the language goes on like this. An error leaves the place on the way.
  absl::Status Advance(std::string_view bytes, int32_t* place) {
    const std::lock_guard lock(mutex_);
    meter_.Limit(max_mask_work_);
    for (const char c : bytes) {
      int32_t next = automaton_->Next(*place, static_cast<uint8_t>(c));
      if (next == GrammarAutomaton::kUnfinished && !meter_.is_exhausted()) {
        Flush();
        next = automaton_->Next(*place, static_cast<uint8_t>(c));
      }
      if (next == GrammarAutomaton::kUnfinished) return MaskLimitError(meter_, max_automaton_bytes());
      CADRE_CHECK_NE(next, GrammarAutomaton::kDead);
      *place = next;
    }
    return absl::OkStatus();
  }
  bool IsAtEnd(const int32_t* place) const {
    const std::lock_guard lock(mutex_);
    return automaton_->accepts(*place) && !automaton_->has_next(*place);
  }
  int64_t memory_bytes() const {
    const std::lock_guard lock(mutex_);
    return grammar_.memory_bytes() + automaton_->memory_bytes() + masks_->memory_bytes();
  }
  int64_t num_flushes() const {
    const std::lock_guard lock(mutex_);
    return num_flushes_;
  }

 private:
  // A mask is begun with no more than the cache may have, and may take as much again.
  int64_t max_automaton_bytes() const { return 2 * max_cache_bytes_; }

  void UseAutomaton(std::unique_ptr<GrammarAutomaton> automaton) {
    automaton->LimitMemory(max_automaton_bytes());
    masks_ = std::make_unique<TokenMasks>(vocabulary_.get(), automaton.get(), &meter_, max_cache_bytes_ / 2);
    automaton_ = std::move(automaton);
  }

  // Starts again with nothing but the states that sequences are in.
  void Flush() {
    masks_ = nullptr;  // first: their room is that of what is copied
    auto fresh = std::make_unique<GrammarAutomaton>(&grammar_, &meter_);
    GrammarAutomaton::Imported imported;
    for (int32_t* place : places_) *place = fresh->Import(*automaton_, *place, &imported);
    UseAutomaton(std::move(fresh));
    ++num_flushes_;
  }

  const Grammar grammar_;
  const std::shared_ptr<const TokenVocabulary> vocabulary_;
  const int64_t max_cache_bytes_;
  const int64_t max_mask_work_;
  mutable std::mutex mutex_;
  StepMeter meter_;
  int32_t start_ = 0;
  std::unique_ptr<GrammarAutomaton> automaton_;
  std::unique_ptr<TokenMasks> masks_;
  std::vector<int32_t*> places_;  // start_, and those of all living states
  int64_t num_flushes_ = 0;
};

class GrammarConstraint::State final : public ConstraintState {
 public:
  explicit State(std::shared_ptr<Shared> shared) : shared_(std::move(shared)), mask_(NumWords()) {
    shared_->Enter(&place_);
  }
  ~State() override { shared_->Leave(&place_); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  absl::StatusOr<std::span<const uint64_t>> AllowedTokens() override {
    CADRE_RETURN_IF_ERROR(status_);
    if (!is_filled_) CADRE_RETURN_IF_ERROR(shared_->Fill(&place_, is_first_, mask_));
    is_filled_ = true;
    return std::span<const uint64_t>(mask_);
  }

  void Advance(int32_t token_id) override {
    is_filled_ = false;
    if (shared_->vocabulary().IsEnd(token_id)) {
      has_ended_ = true;
      return;
    }
    const TokenVocabulary::Token& token = shared_->vocabulary().token(token_id);
    CADRE_CHECK(!token.later.empty());
    status_ = shared_->Advance(is_first_ ? token.first : token.later, &place_);
    is_first_ = false;
  }

  bool done() const override { return has_ended_ || shared_->IsAtEnd(&place_); }

 private:
  size_t NumWords() const { return shared_->vocabulary().num_mask_words(); }

  const std::shared_ptr<Shared> shared_;
  int32_t place_ = 0;    // guarded by the lock of `shared_`, which renumbers it
  absl::Status status_;  // of Advance
  std::vector<uint64_t> mask_;
  bool is_filled_ = false;
  bool is_first_ = true;
  bool has_ended_ = false;
};

GrammarConstraint::GrammarConstraint(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

GrammarConstraint::~GrammarConstraint() = default;

absl::StatusOr<std::shared_ptr<const GrammarConstraint>> GrammarConstraint::Create(
    Grammar grammar, std::shared_ptr<const TokenVocabulary> vocabulary, int64_t max_cache_bytes, int64_t prepared_work,
    int64_t max_mask_work) {
  std::shared_ptr<const GrammarConstraint> constraint(new GrammarConstraint(
      std::make_shared<Shared>(std::move(grammar), std::move(vocabulary), max_cache_bytes, max_mask_work)));
  CADRE_RETURN_IF_ERROR(constraint->shared_->FindStart());
  const std::unique_ptr<ConstraintState> state = constraint->Start();
  if (state->done()) return absl::InvalidArgumentError("only the empty text conforms");
  // What most sequences will ask for is made here, not on the thread that generates.
  CADRE_RETURN_IF_ERROR(constraint->shared_->Prepare(prepared_work));
  return constraint;
}

std::unique_ptr<ConstraintState> GrammarConstraint::Start() const { return std::make_unique<State>(shared_); }

int64_t GrammarConstraint::memory_bytes() const { return shared_->memory_bytes(); }

int64_t GrammarConstraint::num_flushes() const { return shared_->num_flushes(); }

}  // namespace cadre
