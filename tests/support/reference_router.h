// Every routing scheme of docs/routing.md, one row at a time, in double precision, written from the papers: by full
// sorting and without a word of the code under test.
#ifndef CADRE_TESTS_SUPPORT_REFERENCE_ROUTER_H_
#define CADRE_TESTS_SUPPORT_REFERENCE_ROUTER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace cadre {

struct ReferenceChoice {
  std::vector<int32_t> ids;     // the best first
  std::vector<double> weights;  // as many
  // How far the decision was from another: the smallest difference of two numbers that were compared. What is computed
  // in float may decide otherwise where it is tiny.
  double margin = 0.0;
};

// What a row is, beside its logits.
struct RoutedRow {
  int64_t layer = 0;
  int32_t token = 0;
  int32_t position = 0;
  uint64_t seed = 0;
};

// `scheme` is a block {"scheme": ..., settings}; what it leaves out has the default of docs/routing.md, and `family_k`
// is the model's own K. `bias` is the selection bias of the layer, or empty.
ReferenceChoice ReferenceRoute(const nlohmann::json& scheme, const std::vector<double>& logits,
                               const std::vector<double>& bias, int64_t family_k, const RoutedRow& row);

// The rows of one group of a prompt, for the scheme expert-choice.
std::vector<ReferenceChoice> ReferenceExpertChoice(const nlohmann::json& scheme,
                                                   const std::vector<std::vector<double>>& logits);

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_REFERENCE_ROUTER_H_
