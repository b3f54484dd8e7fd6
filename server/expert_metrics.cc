#include "server/expert_metrics.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <numeric>
#include <span>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "engine/base/check.h"

namespace cadre {
namespace {

constexpr int kExtremeRanks = 2;

// The four final states of an assignment, by label value.
struct StateLabel {
  const char* name;
  std::vector<int64_t> LayerCounters::*counts;
};
constexpr std::array<StateLabel, 4> kStateLabels = {{
    {"processed", &LayerCounters::processed},
    {"rerouted", &LayerCounters::rerouted},
    {"reweighted", &LayerCounters::reweighted},
    {"dropped", &LayerCounters::dropped},
}};

// What has become of lookups and of experts read ahead, and the tiers, by label value.
struct CounterLabel {
  const char* name;
  int64_t SlotCounters::*counter;
};
constexpr std::array<CounterLabel, 2> kLookupLabels = {{
    {"hit", &SlotCounters::hits},
    {"miss", &SlotCounters::misses},
}};
constexpr std::array<CounterLabel, 4> kPrefetchLabels = {{
    {"used", &SlotCounters::prefetches_used},
    {"late", &SlotCounters::prefetches_late},
    {"wasted", &SlotCounters::prefetches_wasted},
    {"failed", &SlotCounters::prefetches_failed},
}};
struct TierLabel {
  const char* name;
  ExpertTier tier;
};
constexpr std::array<TierLabel, 3> kTierLabels = {{
    {"device", ExpertTier::kDevice},
    {"host", ExpertTier::kHost},
    {"checkpoint", ExpertTier::kCheckpoint},
}};

int64_t Sum(const std::vector<int64_t>& counts) { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); }

std::vector<RouterHealth> WindowHealth(const ExpertSnapshot& snapshot) {
  std::vector<RouterHealth> health;
  health.reserve(snapshot.window.size());
  for (const LayerCounters& layer : snapshot.window) health.push_back(ComputeRouterHealth(layer));
  return health;
}

template <typename Number>
double Mean(const std::vector<RouterHealth>& layers, Number RouterHealth::*field) {
  double sum = 0.0;
  for (const RouterHealth& layer : layers) sum += static_cast<double>(layer.*field);
  return sum / static_cast<double>(layers.size());
}

template <typename Number>
void WriteMeanAndWorst(const MetricName& metric, const std::vector<RouterHealth>& layers, Number RouterHealth::*field,
                       bool worst_is_highest, MetricPage& page) {
  const auto [lowest, highest] =
      std::minmax_element(layers.begin(), layers.end(),
                          [field](const RouterHealth& a, const RouterHealth& b) { return a.*field < b.*field; });
  const RouterHealth& worst = worst_is_highest ? *highest : *lowest;
  page.Begin(metric);
  page.Sample({{"over", "mean"}}, Mean(layers, field));
  page.Sample({{"over", "worst"}}, static_cast<double>(worst.*field));
}

// How many experts are in the lists of all layers.
int64_t CountListed(const std::vector<RouterHealth>& layers, std::vector<int32_t> RouterHealth::*list) {
  int64_t count = 0;
  for (const RouterHealth& layer : layers) count += std::ssize(layer.*list);
  return count;
}

// At a tenth and at a half of the experts: the middle of the curve and its steep end.
void WriteConcentration(const std::vector<RouterHealth>& layers, MetricPage& page) {
  static constexpr std::array<std::pair<const char*, double>, 2> kShares = {{{"0.1", 0.1}, {"0.5", 0.5}}};
  page.Begin(metric::kRouterConcentration);
  for (const auto& [name, share] : kShares) {
    const auto point = std::find(kConcentrationPoints.begin(), kConcentrationPoints.end(), share);
    const auto index = static_cast<size_t>(point - kConcentrationPoints.begin());
    double sum = 0.0;
    for (const RouterHealth& layer : layers) sum += layer.concentration[index];
    page.Sample({{"busiest", name}}, sum / static_cast<double>(layers.size()));
  }
}

void WriteDrift(const std::vector<double>& drift, MetricPage& page) {
  const double sum = std::accumulate(drift.begin(), drift.end(), 0.0);
  page.Begin(metric::kRouterDrift);
  page.Sample({{"over", "mean"}}, drift.empty() ? 0.0 : sum / static_cast<double>(drift.size()));
  page.Sample({{"over", "worst"}}, drift.empty() ? 0.0 : *std::max_element(drift.begin(), drift.end()));
  page.Single(metric::kRouterHasBaseline, drift.empty() ? 0 : 1);
}

// Label values, written once and shared by all lines.
std::vector<std::string> Numerals(const std::vector<int32_t>& numbers) {
  std::vector<std::string> numerals;
  numerals.reserve(numbers.size());
  for (int32_t number : numbers) numerals.push_back(std::to_string(number));
  return numerals;
}

template <typename Number>
void WriteLayerGauge(const MetricName& metric, const std::vector<RouterHealth>& layers, Number RouterHealth::*field,
                     const std::vector<std::string>& numerals, MetricPage& page) {
  page.Begin(metric);
  for (size_t i = 0; i < layers.size(); ++i) page.Sample({{"layer", numerals[i]}}, layers[i].*field);
}

}  // namespace

