#include "server/translate_stats.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "server/errors.h"
#include "server/proto_time.h"

namespace cadre {
namespace {

void FillHealth(const RouterHealth& health, v1::RouterHealth* wire) {
  wire->set_load_entropy(health.load_entropy);
  wire->set_gate_entropy(health.gate_entropy);
  wire->set_load_imbalance(health.load_imbalance);
  wire->set_load_variation(health.load_variation);
  wire->set_balance_loss(health.balance_loss);
  wire->set_z_loss(health.z_loss);
  wire->set_unused_experts(health.unused_experts);
}

template <typename T>
void Assign(const std::vector<T>& from, google::protobuf::RepeatedField<T>* to) {
  to->Assign(from.begin(), from.end());
}

void FillLayer(const LayerCounters& counters, int32_t layer, bool experts, v1::LayerStats* wire) {
  wire->set_layer(layer);
  wire->set_tokens(counters.tokens);
  FillHealth(ComputeRouterHealth(counters), wire->mutable_health());
  if (!experts) return;
  Assign(counters.processed, wire->mutable_processed());
  Assign(counters.rerouted, wire->mutable_rerouted());
  Assign(counters.reweighted, wire->mutable_reweighted());
  Assign(counters.dropped, wire->mutable_dropped());
  Assign(counters.gate_weight, wire->mutable_gate_weight());
}

template <typename T>
void Subtract(const std::vector<T>& from, std::vector<T>* counters) {
  std::transform(counters->begin(), counters->end(), from.begin(), counters->begin(), std::minus<T>());
}

}  // namespace

absl::StatusOr<StatsSelection> SelectStats(v1::StatsScope scope, const google::protobuf::RepeatedField<int32_t>& layers,
                                           bool experts, const ModelCard& card) {
  StatsSelection selection;
  switch (scope) {
    case v1::STATS_SCOPE_UNSPECIFIED:
      break;
    case v1::STATS_SCOPE_TOTAL:
      selection.window = false;
      break;
    case v1::STATS_SCOPE_WINDOW:
      selection.total = false;
      break;
    default:
      return InvalidField("scope", absl::StrCat(static_cast<int>(scope), " is no StatsScope"));
  }
  selection.experts = experts;
  if (layers.empty()) {
    selection.layers.resize(card.moe_layers.size());
    std::iota(selection.layers.begin(), selection.layers.end(), 0);
    return selection;
  }
  for (int i = 0; i < layers.size(); ++i) {
    const auto found = std::find(card.moe_layers.begin(), card.moe_layers.end(), layers[i]);
    if (found == card.moe_layers.end()) {
      return InvalidField(absl::StrCat("layers[", i, "]"),
                          absl::StrCat(layers[i], " is no MoE layer; the model has ", card.num_layers, " layers, ",
                                       card.moe_layers.size(), " of them MoE"));
    }
    selection.layers.push_back(static_cast<int32_t>(found - card.moe_layers.begin()));
  }
  std::sort(selection.layers.begin(), selection.layers.end());
  selection.layers.erase(std::unique(selection.layers.begin(), selection.layers.end()), selection.layers.end());
  return selection;
}

void FillExpertStats(const ExpertSnapshot& snapshot, const StatsSelection& selection, const ModelCard& card,
                     absl::Time now, v1::ExpertStats* stats) {
  *stats->mutable_time() = ToProto(now);
  stats->set_model(card.name);
  stats->set_num_experts(snapshot.num_experts);
  stats->set_top_k(snapshot.top_k);
  stats->set_window_tokens(snapshot.window_tokens);
  for (const int32_t i : selection.layers) {
    const size_t index = static_cast<size_t>(i);
    if (selection.total)
      FillLayer(snapshot.total[index], card.moe_layers[index], selection.experts, stats->add_total());
    if (selection.window) {
      FillLayer(snapshot.window[index], card.moe_layers[index], selection.experts, stats->add_window());
    }
  }
}

std::vector<LayerCounters> Difference(const std::vector<LayerCounters>& now, const std::vector<LayerCounters>& before) {
  std::vector<LayerCounters> result = now;
  for (size_t i = 0; i < std::min(result.size(), before.size()); ++i) {
    LayerCounters& layer = result[i];
    layer.tokens -= before[i].tokens;
    Subtract(before[i].processed, &layer.processed);
    Subtract(before[i].rerouted, &layer.rerouted);
    Subtract(before[i].reweighted, &layer.reweighted);
    Subtract(before[i].dropped, &layer.dropped);
    Subtract(before[i].gate_weight, &layer.gate_weight);
    Subtract(before[i].probability, &layer.probability);
    layer.squared_log_sum_exp -= before[i].squared_log_sum_exp;
  }
  return result;
}

}  // namespace cadre
