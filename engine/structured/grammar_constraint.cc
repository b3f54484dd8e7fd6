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
#include "engine/structured/token_masks.h"

namespace cadre {
namespace {

constexpr int64_t kPreparedStates = 4000;

}  // namespace

// Everything that the states of one constraint have in common.
class GrammarConstraint::Shared {
 public:
  Shared(Grammar grammar, std::shared_ptr<const TokenVocabulary> vocabulary, int64_t max_cache_bytes)
      : grammar_(std::move(grammar)), vocabulary_(std::move(vocabulary)), max_cache_bytes_(max_cache_bytes) {
    automaton_ = std::make_unique<GrammarAutomaton>(&grammar_);
    masks_ = std::make_unique<TokenMasks>(vocabulary_.get(), automaton_.get(), max_automaton_bytes());
  }

  const TokenVocabulary& vocabulary() const { return *vocabulary_; }

  // Registers a state's place, which Flush keeps valid, at the start of the language.
  void Enter(int32_t* place) {
    const std::lock_guard lock(mutex_);
    *place = automaton_->start();
    places_.push_back(place);
  }
  void Leave(int32_t* place) {
    const std::lock_guard lock(mutex_);
    std::erase(places_, place);
  }
  void Fill(const int32_t* place, bool is_first, std::span<uint64_t> mask) {
    const std::lock_guard lock(mutex_);
    FlushIfFull();
    is_first ? masks_->FillFirst(*place, mask) : masks_->Fill(*place, mask);
  }
  absl::Status Prepare(int64_t work) {
    const std::lock_guard lock(mutex_);
    return masks_->Prepare(kPreparedStates, work);
  }
  // False, with the place unchanged, when the language does not go on like this.
  bool Advance(std::string_view bytes, int32_t* place) {
    const std::lock_guard lock(mutex_);
    int32_t state = *place;
    for (const char c : bytes) {
      state = automaton_->Next(state, static_cast<uint8_t>(c));
      if (state == GrammarAutomaton::kDead) return false;
    }
    *place = state;
    return true;
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

  // Starts again with nothing but the states that sequences are in.
  void FlushIfFull() {
    if (automaton_->memory_bytes() + masks_->memory_bytes() <= max_cache_bytes_) return;
    auto fresh = std::make_unique<GrammarAutomaton>(&grammar_);
    for (int32_t* place : places_) *place = fresh->Import(*automaton_, *place);
    masks_ = std::make_unique<TokenMasks>(vocabulary_.get(), fresh.get(), max_automaton_bytes());
    automaton_ = std::move(fresh);
    ++num_flushes_;
  }

  const Grammar grammar_;
  const std::shared_ptr<const TokenVocabulary> vocabulary_;
  const int64_t max_cache_bytes_;
  mutable std::mutex mutex_;
  std::unique_ptr<GrammarAutomaton> automaton_;
  std::unique_ptr<TokenMasks> masks_;
  std::vector<int32_t*> places_;  // of all living states
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

  std::span<const uint64_t> AllowedTokens() override {
    if (!is_filled_) shared_->Fill(&place_, is_first_, mask_);
    is_filled_ = true;
    return mask_;
  }

  void Advance(int32_t token_id) override {
    is_filled_ = false;
    if (shared_->vocabulary().IsEnd(token_id)) {
      has_ended_ = true;
      return;
    }
    const TokenVocabulary::Token& token = shared_->vocabulary().token(token_id);
    const bool is_allowed = shared_->Advance(is_first_ ? token.first : token.later, &place_);
    CADRE_CHECK(is_allowed && !token.later.empty());
    is_first_ = false;
  }

  bool done() const override { return has_ended_ || shared_->IsAtEnd(&place_); }

 private:
  size_t NumWords() const { return shared_->vocabulary().num_mask_words(); }

  const std::shared_ptr<Shared> shared_;
  int32_t place_ = 0;  // guarded by the lock of `shared_`, which renumbers it
  std::vector<uint64_t> mask_;
  bool is_filled_ = false;
  bool is_first_ = true;
  bool has_ended_ = false;
};

GrammarConstraint::GrammarConstraint(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

GrammarConstraint::~GrammarConstraint() = default;

absl::StatusOr<std::shared_ptr<const GrammarConstraint>> GrammarConstraint::Create(
    Grammar grammar, std::shared_ptr<const TokenVocabulary> vocabulary, int64_t max_cache_bytes,
    int64_t prepared_work) {
  std::shared_ptr<const GrammarConstraint> constraint(
      new GrammarConstraint(std::make_shared<Shared>(std::move(grammar), std::move(vocabulary), max_cache_bytes)));
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
