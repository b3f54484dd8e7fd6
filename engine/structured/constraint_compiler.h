#ifndef CADRE_ENGINE_STRUCTURED_CONSTRAINT_COMPILER_H_
#define CADRE_ENGINE_STRUCTURED_CONSTRAINT_COMPILER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/structured/grammar_constraint.h"
#include "engine/structured/token_vocabulary.h"

namespace cadre {

inline constexpr size_t kMaxChoices = 10'000;
inline constexpr size_t kMaxChoiceBytes = 256 << 10;  // together

// Texts to constraints. All: InvalidArgument for what is malformed or leaves nothing to generate, Unimplemented for
// what is not supported, ResourceExhausted for a limit; the message names it. Any thread.
using CompiledConstraint = absl::StatusOr<std::shared_ptr<const GrammarConstraint>>;

// See CompileJsonSchema (json_schema.h).
CompiledConstraint ConstrainToJsonSchema(std::string_view schema, std::shared_ptr<const TokenVocabulary> vocabulary);
// The whole output matches; see ParseRegex (regex_tree.h).
CompiledConstraint ConstrainToRegex(std::string_view pattern, std::shared_ptr<const TokenVocabulary> vocabulary);
// The output is one of `choices`, each not empty and valid UTF-8.
CompiledConstraint ConstrainToChoices(const std::vector<std::string>& choices,
                                      std::shared_ptr<const TokenVocabulary> vocabulary);

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_CONSTRAINT_COMPILER_H_
