#ifndef CADRE_ENGINE_STRUCTURED_GRAMMAR_CONSTRAINT_H_
#define CADRE_ENGINE_STRUCTURED_GRAMMAR_CONSTRAINT_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/structured/grammar.h"
#include "engine/structured/token_constraint.h"
#include "engine/structured/token_masks.h"
#include "engine/structured/token_vocabulary.h"

namespace cadre {

// What one constraint keeps of the states and masks that it has met. Beyond it, all is dropped and made again where it
// is needed. While a mask is made, the automaton may take twice as much beside what is kept of masks; if that is not
// enough, one of its own takes half as much, twice while it is exchanged. So the peak is four times this: 64 MiB.
inline constexpr int64_t kMaxConstraintCacheBytes = 16 << 20;
// Steps spent on masks when a constraint is compiled: a few dozen milliseconds.
inline constexpr int64_t kPreparedWork = 5'000'000;

// The sentences of a grammar, spelled with a vocabulary. Its states share what is learned of the grammar, under one
// lock that is held while a mask is made.
class GrammarConstraint final : public TokenConstraint {
 public:
  // InvalidArgument when only the empty text is a sentence: there would be nothing to generate. ResourceExhausted when
  // one of the first masks takes more than `max_mask_work` steps; its states return the same for a later mask, or for
  // what a token needs when it is chosen.
  static absl::StatusOr<std::shared_ptr<const GrammarConstraint>> Create(
      Grammar grammar, std::shared_ptr<const TokenVocabulary> vocabulary,
      int64_t max_cache_bytes = kMaxConstraintCacheBytes, int64_t prepared_work = kPreparedWork,
      int64_t max_mask_work = kMaxMaskWork);
  ~GrammarConstraint() override;

  std::unique_ptr<ConstraintState> Start() const override;

  // Of the grammar, and of what is kept now.
  int64_t memory_bytes() const;
  // How often everything was dropped.
  int64_t num_flushes() const;

 private:
  class Shared;
  class State;

  explicit GrammarConstraint(std::shared_ptr<Shared> shared);

  const std::shared_ptr<Shared> shared_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_GRAMMAR_CONSTRAINT_H_
