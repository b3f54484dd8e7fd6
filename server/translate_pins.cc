#include "server/translate_pins.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/errors.h"

namespace cadre {

absl::StatusOr<std::vector<ExpertId>> ReadPins(const v1::PinExpertsRequest& request, const ModelCard& card) {
  std::vector<ExpertId> experts;
  experts.reserve(static_cast<size_t>(request.experts_size()));
  for (int i = 0; i < request.experts_size(); ++i) {
    const v1::ExpertRef& ref = request.experts(i);
    const auto layer = std::ranges::lower_bound(card.moe_layers, ref.layer());
    if (layer == card.moe_layers.end() || *layer != ref.layer()) {
      return InvalidField(absl::StrCat("experts[", i, "].layer"),
                          absl::StrCat(ref.layer(), " is none of the ", card.moe_layers.size(),
                                       " layers with experts, which are ", absl::StrJoin(card.moe_layers, ", ")));
    }
    if (ref.expert() < 0 || ref.expert() >= card.limits.num_experts) {
      return InvalidField(absl::StrCat("experts[", i, "].expert"),
                          absl::StrCat(ref.expert(), " is not in [0, ", card.limits.num_experts - 1, "]"));
    }
    const auto row = static_cast<int32_t>(layer - card.moe_layers.begin());
    experts.push_back(row * card.limits.num_experts + ref.expert());
  }
  return experts;
}

}  // namespace cadre
