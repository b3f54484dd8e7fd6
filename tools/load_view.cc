#include "tools/load_view.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

constexpr int kBarCells = 20;
constexpr int kRankedExperts = 3;
constexpr double kWarnShare = 0.75;
constexpr double kHotImbalance = 2.0;
// As the alert rules have them.
constexpr double kWarnLost = 0.01;
constexpr double kAlarmLost = 0.10;
constexpr char kGreen[] = "\x1b[32m";
constexpr char kYellow[] = "\x1b[33m";
constexpr char kRed[] = "\x1b[31m";
constexpr char kBold[] = "\x1b[1m";
constexpr char kReset[] = "\x1b[0m";

double Seconds(const google::protobuf::Timestamp& time) {
  return static_cast<double>(time.seconds()) + 1e-9 * time.nanos();
}

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + 1e-9 * duration.nanos();
}

double Share(double part, double whole) { return whole > 0.0 ? std::clamp(part / whole, 0.0, 1.0) : 0.0; }

// Lines that are cut to the width of the view; colors take no columns.
class Lines {
 public:
  explicit Lines(const ViewSize& size) : size_(size) {}

  int rows_left() const { return size_.rows - num_lines_; }

  void Add(const std::string& text, const char* color = nullptr) {
    if (rows_left() <= 0) return;
    const std::string cut = Cut(text);
    text_ += size_.color && color != nullptr ? absl::StrCat(color, cut, kReset) : cut;
    text_ += '\n';
    ++num_lines_;
  }

  std::string Take() { return std::move(text_); }

 private:
  // The first columns of UTF-8 text of narrow characters.
  std::string Cut(const std::string& text) const {
    int columns = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const bool begins_character = (static_cast<unsigned char>(text[i]) & 0xc0) != 0x80;
      if (begins_character && ++columns > size_.columns) return text.substr(0, i);
    }
    return text;
  }

  const ViewSize size_;
  std::string text_;
  int num_lines_ = 0;
};

std::string Gauge(const char* name, double share, const std::string& note) {
  const int full = static_cast<int>(std::lround(share * kBarCells));
  std::string bar;
  for (int i = 0; i < kBarCells; ++i) bar += i < full ? "█" : "░";
  return absl::StrFormat("%-9s%s %3.0f %%  %s", name, bar, 100.0 * share, note);
}

const char* GaugeColor(double share) { return share > 0.95 ? kRed : share > kWarnShare ? kYellow : kGreen; }

const char* StateName(v1::ModelState state) {
  switch (state) {
    case v1::MODEL_STATE_LOADING:
      return "loading";
    case v1::MODEL_STATE_READY:
      return "ready";
    case v1::MODEL_STATE_DRAINING:
      return "draining";
    default:
      return "unknown";
  }
}

// Where not all experts are in device memory. Each line fits into 80 columns.
void AddCache(const v1::GetPlacementResponse& placement, Lines& lines) {
  const v1::PlacementTotals& totals = placement.totals();
  const int64_t experts = totals.device() + totals.host() + totals.disk();
  if (placement.device_slots() >= experts) return;
  const double share = Share(static_cast<double>(totals.device()), static_cast<double>(experts));
  lines.Add(Gauge("residing", share, absl::StrFormat("%d of %d experts", totals.device(), experts)));
  const auto lookups = static_cast<double>(totals.hits() + totals.misses());
  lines.Add(absl::StrFormat("cache    %.1f %% hits since the start, %d on their way, %d pinned, %d cannot be read",
                            100.0 * Share(static_cast<double>(totals.hits()), lookups), totals.loading(),
                            totals.pinned(), totals.quarantined()),
            totals.quarantined() > 0 ? kRed : nullptr);
  if (totals.loaded_bytes() == 0 && totals.load_errors() == 0) return;
  constexpr double kGibibyte = 1 << 30;
  lines.Add(absl::StrFormat("read     %.1f GiB, waited %.1f s, %d gave way, ahead: %d in time, %d late, %d in vain; "
                            "%d errors",
                            static_cast<double>(totals.loaded_bytes()) / kGibibyte, Seconds(totals.wait()),
                            totals.evictions(), totals.prefetches_used(), totals.prefetches_late(),
                            totals.prefetches_wasted(), totals.load_errors()),
            totals.load_errors() > 0 ? kYellow : nullptr);
}

