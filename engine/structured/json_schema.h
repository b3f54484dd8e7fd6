#ifndef CADRE_ENGINE_STRUCTURED_JSON_SCHEMA_H_
#define CADRE_ENGINE_STRUCTURED_JSON_SCHEMA_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/structured/byte_dfa.h"
#include "engine/structured/grammar.h"

namespace cadre {

inline constexpr size_t kMaxSchemaBytes = 512 << 10;
inline constexpr int kMaxSchemaDepth = 64;
inline constexpr size_t kMaxSchemaValues = 20'000;  // objects, arrays, strings, numbers, literals
inline constexpr int kMaxSchemaRules = 40'000;      // subschemas, merged ones included
// Steps to compile it, those of all its automata included (schema_budget.h); about a second. What one automaton may
// cost: byte_dfa.h.
inline constexpr int64_t kMaxSchemaWork = 2 * kMaxDfaWork;
inline constexpr int kMaxOneOf = 256;
// minLength, minItems and minProperties. Larger maxima count as this: no answer is as long.
inline constexpr int32_t kMaxSchemaCount = 16'384;

// The JSON texts that conform to a JSON Schema (draft 2020-12), as far as README.md says. Every sentence is valid JSON
// that conforms.
//
// InvalidArgument: no JSON, no schema, or nothing conforms to it. Unimplemented: a keyword that is not supported.
// ResourceExhausted: a limit. Each begins with the place in the schema, as a JSON pointer ("#/properties/name").
absl::StatusOr<Grammar> CompileJsonSchema(std::string_view schema, const ByteSet& spelled);

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_JSON_SCHEMA_H_
