#ifndef CADRE_ENGINE_STRUCTURED_SCHEMA_BUDGET_H_
#define CADRE_ENGINE_STRUCTURED_SCHEMA_BUDGET_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/structured/json_schema.h"

namespace cadre {

// The steps that one schema may take to compile, whatever they are spent on: kMaxSchemaWork of them. A step is about as
// long as following one edge of an automaton (10 ns). Everything whose cost can outgrow the schema's text is charged
// here. Not thread-safe.
class SchemaBudget {
 public:
  // Before the work. ResourceExhausted from the first step beyond the limit on.
  absl::Status Spend(int64_t steps) {
    spent_ = steps > kMaxSchemaWork - spent_ ? kMaxSchemaWork + 1 : spent_ + steps;
    if (spent_ <= kMaxSchemaWork) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat("the schema needs more than ", kMaxSchemaWork, " steps to compile, its expressions included"));
  }

 private:
  int64_t spent_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_SCHEMA_BUDGET_H_
