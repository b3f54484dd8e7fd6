#include "server/translate_bias.h"

#include <cstddef>

namespace cadre {

void FillRouterBias(const RouterBiasReport& report, std::span<const int32_t> moe_layers, bool with_experts,
                    v1::RouterBias* wire) {
  wire->set_rate(report.options.rate);
  wire->set_window_tokens(report.options.window_tokens);
  wire->set_limit(report.options.limit);
  wire->set_updates(report.num_updates);
  wire->set_largest_nudge(report.largest_nudge);
  if (!with_experts || moe_layers.empty()) return;
  const size_t num_experts = report.bias.size() / moe_layers.size();
  for (size_t layer = 0; layer < moe_layers.size(); ++layer) {
    v1::LayerBias* const of_layer = wire->add_layers();
    of_layer->set_layer(moe_layers[layer]);
    const auto begin = report.bias.begin() + static_cast<std::ptrdiff_t>(layer * num_experts);
    of_layer->mutable_bias()->Assign(begin, begin + static_cast<std::ptrdiff_t>(num_experts));
  }
}

}  // namespace cadre
