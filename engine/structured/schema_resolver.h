#ifndef CADRE_ENGINE_STRUCTURED_SCHEMA_RESOLVER_H_
#define CADRE_ENGINE_STRUCTURED_SCHEMA_RESOLVER_H_

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/structured/schema_budget.h"
#include "nlohmann/json.hpp"

namespace cadre {

using SchemaJson = nlohmann::ordered_json;

// What schemas made by merging others may take together.
inline constexpr int64_t kMaxMergedSchemaBytes = 4 << 20;
// References that lead to references.
inline constexpr int kMaxReferenceHops = 64;

// Whether a keyword asserts nothing: title, $defs, x-... and their kin.
bool IsAnnotation(std::string_view keyword);
// The keywords of `schema` that assert something, without `left_out`. REQUIRES: an object.
SchemaJson AssertionsOf(const SchemaJson& schema, std::string_view left_out = "");

// InvalidArgument and Unimplemented (for what is valid and not supported), "path: what".
absl::Status SchemaError(std::string_view path, std::string_view what);
absl::Status UnsupportedSchema(std::string_view path, std::string_view what);

// Follows $ref and merges allOf. Results are stable: equal schemas are one object, so that recursion ends.
class SchemaResolver {
 public:
  // Both must outlive this object and everything it returns. Beside their own errors, all functions return that of a
  // spent budget, with the path.
  SchemaResolver(const SchemaJson* root, SchemaBudget* budget) : root_(*root), budget_(*budget) {}

  // The schema that `schema` means, which has neither $ref nor allOf, nor tuples as old drafts write them: a boolean or
  // an object.
  absl::StatusOr<const SchemaJson*> Resolve(const SchemaJson& schema, const std::string& path);

  // A schema that is not in the document, kept as long as this object.
  absl::StatusOr<const SchemaJson*> Keep(SchemaJson schema, const std::string& path);

  // The alternatives of `keyword` (anyOf, oneOf) in `schema`, an object that Resolve returned. What stands beside the
  // keyword holds for each alternative, and is merged into it.
  absl::StatusOr<std::vector<const SchemaJson*>> Alternatives(const SchemaJson& schema, const char* keyword,
                                                              const std::string& path);

 private:
  absl::StatusOr<const SchemaJson*> ResolveAfresh(const SchemaJson& schema, const std::string& path);
  absl::StatusOr<const SchemaJson*> Target(const SchemaJson& reference, const std::string& path) const;
  absl::Status Spend(int64_t steps, const std::string& path) const;

  const SchemaJson& root_;
  SchemaBudget& budget_;
  absl::flat_hash_map<const SchemaJson*, const SchemaJson*> resolved_;
  std::deque<SchemaJson> kept_;
  absl::flat_hash_map<std::string, const SchemaJson*> kept_by_text_;
  int64_t kept_bytes_ = 0;
  int depth_ = 0;  // of Resolve within Resolve
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_SCHEMA_RESOLVER_H_
