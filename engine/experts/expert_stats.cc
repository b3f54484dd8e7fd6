#include "engine/experts/expert_stats.h"

#include <algorithm>
#include <deque>
#include <mutex>
#include <utility>

#include "engine/base/check.h"

namespace cadre {
namespace {

// The window forgets this share of itself at a time.
constexpr int64_t kBucketsPerWindow = 8;

template <typename T>
void AddTo(std::vector<T>& sum, const std::vector<T>& x) {
  CADRE_CHECK_EQ(sum.size(), x.size());
  for (size_t i = 0; i < x.size(); ++i) sum[i] += x[i];
}

// All layers over one span of tokens, as flat arrays like those of StepRouting.
struct FlatCounters {
  int64_t tokens = 0;
  std::vector<int64_t> assignments;         // [num_layers, num_experts]
  std::vector<double> gate_weight;          // [num_layers, num_experts]
  std::vector<double> probability;          // [num_layers, num_experts]
  std::vector<double> squared_log_sum_exp;  // [num_layers]

  FlatCounters(size_t num_layers, size_t num_experts)
      : assignments(num_layers * num_experts),
        gate_weight(num_layers * num_experts),
        probability(num_layers * num_experts),
        squared_log_sum_exp(num_layers) {}

  // `Counters` is another FlatCounters or a StepRouting.
  template <typename Counters>
  void Add(const Counters& x, int64_t num_tokens) {
    tokens += num_tokens;
    AddTo(assignments, x.assignments);
    AddTo(gate_weight, x.gate_weight);
    AddTo(probability, x.probability);
    AddTo(squared_log_sum_exp, x.squared_log_sum_exp);
  }

  std::vector<LayerCounters> PerLayer() const {
    const size_t num_layers = squared_log_sum_exp.size();
    const size_t num_experts = num_layers == 0 ? 0 : assignments.size() / num_layers;
    std::vector<LayerCounters> layers(num_layers);
    for (size_t i = 0; i < num_layers; ++i) {
      const auto begin = static_cast<std::ptrdiff_t>(i * num_experts);
      const auto end = begin + static_cast<std::ptrdiff_t>(num_experts);
      layers[i].tokens = tokens;
      layers[i].processed.assign(assignments.begin() + begin, assignments.begin() + end);
      layers[i].rerouted.assign(num_experts, 0);
      layers[i].reweighted.assign(num_experts, 0);
      layers[i].dropped.assign(num_experts, 0);
      layers[i].gate_weight.assign(gate_weight.begin() + begin, gate_weight.begin() + end);
      layers[i].probability.assign(probability.begin() + begin, probability.begin() + end);
      layers[i].squared_log_sum_exp = squared_log_sum_exp[i];
    }
    return layers;
  }
};

}  // namespace

struct ExpertStats::State {
  State(int32_t layers, int32_t experts, int32_t k, int64_t window)
      : num_layers(layers),
        num_experts(experts),
        top_k(k),
        window_tokens(window),
        bucket_tokens(std::max<int64_t>(1, window / kBucketsPerWindow)),
        empty(static_cast<size_t>(layers), static_cast<size_t>(experts)),
        before_reset(empty),
        total(empty),
        closed_sum(empty),
        open(empty) {}

  // Constant after construction.
  const int32_t num_layers;
  const int32_t num_experts;
  const int32_t top_k;
  const int64_t window_tokens;
  const int64_t bucket_tokens;
  const FlatCounters empty;

  mutable std::mutex mutex;
  // Guarded by `mutex`. The window is closed_sum + open.
  FlatCounters before_reset;  // totals of all earlier resets
  FlatCounters total;
  std::deque<FlatCounters> closed;  // full buckets, oldest first
  FlatCounters closed_sum;          // of `closed`
  FlatCounters open;                // the bucket that is filling