void AddLoad(const v1::ModelLoad& load, const LoadRates& rates, Lines& lines) {
  const double running = Share(static_cast<double>(load.running_requests()), load.max_running_requests());
  lines.Add(Gauge("running", running,
                  absl::StrFormat("%d of %d sequences", load.running_requests(), load.max_running_requests())),
            GaugeColor(running));
  const double waiting = Share(static_cast<double>(load.waiting_requests()), load.max_waiting_requests());
  lines.Add(Gauge("waiting", waiting,
                  absl::StrFormat("%d of %d requests, %d tokens, oldest %.2f s", load.waiting_requests(),
                                  load.max_waiting_requests(), load.waiting_tokens(), Seconds(load.oldest_wait()))),
            GaugeColor(waiting));
  const double kv = Share(load.kv_blocks_in_use(), load.kv_blocks_total());
  lines.Add(Gauge("KV cache", kv,
                  absl::StrFormat("%d of %d blocks in use, %d cached", load.kv_blocks_in_use(), load.kv_blocks_total(),
                                  load.kv_blocks_cached())),
            GaugeColor(kv));
  if (rates.has_cache_queries) {
    lines.Add(Gauge("prefixes", rates.cache_hit_share, "of the prompt tokens were found in the prefix cache"));
  }
  lines.Add(absl::StrFormat("requests %9.1f in/s %9.1f finished/s %9.1f not well/s", rates.admitted, rates.finished,
                            rates.failed));
  lines.Add(absl::StrFormat("tokens   %9.1f prefill/s %9.1f decode/s %9.1f to clients/s", rates.prefill_tokens,
                            rates.decode_tokens, rates.generated_tokens));
  lines.Add(absl::StrFormat("steps    %9.1f /s, %d preemptions since the start", rates.steps, load.preemptions()));
}

// A list that the server left out holds zeros.
int64_t LoadOf(const v1::LayerStats& layer, int expert) {
  return layer.processed(expert) + (expert < layer.rerouted_size() ? layer.rerouted(expert) : 0);
}

// "12 (18.2%)" of the experts with the most load, or the least.
std::string RankedExperts(const v1::LayerStats& layer, bool hottest) {
  std::vector<std::pair<int64_t, int>> loads;
  int64_t sum = 0;
  for (int i = 0; i < layer.processed_size(); ++i) {
    loads.emplace_back(LoadOf(layer, i), i);
    sum += loads.back().first;
  }
  const size_t count = std::min<size_t>(kRankedExperts, loads.size());
  std::partial_sort(loads.begin(), loads.begin() + static_cast<std::ptrdiff_t>(count), loads.end(),
                    [hottest](const auto& a, const auto& b) {
                      if (a.first != b.first) return hottest ? a.first > b.first : a.first < b.first;
                      return a.second < b.second;
                    });
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    absl::StrAppendFormat(&text, "%4d %4.1f%%", loads[i].second,
                          100.0 * Share(static_cast<double>(loads[i].first), static_cast<double>(sum)));
  }
  return text;
}

std::string ExpertBars(const v1::LayerStats& layer) {
  static constexpr const char* kBars[] = {"·", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  double sum = 0.0;
  for (int i = 0; i < layer.processed_size(); ++i) sum += static_cast<double>(LoadOf(layer, i));
  const double mean = sum / std::max(1, layer.processed_size());
  std::string bars;
  for (int i = 0; i < layer.processed_size(); ++i) {
    const auto load = static_cast<double>(LoadOf(layer, i));
    bars += kBars[load > 0.0 ? static_cast<int>(std::clamp(std::ceil(load / mean * 4), 1.0, 8.0)) : 0];
  }
  return bars;
}

// The layers with the most uneven load, as many as there is room for, in the order of the model.
std::vector<const v1::LayerStats*> ShownLayers(const v1::ExpertStats& stats, int count) {
  std::vector<const v1::LayerStats*> layers;
  for (const v1::LayerStats& layer : stats.window()) layers.push_back(&layer);
  std::stable_sort(layers.begin(), layers.end(), [](const v1::LayerStats* a, const v1::LayerStats* b) {
    return a->health().load_imbalance() > b->health().load_imbalance();
  });
  if (static_cast<int>(layers.size()) > count) layers.resize(static_cast<size_t>(std::max(0, count)));
  std::sort(layers.begin(), layers.end(), [](const auto* a, const auto* b) { return a->layer() < b->layer(); });
  return layers;
}

// What the layer's experts did, and what of it was lost.
struct Losses {
  int64_t assignments = 0;
  int64_t lost = 0;
  double gate_weight = 0.0;
  double lost_gate_weight = 0.0;

  void Add(const v1::LayerStats& layer) {
    const auto sum = [](const auto& list) { return std::accumulate(list.begin(), list.end(), int64_t{0}); };
    const int64_t lost_here = sum(layer.reweighted()) + sum(layer.dropped());
    assignments += sum(layer.processed()) + sum(layer.rerouted()) + lost_here;
    lost += lost_here;
    gate_weight = std::accumulate(layer.gate_weight().begin(), layer.gate_weight().end(), gate_weight);
    lost_gate_weight =
        std::accumulate(layer.lost_gate_weight().begin(), layer.lost_gate_weight().end(), lost_gate_weight);
  }
  double share() const { return Share(static_cast<double>(lost), static_cast<double>(assignments)); }
};

// The state of all routers: what was lost, and who is not as it should be. Each line fits into 80 columns.
void AddHealth(const v1::ExpertStats& stats, Lines& lines) {
  Losses losses;
  int collapsed = 0;
  int dead = 0;
  int hot = 0;
  for (const v1::LayerStats& layer : stats.window()) {
    losses.Add(layer);
    collapsed += layer.health().collapsed() ? 1 : 0;
    dead += layer.health().dead_experts_size();
    hot += layer.health().hot_experts_size();
  }
  lines.Add(absl::StrFormat("lost     %.2f %% of assignments, %.2f %% of gate weight", 100.0 * losses.share(),
                            100.0 * Share(losses.lost_gate_weight, losses.gate_weight)),
            losses.share() > kAlarmLost  ? kRed
            : losses.share() > kWarnLost ? kYellow
                                         : kGreen);
  lines.Add(absl::StrFormat("routers  collapsed layers %d, dead experts %d, hot experts %d", collapsed, dead, hot),
            collapsed > 0 ? kRed : kGreen);
}

void AddExperts(const v1::ExpertStats& stats, Lines& lines) {
  lines.Add("");
  lines.Add(absl::StrFormat("experts  %d a layer, %d per token, the last %d tokens", stats.num_experts(), stats.top_k(),
                            stats.window_tokens()),
            kBold);
  AddHealth(stats, lines);
  lines.Add("layer imbal. entropy   lost  hottest experts              coldest experts              load of each");
  const int room = lines.rows_left();
  const bool all_fit = stats.window_size() <= room;
  const auto layers = ShownLayers(stats, all_fit ? room : room - 1);
  for (const v1::LayerStats* layer : layers) {
    const v1::RouterHealth& health = layer->health();
    Losses losses;
    losses.Add(*layer);
    lines.Add(absl::StrFormat("%5d %6.2f %7.3f %5.1f%%  %-28s %-28s ", layer->layer(), health.load_imbalance(),
                              health.load_entropy(), 100.0 * losses.share(), RankedExperts(*layer, true),
                              RankedExperts(*layer, false)) +
                  ExpertBars(*layer),
              health.collapsed()                        ? kRed
              : health.load_imbalance() > kHotImbalance ? kYellow
                                                        : nullptr);
  }
  if (!all_fit) {
    lines.Add(absl::StrFormat("%d more layers, all more even than these",
                              stats.window_size() - static_cast<int>(layers.size())));
  }
}

}  // namespace

