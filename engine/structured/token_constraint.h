// What structured output asks of the sampler: which tokens may come next.
#ifndef CADRE_ENGINE_STRUCTURED_TOKEN_CONSTRAINT_H_
#define CADRE_ENGINE_STRUCTURED_TOKEN_CONSTRAINT_H_

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"

namespace cadre {

// Where one sequence stands in its language. One thread at a time.
class ConstraintState {
 public:
  virtual ~ConstraintState() = default;
  // Tokens that may come next: bit (id % 64) of word id / 64, [ceil(V / 64)] words; valid until Advance.
  // End-of-sequence tokens are among them exactly when the output so far is a whole sentence of the language. Empty
  // only when done(). ResourceExhausted, in words for who chose the language, when it takes more work than a token may:
  // the sequence cannot go on.
  virtual absl::StatusOr<std::span<const uint64_t>> AllowedTokens() = 0;
  // REQUIRES: `token_id` is allowed. An error is what AllowedTokens returns next.
  virtual void Advance(int32_t token_id) = 0;
  // The output is a whole sentence, and nothing but the end may follow.
  virtual bool done() const = 0;
};

// A formal language over token ids, compiled. Immutable; any thread. Outlives its states.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  virtual std::unique_ptr<ConstraintState> Start() const = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_TOKEN_CONSTRAINT_H_