std::vector<ExpertLoad> ExtremeExperts(const ExpertSnapshot& snapshot, int count, bool coldest) {
  std::vector<ExpertLoad> loads;
  loads.reserve(static_cast<size_t>(snapshot.num_layers) * static_cast<size_t>(snapshot.num_experts));
  for (size_t layer = 0; layer < snapshot.window.size(); ++layer) {
    const LayerCounters& counters = snapshot.window[layer];
    const double mean = static_cast<double>(Sum(counters.processed) + Sum(counters.rerouted)) /
                        static_cast<double>(counters.processed.size());
    for (size_t expert = 0; expert < counters.processed.size(); ++expert) {
      const double load = static_cast<double>(counters.processed[expert] + counters.rerouted[expert]);
      loads.push_back({static_cast<int32_t>(layer), static_cast<int32_t>(expert), mean > 0.0 ? load / mean : 1.0});
    }
  }
  const auto end = loads.begin() + std::min<std::ptrdiff_t>(count, std::ssize(loads));
  std::partial_sort(loads.begin(), end, loads.end(), [coldest](const ExpertLoad& a, const ExpertLoad& b) {
    if (a.ratio != b.ratio) return coldest ? a.ratio < b.ratio : a.ratio > b.ratio;
    return a.layer != b.layer ? a.layer < b.layer : a.expert < b.expert;
  });
  loads.erase(end, loads.end());
  return loads;
}

void WriteRoutingTotals(const ExpertSnapshot& snapshot, MetricPage& page) {
  int64_t tokens = 0;
  for (const LayerCounters& layer : snapshot.total) tokens += layer.tokens;
  page.Single(metric::kRoutingTokens, tokens);
  page.Begin(metric::kRoutingAssignments);
  for (const StateLabel& state : kStateLabels) {
    int64_t assignments = 0;
    for (const LayerCounters& layer : snapshot.total) assignments += Sum(layer.*state.counts);
    page.Sample({{"state", state.name}}, assignments);
  }
  double lost = 0.0;
  for (const LayerCounters& layer : snapshot.total) {
    lost = std::accumulate(layer.lost_gate_weight.begin(), layer.lost_gate_weight.end(), lost);
  }
  page.Single(metric::kRoutingLostGateWeight, lost);
  int64_t unaccounted = 0;
  for (const LayerCounters& layer : snapshot.total) {
    int64_t in_states = 0;
    for (const StateLabel& state : kStateLabels) in_states += Sum(layer.*state.counts);
    unaccounted += std::abs(layer.assignments - in_states);
  }
  page.Single(metric::kRoutingUnaccounted, unaccounted);
}

void WriteRouterHealth(const ExpertSnapshot& snapshot, const std::vector<int32_t>& moe_layers, MetricPage& page) {
  CADRE_CHECK_EQ(moe_layers.size(), snapshot.total.size());
  const std::vector<RouterHealth> layers = WindowHealth(snapshot);
  if (layers.empty()) return;
  WriteMeanAndWorst(metric::kRouterLoadEntropy, layers, &RouterHealth::load_entropy, false, page);
  WriteMeanAndWorst(metric::kRouterGateEntropy, layers, &RouterHealth::gate_entropy, false, page);
  WriteMeanAndWorst(metric::kRouterLoadImbalance, layers, &RouterHealth::load_imbalance, true, page);
  WriteMeanAndWorst(metric::kRouterUnusedExperts, layers, &RouterHealth::unused_experts, true, page);
  WriteMeanAndWorst(metric::kRouterEffectiveExperts, layers, &RouterHealth::effective_experts, false, page);
  WriteConcentration(layers, page);
  page.Single(metric::kRouterDeadExperts, CountListed(layers, &RouterHealth::dead_experts));
  page.Single(metric::kRouterHotExperts, CountListed(layers, &RouterHealth::hot_experts));
  page.Single(metric::kRouterCollapsedLayers,
              std::count(snapshot.collapsed.begin(), snapshot.collapsed.end(), uint8_t{1}));
  WriteDrift(snapshot.drift, page);
  page.Single(metric::kRouterLoadVariation, Mean(layers, &RouterHealth::load_variation));
  page.Single(metric::kRouterBalanceLoss, Mean(layers, &RouterHealth::balance_loss));
  page.Single(metric::kRouterZLoss, Mean(layers, &RouterHealth::z_loss));
  const auto worst = std::max_element(layers.begin(), layers.end(), [](const RouterHealth& a, const RouterHealth& b) {
    return a.load_imbalance < b.load_imbalance;
  });
  page.Single(metric::kRouterWorstLayer, moe_layers[static_cast<size_t>(worst - layers.begin())]);
  page.Single(metric::kRouterWindowTokens, snapshot.window_tokens);
}

