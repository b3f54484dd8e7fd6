#include "server/expert_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "engine/text/token_class.h"
#include "nlohmann/json.hpp"

namespace cadre {
namespace {

// Digits of weights: the page shows three.
constexpr int kPrecision = 6;

template <typename Number>
void AppendNumber(Number value, std::string& json) {
  char buffer[32];
  std::to_chars_result result{};
  if constexpr (std::is_floating_point_v<Number>) {
    // JSON has no other numbers.
    CADRE_CHECK(std::isfinite(value));
    result = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::general, kPrecision);
  } else {
    result = std::to_chars(buffer, buffer + sizeof(buffer), value);
  }
  json.append(buffer, result.ptr);
}

template <typename Number>
void AppendList(std::string_view name, const std::vector<Number>& list, std::string& json) {
  if (std::none_of(list.begin(), list.end(), [](Number x) { return x != Number{0}; })) return;
  json += ",\"";
  json += name;
  json += "\":";
  char separator = '[';
  for (const Number x : list) {
    json += separator;
    AppendNumber(x, json);
    separator = ',';
  }
  json += ']';
}

void AppendLayer(const LayerCounters& counters, int32_t layer, bool collapsed, const double* drift, std::string& json) {
  absl::StrAppend(&json, "{\"layer\":", layer, ",\"tokens\":", counters.tokens,
                  ",\"collapsed\":", collapsed ? "true" : "false");
  if (drift != nullptr) {
    json += ",\"drift\":";
    AppendNumber(*drift, json);
  }
  AppendList("processed", counters.processed, json);
  AppendList("rerouted", counters.rerouted, json);
  AppendList("reweighted", counters.reweighted, json);
  AppendList("dropped", counters.dropped, json);
  AppendList("gate_weight", counters.gate_weight, json);
  AppendList("lost_gate_weight", counters.lost_gate_weight, json);
  json += '}';
}

void AppendCache(const ExpertCacheReport& cache, std::string& json) {
  const SlotCounters& slots = cache.slots;
  absl::StrAppend(&json, ",\"cache\":{\"slots\":", cache.num_slots, ",\"hits\":", slots.hits,
                  ",\"misses\":", slots.misses, ",\"loaded_bytes\":", cache.loads.bytes, ",\"wait_seconds\":");
  AppendNumber(absl::ToDoubleSeconds(cache.wait_time), json);
  absl::StrAppend(&json, ",\"evictions\":", slots.evictions, ",\"prefetches_used\":", slots.prefetches_used,
                  ",\"prefetches_late\":", slots.prefetches_late, ",\"prefetches_wasted\":", slots.prefetches_wasted,
                  ",\"quarantined\":", cache.quarantined, "}");
}

void AppendKinds(const ProfileCounts& counts, size_t cell, std::string& json) {
  std::vector<std::pair<int64_t, size_t>> kinds;  // count, class
  int64_t sum = 0;
  for (size_t i = 0; i < counts.class_tokens.size(); ++i) {
    const int64_t count = counts.class_assignments[i * counts.assignments.size() + cell];
    sum += count;
    if (count > 0) kinds.emplace_back(count, i);
  }
  std::sort(kinds.begin(), kinds.end(),
            [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  json += '[';
  for (size_t i = 0; i < std::min(kKindsOfExpert, kinds.size()); ++i) {
    absl::StrAppend(&json, i > 0 ? "," : "", kinds[i].second, ",", (100 * kinds[i].first + sum / 2) / sum);
  }
  json += ']';
}

// Invalid UTF-8 cannot be in JSON.
std::string Quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string Head(const std::string& model, double seconds) {
  std::string json = absl::StrCat("{\"model\":", model, ",\"time\":");
  absl::StrAppendFormat(&json, "%.3f", seconds);
  return json;
}

}  // namespace

std::string ExpertJson(std::string_view model, const ExpertSnapshot& snapshot, const std::vector<int32_t>& moe_layers,
                       bool window, double seconds, const std::optional<ExpertCacheReport>& cache) {
  const std::vector<LayerCounters>& layers = window ? snapshot.window : snapshot.total;
  CADRE_CHECK_EQ(moe_layers.size(), layers.size());
  const int64_t fit = kMaxExpertJsonCells / std::max(1, snapshot.num_experts);
  const size_t told = std::min(layers.size(), static_cast<size_t>(fit));
  std::string json = Head(Quoted(model), seconds);
  absl::StrAppend(&json, ",\"num_experts\":", snapshot.num_experts, ",\"top_k\":", snapshot.top_k,
                  ",\"omitted_layers\":", layers.size() - told);
  if (cache) AppendCache(*cache, json);
  json += ",\"layers\":[";
  for (size_t i = 0; i < told; ++i) {
    if (i > 0) json += ',';
    AppendLayer(layers[i], moe_layers[i], i < snapshot.collapsed.size() && snapshot.collapsed[i] != 0,
                i < snapshot.drift.size() ? &snapshot.drift[i] : nullptr, json);
  }
  return json + "]}\n";
}

std::string ExpertKindsJson(const ProfileCounts& counts, const std::vector<int32_t>& moe_layers) {
  std::string json = "{\"classes\":[";
  for (size_t i = 0; i < counts.class_tokens.size(); ++i) {
    json += i > 0 ? ",\"" : "\"";
    json += TokenClassName(static_cast<TokenClass>(i));
    json += '"';
  }
  json += "],\"layers\":[";
  const auto experts = static_cast<size_t>(counts.shape.num_experts);
  const size_t num_layers = experts == 0 || counts.assignments.empty() ? 0 : moe_layers.size();
  const size_t told = std::min(num_layers, static_cast<size_t>(kMaxExpertJsonCells) / std::max<size_t>(1, experts));
  for (size_t layer = 0; layer < told; ++layer) {
    absl::StrAppend(&json, layer > 0 ? ",{\"layer\":" : "{\"layer\":", moe_layers[layer], ",\"kinds\":[");
    for (size_t e = 0; e < experts; ++e) {
      if (e > 0) json += ',';
      AppendKinds(counts, layer * experts + e, json);
    }
    json += "]}";
  }
  return json + "]}\n";
}

std::string EmptyExpertJson(double seconds) {
  return Head("null", seconds) + ",\"num_experts\":0,\"top_k\":0,\"omitted_layers\":0,\"layers\":[]}\n";
}

}  // namespace cadre