LoadRates RatesBetween(const v1::ModelLoad& before, const v1::ModelLoad& after) {
  LoadRates rates;
  const bool is_same_run =
      before.has_time() && before.steps() <= after.steps() && before.admitted_requests() <= after.admitted_requests();
  rates.seconds = is_same_run ? Seconds(after.time()) - Seconds(before.time()) : 0.0;
  if (!(rates.seconds > 0.0)) return rates;
  const auto rate = [&](int64_t from, int64_t to) { return static_cast<double>(to - from) / rates.seconds; };
  const auto not_well = [](const v1::ModelLoad& load) {
    return load.cancelled_requests() + load.deadline_exceeded_requests() + load.failed_requests();
  };
  rates.admitted = rate(before.admitted_requests(), after.admitted_requests());
  rates.failed = rate(not_well(before), not_well(after));
  rates.finished = rate(before.finished_requests(), after.finished_requests()) + rates.failed;
  rates.prefill_tokens = rate(before.prefill_tokens(), after.prefill_tokens());
  rates.decode_tokens = rate(before.decode_tokens(), after.decode_tokens());
  rates.generated_tokens = rate(before.generated_tokens(), after.generated_tokens());
  rates.steps = rate(before.steps(), after.steps());
  const int64_t queries = after.prefix_cache_query_tokens() - before.prefix_cache_query_tokens();
  const int64_t hits = after.prefix_cache_hit_tokens() - before.prefix_cache_hit_tokens();
  rates.has_cache_queries = queries > 0;
  rates.cache_hit_share = Share(static_cast<double>(hits), static_cast<double>(queries));
  return rates;
}

std::string FormatLoadView(const LoadSample& sample, const LoadRates& rates, const ViewSize& size) {
  Lines lines(size);
  std::string heading = absl::StrFormat("%s  %s", sample.model.name(), StateName(sample.load.state()));
  if (sample.load.state() == v1::MODEL_STATE_LOADING) {
    absl::StrAppendFormat(&heading, " %.0f %%", 100.0 * sample.model.load_progress());
  } else {
    absl::StrAppend(&heading, "  ", sample.model.execution().device(), "  ", sample.model.execution().kernels());
  }
  lines.Add(WithoutControlCharacters(heading), kBold);
  AddLoad(sample.load, rates, lines);
  if (sample.placement) AddCache(*sample.placement, lines);
  if (sample.experts) AddExperts(*sample.experts, lines);
  return lines.Take();
}

}  // namespace cadre