void WriteExtremeExperts(const ExpertSnapshot& snapshot, const std::vector<int32_t>& moe_layers, MetricPage& page) {
  CADRE_CHECK_EQ(moe_layers.size(), snapshot.total.size());
  static constexpr std::array<const char*, kExtremeRanks> kRankNames = {"1", "2"};
  const std::vector<ExpertLoad> hot = ExtremeExperts(snapshot, kExtremeRanks, false);
  const std::vector<ExpertLoad> cold = ExtremeExperts(snapshot, kExtremeRanks, true);
  const auto write = [&](const MetricName& metric, auto value_of) {
    page.Begin(metric);
    for (size_t i = 0; i < hot.size(); ++i) page.Sample({{"end", "hot"}, {"rank", kRankNames[i]}}, value_of(hot[i]));
    for (size_t i = 0; i < cold.size(); ++i) page.Sample({{"end", "cold"}, {"rank", kRankNames[i]}}, value_of(cold[i]));
  };
  write(metric::kExtremeLoad, [](const ExpertLoad& load) { return load.ratio; });
  write(metric::kExtremeLayer, [&](const ExpertLoad& load) { return moe_layers[static_cast<size_t>(load.layer)]; });
  write(metric::kExtremeId, [](const ExpertLoad& load) { return load.expert; });
}

void WriteLayers(const ExpertSnapshot& snapshot, const std::vector<int32_t>& moe_layers, MetricPage& page) {
  CADRE_CHECK_EQ(moe_layers.size(), snapshot.total.size());
  const std::vector<RouterHealth> layers = WindowHealth(snapshot);
  const std::vector<std::string> numerals = Numerals(moe_layers);
  WriteLayerGauge(metric::kLayerLoadEntropy, layers, &RouterHealth::load_entropy, numerals, page);
  WriteLayerGauge(metric::kLayerGateEntropy, layers, &RouterHealth::gate_entropy, numerals, page);
  WriteLayerGauge(metric::kLayerLoadImbalance, layers, &RouterHealth::load_imbalance, numerals, page);
  WriteLayerGauge(metric::kLayerLoadVariation, layers, &RouterHealth::load_variation, numerals, page);
  WriteLayerGauge(metric::kLayerBalanceLoss, layers, &RouterHealth::balance_loss, numerals, page);
  WriteLayerGauge(metric::kLayerZLoss, layers, &RouterHealth::z_loss, numerals, page);
  WriteLayerGauge(metric::kLayerUnusedExperts, layers, &RouterHealth::unused_experts, numerals, page);
  WriteLayerGauge(metric::kLayerEffectiveExperts, layers, &RouterHealth::effective_experts, numerals, page);
  const auto write = [&](const MetricName& metric, const auto& value_of) {
    page.Begin(metric);
    for (size_t i = 0; i < layers.size(); ++i) page.Sample({{"layer", numerals[i]}}, int64_t{value_of(i)});
  };
  write(metric::kLayerDeadExperts, [&](size_t i) { return std::ssize(layers[i].dead_experts); });
  write(metric::kLayerHotExperts, [&](size_t i) { return std::ssize(layers[i].hot_experts); });
  page.Begin(metric::kLayerDrift);
  for (size_t i = 0; i < layers.size(); ++i) {
    page.Sample({{"layer", numerals[i]}}, i < snapshot.drift.size() ? snapshot.drift[i] : 0.0);
  }
  write(metric::kLayerCollapsed, [&](size_t i) { return snapshot.collapsed[i]; });
  page.Begin(metric::kLayerTokens);
  for (size_t i = 0; i < snapshot.total.size(); ++i) page.Sample({{"layer", numerals[i]}}, snapshot.total[i].tokens);
  page.Begin(metric::kLayerAssignments);
  for (size_t i = 0; i < snapshot.total.size(); ++i) {
    for (const StateLabel& state : kStateLabels) {
      page.Sample({{"layer", numerals[i]}, {"state", state.name}}, Sum(snapshot.total[i].*state.counts));
    }
  }
}