  void CheckIdentity(const StepRouting& step) const;
  void CloseBucket();
  ExpertSnapshot Copy(bool since_start) const;
  ExpertSnapshot ToSnapshot(const FlatCounters& all, const FlatCounters& window) const;
};

// Every assignment is accounted for, layer by layer and over the sequences.
void ExpertStats::State::CheckIdentity(const StepRouting& step) const {
  CADRE_CHECK_EQ(step.num_layers, num_layers);
  CADRE_CHECK_EQ(step.num_experts, num_experts);
  CADRE_CHECK_EQ(step.top_k, top_k);
  CADRE_CHECK_EQ(step.assignments.size(), empty.assignments.size());
  const int64_t expected = step.num_tokens * top_k;
  const int64_t* layer = step.assignments.data();
  for (int32_t i = 0; i < num_layers; ++i, layer += num_experts) {
    int64_t sum = 0;
    for (int32_t e = 0; e < num_experts; ++e) {
      CADRE_CHECK_GE(layer[e], int64_t{0});
      sum += layer[e];
    }
    CADRE_CHECK_EQ(sum, expected);
  }
  int64_t sequences_sum = 0;
  for (int64_t n : step.sequence_assignments) sequences_sum += n;
  CADRE_CHECK_EQ(sequences_sum, expected * num_layers);
}

// Drops the oldest buckets that the window can spare. The sum is rebuilt, not subtracted from: floating-point
// differences would leave traces of what was forgotten.
void ExpertStats::State::CloseBucket() {
  closed.push_back(std::exchange(open, empty));
  int64_t tokens = 0;
  for (const FlatCounters& bucket : closed) tokens += bucket.tokens;
  while (tokens - closed.front().tokens >= window_tokens) {
    tokens -= closed.front().tokens;
    closed.pop_front();
  }
  closed_sum = empty;
  for (const FlatCounters& bucket : closed) closed_sum.Add(bucket, bucket.tokens);
}

ExpertStats::ExpertStats(int32_t num_layers, int32_t num_experts, int32_t top_k, int64_t window_tokens) {
  CADRE_CHECK_GE(num_layers, 0);
  CADRE_CHECK_GE(num_experts, 0);
  CADRE_CHECK_GE(window_tokens, int64_t{1});
  state_ = std::make_unique<State>(num_layers, num_experts, top_k, window_tokens);
}

ExpertStats::~ExpertStats() = default;

void ExpertStats::Record(const StepRouting& step) {
  state_->CheckIdentity(step);
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->total.Add(step, step.num_tokens);
  state_->open.Add(step, step.num_tokens);
  if (state_->open.tokens >= state_->bucket_tokens) state_->CloseBucket();
}

ExpertSnapshot ExpertStats::State::ToSnapshot(const FlatCounters& all, const FlatCounters& window) const {
  return {.num_layers = num_layers,
          .num_experts = num_experts,
          .top_k = top_k,
          .window_tokens = window.tokens,
          .total = all.PerLayer(),
          .window = window.PerLayer()};
}

ExpertSnapshot ExpertStats::Reset() {
  FlatCounters total = state_->empty;
  FlatCounters window = state_->empty;
  FlatCounters open = state_->empty;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->before_reset.Add(state_->total, state_->total.tokens);
    std::swap(total, state_->total);
    std::swap(window, state_->closed_sum);
    std::swap(open, state_->open);
    state_->closed.clear();
  }
  window.Add(open, open.tokens);
  return state_->ToSnapshot(total, window);
}

ExpertSnapshot ExpertStats::State::Copy(bool since_start) const {
  FlatCounters earlier = empty;
  FlatCounters all = empty;
  FlatCounters window = empty;
  FlatCounters filling = empty;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (since_start) earlier = before_reset;
    all = total;
    window = closed_sum;
    filling = open;
  }
  all.Add(earlier, earlier.tokens);
  window.Add(filling, filling.tokens);
  return ToSnapshot(all, window);
}

ExpertSnapshot ExpertStats::Snapshot() const { return state_->Copy(/*since_start=*/false); }
ExpertSnapshot ExpertStats::LifetimeSnapshot() const { return state_->Copy(/*since_start=*/true); }

}  // namespace cadre
