#ifndef CADRE_ENGINE_STRUCTURED_SCHEMA_MERGE_H_
#define CADRE_ENGINE_STRUCTURED_SCHEMA_MERGE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/structured/schema_resolver.h"

namespace cadre {

// A schema that asks for what both ask for. Properties that both have become allOf of the two, which are merged in
// their turn. Unimplemented, by the keyword, for what has no such schema in our subset (two patterns, ...).
absl::StatusOr<SchemaJson> MergeSchemas(const SchemaJson& a, const SchemaJson& b, const std::string& path);

// What that takes, to be charged before it is done (SchemaBudget).
int64_t MergeSteps(const SchemaJson& a, const SchemaJson& b);

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_SCHEMA_MERGE_H_
