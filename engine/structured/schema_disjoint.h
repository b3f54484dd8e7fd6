#ifndef CADRE_ENGINE_STRUCTURED_SCHEMA_DISJOINT_H_
#define CADRE_ENGINE_STRUCTURED_SCHEMA_DISJOINT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/structured/schema_budget.h"
#include "engine/structured/schema_keywords.h"
#include "engine/structured/schema_resolver.h"

namespace cadre {

// A grammar cannot ask that exactly one alternative holds, so it must be certain that never two do. OK when each two
// alternatives differ in type, in their values (enum, const), in such a property that both require, or in a property
// that one requires and the other forbids. A schema without `type` allows values of types that are never generated for
// it (TypesOf): what counts is that nothing generated for one alternative conforms to the other. Unimplemented, naming
// the two, when that cannot be seen. ResourceExhausted when the comparisons spend the budget.
absl::Status CheckOneOf(const std::vector<const SchemaJson*>& alternatives, const std::string& path,
                        SchemaResolver* resolver, SchemaBudget* budget);

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_SCHEMA_DISJOINT_H_
