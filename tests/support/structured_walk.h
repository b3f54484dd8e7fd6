// Sequences under a constraint without a model: what the engine does with one, driven by chance.
#ifndef CADRE_TESTS_SUPPORT_STRUCTURED_WALK_H_
#define CADRE_TESTS_SUPPORT_STRUCTURED_WALK_H_

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "engine/structured/token_constraint.h"
#include "engine/structured/token_vocabulary.h"

namespace cadre {

// All single bytes as tokens 0 to 255, then `more`, then one end token, the last id.
std::shared_ptr<const TokenVocabulary> ByteVocabulary(const std::vector<std::string>& more = {});
// Pieces that JSON is made of, and pieces that cut characters in two.
std::vector<std::string> JsonPieces();

// Both CADRE_CHECK that the mask is found within its limits.
bool IsAllowed(ConstraintState& state, int32_t token);
std::vector<int32_t> AllowedList(ConstraintState& state);

struct WalkResult {
  std::string text;
  bool is_finished = false;  // by the end token or done()
  int num_tokens = 0;
};
// Chooses among the allowed tokens; after `budget` tokens prefers those that end things, after 40 times as many gives
// up. CADRE_CHECKs that there is always something allowed.
WalkResult RandomWalk(const TokenConstraint& constraint, const TokenVocabulary& vocabulary, std::mt19937_64& random,
                      int budget);

// Whether `text` is allowed token by token, cut into tokens by chance, and may end there.
bool Accepts(const TokenConstraint& constraint, const TokenVocabulary& vocabulary, std::string_view text,
             std::mt19937_64& random);

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_STRUCTURED_WALK_H_
