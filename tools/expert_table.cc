#include "tools/expert_table.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace cadre {
namespace {

// Eighths of a cell, upwards and to the right. The mean load is half a cell high.
constexpr const char* kUpwards[] = {"·", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr const char* kRightwards[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
constexpr int kEighths = 8;
constexpr int kMinCells = 16;

int64_t Load(const v1::LayerStats& layer, int expert) { return layer.processed(expert) + layer.rerouted(expert); }

int64_t TotalLoad(const v1::LayerStats& layer) {
  int64_t sum = 0;
  for (int i = 0; i < layer.processed_size(); ++i) sum += Load(layer, i);
  return sum;
}

// An expert without any load is a dot; one with any load is at least the lowest bar.
const char* LoadCell(int64_t load, double mean) {
  if (load == 0) return kUpwards[0];
  const double eighths = std::ceil(static_cast<double>(load) / mean * kEighths / 2);
  return kUpwards[static_cast<int>(std::clamp(eighths, 1.0, double{kEighths}))];
}

std::string Bar(double share, int cells) {
  int eighths = static_cast<int>(std::lround(share * cells * kEighths));
  std::string bar;
  for (; eighths >= kEighths; eighths -= kEighths) bar += kRightwards[kEighths];
  return bar + kRightwards[eighths];
}

std::string Heading(const v1::ExpertStats& stats, bool total) {
  const int num_layers = total ? stats.total_size() : stats.window_size();
  const int64_t tokens = total ? (num_layers > 0 ? stats.total(0).tokens() : 0) : stats.window_tokens();
  return absl::StrFormat("%s: %d experts a layer, %d per token; %s %d tokens\n", stats.model(), stats.num_experts(),
                         stats.top_k(), total ? "all" : "the last", tokens);
}

}  // namespace

std::string FormatExpertTable(const v1::ExpertStats& stats, bool total, int columns) {
  std::string text = Heading(stats, total);
  absl::StrAppend(&text, "layer  imbalance  entropy   gate  unused     lost  load (▄ is the mean, █ twice it)\n");
  for (const v1::LayerStats& layer : total ? stats.total() : stats.window()) {
    const v1::RouterHealth& health = layer.health();
    int64_t lost = 0;
    for (int i = 0; i < layer.processed_size(); ++i) lost += layer.reweighted(i) + layer.dropped(i);
    const std::string prefix =
        absl::StrFormat("%5d  %9.2f  %7.3f  %5.3f  %6d  %7d  ", layer.layer(), health.load_imbalance(),
                        health.load_entropy(), health.gate_entropy(), health.unused_experts(), lost);
    text += prefix;
    const int prefix_columns = static_cast<int>(prefix.size());
    const int cells = std::max(kMinCells, columns - prefix_columns);
    const double mean = static_cast<double>(TotalLoad(layer)) / std::max(1, layer.processed_size());
    for (int i = 0; i < layer.processed_size(); ++i) {
      if (i > 0 && i % cells == 0) absl::StrAppend(&text, "\n", std::string(prefix.size(), ' '));
      text += LoadCell(Load(layer, i), mean);
    }
    text += "\n";
  }
  return text;
}

std::string FormatLayerTable(const v1::ExpertStats& stats, const v1::LayerStats& layer, bool total, int columns) {
  const v1::RouterHealth& health = layer.health();
  std::string text = Heading(stats, total);
  absl::StrAppendFormat(&text,
                        "layer %d: imbalance %.2f, load entropy %.3f, gate entropy %.3f, variation %.2f, balance loss "
                        "%.3f, z-loss %.2f, unused %d\n",
                        layer.layer(), health.load_imbalance(), health.load_entropy(), health.gate_entropy(),
                        health.load_variation(), health.balance_loss(), health.z_loss(), health.unused_experts());
  absl::StrAppend(&text, "expert   processed  rerouted  reweighted   dropped  gate weight    load\n");
  const double sum = static_cast<double>(TotalLoad(layer));
  int64_t largest = 1;
  for (int i = 0; i < layer.processed_size(); ++i) largest = std::max(largest, Load(layer, i));
  for (int i = 0; i < layer.processed_size(); ++i) {
    const std::string prefix = absl::StrFormat(
        "%6d  %10d  %8d  %10d  %8d  %11.1f  %5.1f%% ", i, layer.processed(i), layer.rerouted(i), layer.reweighted(i),
        layer.dropped(i), layer.gate_weight(i), sum > 0.0 ? 100.0 * static_cast<double>(Load(layer, i)) / sum : 0.0);
    const int cells = std::max(kMinCells / 2, columns - static_cast<int>(prefix.size()) - 1);
    const double share = static_cast<double>(Load(layer, i)) / static_cast<double>(largest);
    absl::StrAppend(&text, prefix, Bar(share, cells), "\n");
  }
  return text;
}

}  // namespace cadre