void WriteCacheLayers(const ExpertPlacement& placement, const std::vector<int32_t>& moe_layers, MetricPage& page) {
  CADRE_CHECK_EQ(moe_layers.size(), placement.counters.size());
  const std::vector<std::string> layers = Numerals(moe_layers);
  // A sample of each layer for each of some label's values.
  const auto write = [&](const MetricName& metric, const char* label, std::span<const CounterLabel> values) {
    page.Begin(metric);
    for (size_t i = 0; i < layers.size(); ++i) {
      for (const CounterLabel& value : values) {
        page.Sample({{"layer", layers[i]}, {label, value.name}}, placement.counters[i].*value.counter);
      }
    }
  };
  const auto write_single = [&](const MetricName& metric, int64_t SlotCounters::*counter) {
    page.Begin(metric);
    for (size_t i = 0; i < layers.size(); ++i) page.Sample({{"layer", layers[i]}}, placement.counters[i].*counter);
  };
  write(metric::kLayerExpertLookups, "result", kLookupLabels);
  write_single(metric::kLayerExpertLoads, &SlotCounters::loads_done);
  write_single(metric::kLayerExpertEvictions, &SlotCounters::evictions);
  write(metric::kLayerExpertPrefetches, "result", kPrefetchLabels);
  if (!placement.waits.empty()) {
    page.Begin(metric::kLayerExpertWaitSeconds);
    for (size_t i = 0; i < layers.size(); ++i) {
      page.Sample({{"layer", layers[i]}}, absl::ToDoubleSeconds(placement.waits[i]));
    }
  }
  const size_t num_experts = placement.tiers.size() / layers.size();
  page.Begin(metric::kLayerExperts);
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto tiers = std::span(placement.tiers).subspan(i * num_experts, num_experts);
    for (const auto& [name, tier] : kTierLabels) {
      page.Sample({{"layer", layers[i]}, {"tier", name}}, int64_t{std::ranges::count(tiers, tier)});
    }
  }
}

void WriteExpertMatrix(const ExpertSnapshot& snapshot, const std::vector<int32_t>& moe_layers, MetricPage& page) {
  CADRE_CHECK_EQ(moe_layers.size(), snapshot.total.size());
  std::vector<int32_t> expert_ids(static_cast<size_t>(snapshot.num_experts));
  std::iota(expert_ids.begin(), expert_ids.end(), 0);
  const std::vector<std::string> layers = Numerals(moe_layers);
  const std::vector<std::string> experts = Numerals(expert_ids);
  page.Begin(metric::kExpertAssignments);
  for (size_t i = 0; i < layers.size(); ++i) {
    for (size_t j = 0; j < experts.size(); ++j) {
      for (const StateLabel& state : kStateLabels) {
        page.Sample({{"layer", layers[i]}, {"expert", experts[j]}, {"state", state.name}},
                    (snapshot.total[i].*state.counts)[j]);
      }
    }
  }
  const auto write_weights = [&](const MetricName& metric, std::vector<double> LayerCounters::*weights) {
    page.Begin(metric);
    for (size_t i = 0; i < layers.size(); ++i) {
      for (size_t j = 0; j < experts.size(); ++j) {
        page.Sample({{"layer", layers[i]}, {"expert", experts[j]}}, (snapshot.total[i].*weights)[j]);
      }
    }
  };
  write_weights(metric::kExpertGateWeight, &LayerCounters::gate_weight);
  write_weights(metric::kExpertLostGateWeight, &LayerCounters::lost_gate_weight);
}

void WriteTenants(const std::vector<TenantRouting>& tenants, MetricPage& page) {
  page.Begin(metric::kTenantAssignments);
  for (const TenantRouting& one : tenants) {
    page.Sample({{"tenant", one.tenant}, {"state", "processed"}}, one.routing.processed);
    page.Sample({{"tenant", one.tenant}, {"state", "rerouted"}}, one.routing.rerouted);
    page.Sample({{"tenant", one.tenant}, {"state", "reweighted"}}, one.routing.reweighted);
    page.Sample({{"tenant", one.tenant}, {"state", "dropped"}}, one.routing.dropped);
  }
  page.Begin(metric::kTenantGateWeight);
  for (const TenantRouting& one : tenants) page.Sample({{"tenant", one.tenant}}, one.routing.total_gate_weight);
  page.Begin(metric::kTenantLostGateWeight);
  for (const TenantRouting& one : tenants) page.Sample({{"tenant", one.tenant}}, one.routing.lost_gate_weight);
}

}  // namespace cadre
