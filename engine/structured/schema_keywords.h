// Keywords of one schema, read and checked.
#ifndef CADRE_ENGINE_STRUCTURED_SCHEMA_KEYWORDS_H_
#define CADRE_ENGINE_STRUCTURED_SCHEMA_KEYWORDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/structured/byte_dfa.h"
#include "engine/structured/number_pattern.h"
#include "engine/structured/schema_resolver.h"

namespace cadre {

// A schema that SchemaResolver::Resolve returned, and where it stands.
struct PlacedSchema {
  const SchemaJson* json = nullptr;
  std::string path;

  bool Has(const char* keyword) const { return json->contains(keyword); }
  const SchemaJson& operator[](const char* keyword) const { return (*json)[keyword]; }
};

// Unimplemented, naming it, for a keyword that is neither supported nor an annotation.
absl::Status CheckKeywords(const PlacedSchema& schema);

// The types of the values that conform: what `type` says, else all. Never both integer and number.
absl::StatusOr<std::vector<std::string>> ConformingTypesOf(const PlacedSchema& schema);

// The types that are generated, among them: "object", "string", ...: what `type` says, else the types that other
// keywords speak of, else all. Never both integer and number.
absl::StatusOr<std::vector<std::string>> TypesOf(const PlacedSchema& schema);

// The values of `enum` and `const` that have one of its types; nullopt when there is neither keyword.
absl::StatusOr<std::optional<std::vector<SchemaJson>>> ValuesOf(const PlacedSchema& schema);
// The type that a keyword speaks of: "object", "array", "string" or "number"; empty for keywords of all, or of none.
std::string_view TypeOfKeyword(std::string_view name);
bool HasType(const SchemaJson& value, const std::string& type);

// `minLength`, `maxLength` and their kin: a whole number, written as an integer or not, saturated at 10^15.
absl::StatusOr<std::optional<int64_t>> ReadCount(const PlacedSchema& schema, const char* keyword);
// `minLength` and its kin, for what is generated: Unimplemented above kMaxSchemaCount. Absent: 0.
absl::StatusOr<int32_t> ReadMinimumCount(const PlacedSchema& schema, const char* keyword);
// `maxLength` and its kin, for what is generated: at most kMaxSchemaCount. Absent: kNoLengthLimit.
absl::StatusOr<int32_t> ReadMaximumCount(const PlacedSchema& schema, const char* keyword);

absl::StatusOr<NumberBounds> ReadBounds(const PlacedSchema& schema);

// The list of names in `required`.
absl::StatusOr<std::vector<std::string>> ReadRequired(const PlacedSchema& schema);

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_SCHEMA_KEYWORDS_H_
