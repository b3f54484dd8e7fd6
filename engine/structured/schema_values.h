// What keywords beside `enum` and `const` leave of the values.
#ifndef CADRE_ENGINE_STRUCTURED_SCHEMA_VALUES_H_
#define CADRE_ENGINE_STRUCTURED_SCHEMA_VALUES_H_

#include <vector>

#include "absl/status/statusor.h"
#include "engine/structured/schema_keywords.h"

namespace cadre {

// Those of `values` that conform to bounds, lengths, counts and `required`. Keywords of another type say nothing of a
// value. Unimplemented, naming it, for any other keyword that speaks of one of them.
absl::StatusOr<std::vector<SchemaJson>> KeepConforming(const PlacedSchema& schema,
                                                       const std::vector<SchemaJson>& values);

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_SCHEMA_VALUES_H_
