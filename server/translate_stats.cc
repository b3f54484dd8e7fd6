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
  wire->set_effective_experts(health.effective_experts);
  wire->mutable_concentration()->Assign(health.concentration.begin(), health.concentration.end());
  wire->mutable_dead_experts()->Assign(health.dead_experts.begin(), health.dead_experts.end());
  wire->mutable_hot_experts()->Assign(health.hot_experts.begin(), health.hot_experts.end());
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
  Assign(counters.lost_gate_weight, wire->mutable_lost_gate_weight());
}

// The lists of the selected layers one after the other, or nothing where all are zero.
template <typename From, typename To>
void AppendRows(const std::vector<LayerCounters>& layers, const std::vector<int32_t>& selected,
                std::vector<From> LayerCounters::*list, google::protobuf::RepeatedField<To>* to) {
  const auto has_counts = [&](int32_t i) {
    const std::vector<From>& row = layers[static_cast<size_t>(i)].*list;
    return std::any_of(row.begin(), row.end(), [](From x) { return x != From{0}; });
  };
  if (std::none_of(selected.begin(), selected.end(), has_counts)) return;
  for (const int32_t i : selected) {
    for (const From x : layers[static_cast<size_t>(i)].*list) to->Add(static_cast<To>(x));
  }
}

void FillMatrix(const std::vector<LayerCounters>& layers, const StatsSelection& selection, const ModelCard& card,
                int32_t num_experts, v1::ExpertMatrix* wire) {
  for (const int32_t i : selection.layers) wire->add_layers(card.moe_layers[static_cast<size_t>(i)]);
  wire->set_num_experts(num_experts);
  AppendRows(layers, selection.layers, &LayerCounters::processed, wire->mutable_processed());
  AppendRows(layers, selection.layers, &LayerCounters::rerouted, wire->mutable_rerouted());
  AppendRows(layers, selection.layers, &LayerCounters::reweighted, wire->mutable_reweighted());
  AppendRows(layers, selection.layers, &LayerCounters::dropped, wire->mutable_dropped());
  AppendRows(layers, selection.layers, &LayerCounters::gate_weight, wire->mutable_gate_weight());
  AppendRows(layers, selection.layers, &LayerCounters::lost_gate_weight, wire->mutable_lost_gate_weight());
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
  if (static_cast<size_t>(layers.size()) > card.moe_layers.size()) {
    return InvalidField("layers", absl::StrCat(layers.size(), " entries; the limit is the model's ",
                                               card.moe_layers.size(), " MoE layers"));
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

void FillExpertStats(const ExpertSnapshot& snapshot, const std::vector<LayerCounters>& total,
                     const StatsSelection& selection, const ModelCard& card, absl::Time time, v1::ExpertStats* stats) {
  *stats->mutable_time() = ToProto(time);
  stats->set_model(card.name);
  stats->set_num_experts(snapshot.num_experts);
  stats->set_top_k(snapshot.top_k);
  stats->set_window_tokens(snapshot.window_tokens);
  const bool lists = selection.experts && !selection.as_matrix;
  for (const int32_t i : selection.layers) {
    const size_t index = static_cast<size_t>(i);
    if (selection.total) FillLayer(total[index], card.moe_layers[index], lists, stats->add_total());
    if (selection.window) {
      v1::LayerStats* const layer = stats->add_window();
      FillLayer(snapshot.window[index], card.moe_layers[index], lists, layer);
      if (index < snapshot.drift.size()) layer->mutable_health()->set_drift(snapshot.drift[index]);
      layer->mutable_health()->set_collapsed(index < snapshot.collapsed.size() && snapshot.collapsed[index] != 0);
    }
  }
  if (!selection.experts || !selection.as_matrix) return;
  if (selection.total) {
    FillMatrix(total, selection, card, snapshot.num_experts, stats->mutable_total_matrix());
  }
  if (selection.window) {
    FillMatrix(snapshot.window, selection, card, snapshot.num_experts, stats->mutable_window_matrix());
  }
}

void FillTenant(const TenantRouting& tenant, v1::TenantStats* wire) {
  wire->set_tenant(tenant.tenant);
  wire->set_processed(tenant.routing.processed);
  wire->set_rerouted(tenant.routing.rerouted);
  wire->set_reweighted(tenant.routing.reweighted);
  wire->set_dropped(tenant.routing.dropped);
  wire->set_gate_weight(tenant.routing.total_gate_weight);
  wire->set_lost_gate_weight(tenant.routing.lost_gate_weight);
}

std::vector<LayerCounters> Difference(const std::vector<LayerCounters>& now, const std::vector<LayerCounters>& before) {
  std::vector<LayerCounters> result = now;
  for (size_t i = 0; i < std::min(result.size(), before.size()); ++i) {
    LayerCounters& layer = result[i];
    layer.tokens -= before[i].tokens;
    layer.assignments -= before[i].assignments;
    Subtract(before[i].chosen, &layer.chosen);
    Subtract(before[i].processed, &layer.processed);
    Subtract(before[i].rerouted, &layer.rerouted);
    Subtract(before[i].reweighted, &layer.reweighted);
    Subtract(before[i].dropped, &layer.dropped);
    Subtract(before[i].gate_weight, &layer.gate_weight);
    Subtract(before[i].lost_gate_weight, &layer.lost_gate_weight);
    Subtract(before[i].probability, &layer.probability);
    layer.squared_log_sum_exp -= before[i].squared_log_sum_exp;
  }
  return result;
}

}  // namespace cadre
