// Whether a JSON value conforms to a JSON Schema: a plain recursive reading of the specification, as an oracle for
// constraints. Knows the keywords that structured output supports, but `format`.
#ifndef CADRE_TESTS_SUPPORT_JSON_VALIDATOR_H_
#define CADRE_TESTS_SUPPORT_JSON_VALIDATOR_H_

#include <string>

#include "nlohmann/json.hpp"

namespace cadre {

// Why `value` does not conform; empty when it does. `root` is the document that $ref points into. Any other keyword
// ends the program.
std::string FindViolation(const nlohmann::ordered_json& schema, const nlohmann::ordered_json& value,
                          const nlohmann::ordered_json& root);

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_JSON_VALIDATOR_H_
