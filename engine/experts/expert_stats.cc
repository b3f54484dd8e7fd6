#include "engine/experts/expert_stats.h"

#include <algorithm>
#include <deque>
#include <mutex>
#include <numeric>
#include <span>
#include <utility>

#include "engine/base/check.h"
#include "engine/experts/collapse_detector.h"
#include "kernels/capacity.h"

namespace cadre {
namespace {

// The window forgets this share of itself at a time.
constexpr int64_t kBucketsPerWindow = 8;

template <typename T>
void AddTo(std::vector<T>& sum, const std::vector<T>& x) {
  CADRE_CHECK_EQ(sum.size(), x.size());
  for (size_t i = 0; i < x.size(); ++i) sum[i] += x[i];
}

// The same of counters that are not there before the first step that has them.
template <typename T>
void AddToOptional(std::vector<T>& sum, const std::vector<T>& x) {
  if (x.empty()) return;
  if (sum.empty()) sum.resize(x.size());
  AddTo(sum, x);
}

// All layers over one span of tokens, as flat arrays like those of StepRouting.
struct FlatCounters {
  int64_t tokens = 0;
  std::vector<int64_t> assignments;         // [num_layers, num_experts]
  std::vector<double> gate_weight;          // [num_layers, num_experts]
  std::vector<double> probability;          // [num_layers, num_experts]
  std::vector<double> squared_log_sum_exp;  // [num_layers]
  // Empty until experts are limited.
  std::vector<int64_t> limited;          // [num_layers, num_experts] of the assignments, those of limited steps
  std::vector<int64_t> states;           // [num_layers, 4, num_experts] what became of these
  std::vector<double> lost_gate_weight;  // [num_layers, num_experts]

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
    AddToOptional(limited, LimitedOf(x));
    AddToOptional(states, x.states);
    AddToOptional(lost_gate_weight, x.lost_gate_weight);
  }
  static const std::vector<int64_t>& LimitedOf(const FlatCounters& x) { return x.limited; }
  static const std::vector<int64_t>& LimitedOf(const StepRouting& x) {
    return x.is_limited() ? x.assignments : x.states;
  }

  std::vector<LayerCounters> PerLayer() const {
    const size_t num_layers = squared_log_sum_exp.size();
    const size_t num_experts = num_layers == 0 ? 0 : assignments.size() / num_layers;
    std::vector<LayerCounters> layers(num_layers);
    for (size_t i = 0; i < num_layers; ++i) {
      const auto begin = static_cast<std::ptrdiff_t>(i * num_experts);
      const auto end = begin + static_cast<std::ptrdiff_t>(num_experts);
      layers[i].tokens = tokens;
      layers[i].assignments = std::accumulate(assignments.begin() + begin, assignments.begin() + end, int64_t{0});
      layers[i].chosen.assign(assignments.begin() + begin, assignments.begin() + end);
      layers[i].processed = layers[i].chosen;
      layers[i].rerouted = StatesOf(i, AssignmentState::kRerouted, num_experts);
      layers[i].reweighted = StatesOf(i, AssignmentState::kReweighted, num_experts);
      layers[i].dropped = StatesOf(i, AssignmentState::kDropped, num_experts);
      layers[i].lost_gate_weight.assign(num_experts, 0.0);
      if (!states.empty()) {
        const std::vector<int64_t> done = StatesOf(i, AssignmentState::kProcessed, num_experts);
        for (size_t e = 0; e < num_experts; ++e) {
          layers[i].processed[e] += done[e] - limited[i * num_experts + e];
          layers[i].lost_gate_weight[e] = lost_gate_weight[i * num_experts + e];
        }
      }
      layers[i].gate_weight.assign(gate_weight.begin() + begin, gate_weight.begin() + end);
      layers[i].probability.assign(probability.begin() + begin, probability.begin() + end);
      layers[i].squared_log_sum_exp = squared_log_sum_exp[i];
    }
    return layers;
  }

  // Of one layer, [num_experts].
  std::vector<int64_t> StatesOf(size_t layer, AssignmentState state, size_t num_experts) const {
    if (states.empty()) return std::vector<int64_t>(num_experts);
    const size_t row = layer * static_cast<size_t>(kNumAssignmentStates) + static_cast<size_t>(state);
    const auto begin = states.begin() + static_cast<std::ptrdiff_t>(row * num_experts);
    return {begin, begin + static_cast<std::ptrdiff_t>(num_experts)};
  }
};

// What tokens chose in a layer: K each, or so many as were counted by row.
int64_t ExpectedAssignments(const StepRouting& step, size_t layer) {
  if (step.row_assignments.empty()) {
    CADRE_CHECK_EQ(step.min_k, kAlwaysTopK);
    return step.num_tokens * step.top_k;
  }
  const int64_t counted = step.row_assignments.at(layer);
  CADRE_CHECK_LE(counted, step.num_tokens * step.top_k);
  CADRE_CHECK_GE(counted, step.num_tokens * (step.min_k == kAlwaysTopK ? step.top_k : step.min_k));
  return counted;
}

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
        open(empty),
        collapse(static_cast<size_t>(layers)) {}

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
  std::deque<FlatCounters> closed;                       // full buckets, oldest first
  FlatCounters closed_sum;                               // of `closed`
  FlatCounters open;                                     // the bucket that is filling
  CollapseDetector collapse;                             // of the closed buckets
  std::shared_ptr<const std::vector<int64_t>> baseline;  // [num_layers, num_experts] choices

  void CheckIdentity(const StepRouting& step) const;
  void CheckStates(const StepRouting& step) const;
  void CloseBucket();
  std::vector<double> DriftOf(const std::vector<LayerCounters>& window, const std::vector<int64_t>* reference) const;
  // As `empty`, with room for all that counters may have: what is copied into it under the mutex allocates nothing.
  FlatCounters Room() const;
  ExpertSnapshot ToSnapshot(const FlatCounters& all, const FlatCounters& window, std::vector<uint8_t> collapsed) const;
};

// Every assignment is accounted for, layer by layer and over the sequences.
void ExpertStats::State::CheckIdentity(const StepRouting& step) const {
  CADRE_CHECK_EQ(step.num_layers, num_layers);
  CADRE_CHECK_EQ(step.num_experts, num_experts);
  CADRE_CHECK_EQ(step.top_k, top_k);
  CADRE_CHECK_EQ(step.assignments.size(), empty.assignments.size());
  int64_t expected_sum = 0;
  const int64_t* layer = step.assignments.data();
  for (int32_t i = 0; i < num_layers; ++i, layer += num_experts) {
    const int64_t expected = ExpectedAssignments(step, static_cast<size_t>(i));
    expected_sum += expected;
    int64_t sum = 0;
    for (int32_t e = 0; e < num_experts; ++e) {
      CADRE_CHECK_GE(layer[e], int64_t{0});
      sum += layer[e];
    }
    CADRE_CHECK_EQ(sum, expected);
  }
  int64_t sequences_sum = 0;
  for (int64_t n : step.sequence_assignments) sequences_sum += n;
  CADRE_CHECK_EQ(sequences_sum, expected_sum);
  if (step.is_limited()) CheckStates(step);
}

// Every assignment is in exactly one state: layer by layer, expert by expert, and sequence by sequence.
void ExpertStats::State::CheckStates(const StepRouting& step) const {
  const auto experts = static_cast<size_t>(num_experts);
  const auto num_states = static_cast<size_t>(kNumAssignmentStates);
  CADRE_CHECK_EQ(step.states.size(), num_states * step.assignments.size());
  CADRE_CHECK_EQ(step.lost_gate_weight.size(), step.assignments.size());
  CADRE_CHECK_EQ(step.sequence_states.size(), num_states * step.sequence_assignments.size());
  for (size_t layer = 0; layer < static_cast<size_t>(num_layers); ++layer) {
    const int64_t* const of_layer = step.states.data() + layer * num_states * experts;
    const auto count = [&](AssignmentState state, size_t e) {
      return of_layer[static_cast<size_t>(state) * experts + e];
    };
    CADRE_CHECK_EQ(std::accumulate(of_layer, of_layer + num_states * experts, int64_t{0}),
                   ExpectedAssignments(step, layer));
    int64_t came = 0;
    int64_t went = 0;
    for (size_t e = 0; e < experts; ++e) {
      for (size_t state = 0; state < num_states; ++state) CADRE_CHECK_GE(of_layer[state * experts + e], int64_t{0});
      came += count(AssignmentState::kRerouted, e);
      // What was chosen here and neither processed nor lost went elsewhere.
      const int64_t elsewhere = step.assignments[layer * experts + e] - count(AssignmentState::kProcessed, e) -
                                count(AssignmentState::kReweighted, e) - count(AssignmentState::kDropped, e);
      CADRE_CHECK_GE(elsewhere, int64_t{0});
      went += elsewhere;
    }
    CADRE_CHECK_EQ(came, went);
  }
  for (size_t state = 0; state < num_states; ++state) {
    int64_t of_layers = 0;
    for (size_t row = state; row < static_cast<size_t>(num_layers) * num_states; row += num_states) {
      const auto begin = step.states.begin() + static_cast<std::ptrdiff_t>(row * experts);
      of_layers = std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(experts), of_layers);
    }
    int64_t of_sequences = 0;
    for (size_t i = state; i < step.sequence_states.size(); i += num_states) of_sequences += step.sequence_states[i];
    CADRE_CHECK_EQ(of_sequences, of_layers);
  }
  for (size_t s = 0; s < step.sequence_assignments.size(); ++s) {
    const auto begin = step.sequence_states.begin() + static_cast<std::ptrdiff_t>(s * num_states);
    CADRE_CHECK_EQ(std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(num_states), int64_t{0}),
                   step.sequence_assignments[s]);
  }
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
  // A few microseconds for each layer, once in an eighth of a window.
  const std::span<const int64_t> chosen(closed_sum.assignments);
  const auto experts = static_cast<size_t>(num_experts);
  for (size_t i = 0; i < static_cast<size_t>(num_layers); ++i) {
    collapse.Observe(i, chosen.subspan(i * experts, experts), closed_sum.tokens);
  }
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

ExpertSnapshot ExpertStats::State::ToSnapshot(const FlatCounters& all, const FlatCounters& window,
                                              std::vector<uint8_t> collapsed) const {
  return {.num_layers = num_layers,
          .num_experts = num_experts,
          .top_k = top_k,
          .window_tokens = window.tokens,
          .total = all.PerLayer(),
          .window = window.PerLayer(),
          .lifetime = {},
          .collapsed = std::move(collapsed),
          .drift = {}};
}

void ExpertStats::SetBaseline(std::vector<int64_t> chosen) {
  CADRE_CHECK_EQ(chosen.size(), state_->empty.assignments.size());
  auto baseline = std::make_shared<const std::vector<int64_t>>(std::move(chosen));
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->baseline.swap(baseline);
}

std::vector<double> ExpertStats::State::DriftOf(const std::vector<LayerCounters>& window,
                                                const std::vector<int64_t>* reference) const {
  std::vector<double> drift;
  if (reference == nullptr) return drift;
  const auto experts = static_cast<size_t>(num_experts);
  for (size_t i = 0; i < window.size(); ++i) {
    drift.push_back(JensenShannonDivergence(window[i].chosen, std::span(*reference).subspan(i * experts, experts)));
  }
  return drift;
}

ExpertSnapshot ExpertStats::Reset() {
  FlatCounters total = state_->empty;
  FlatCounters window = state_->empty;
  FlatCounters open = state_->empty;
  std::deque<FlatCounters> closed;
  std::vector<uint8_t> collapsed;
  std::shared_ptr<const std::vector<int64_t>> reference;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    reference = state_->baseline;
    state_->before_reset.Add(state_->total, state_->total.tokens);
    std::swap(total, state_->total);
    std::swap(window, state_->closed_sum);
    std::swap(open, state_->open);
    closed.swap(state_->closed);
    collapsed = state_->collapse.collapsed();
    state_->collapse.Reset();
  }
  window.Add(open, open.tokens);
  ExpertSnapshot snapshot = state_->ToSnapshot(total, window, std::move(collapsed));
  snapshot.drift = state_->DriftOf(snapshot.window, reference.get());
  return snapshot;
}

FlatCounters ExpertStats::State::Room() const {
  FlatCounters room = empty;
  room.limited.reserve(empty.assignments.size());
  room.states.reserve(empty.assignments.size() * static_cast<size_t>(kNumAssignmentStates));
  room.lost_gate_weight.reserve(empty.assignments.size());
  return room;
}

ExpertSnapshot ExpertStats::Snapshot() const {
  FlatCounters lifetime = state_->Room();
  FlatCounters total = state_->Room();
  FlatCounters window = state_->Room();
  FlatCounters filling = state_->Room();
  std::vector<uint8_t> collapsed(static_cast<size_t>(state_->num_layers));
  std::shared_ptr<const std::vector<int64_t>> reference;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    reference = state_->baseline;
    lifetime = state_->before_reset;
    total = state_->total;
    window = state_->closed_sum;
    filling = state_->open;
    collapsed = state_->collapse.collapsed();
  }
  lifetime.Add(total, total.tokens);
  window.Add(filling, filling.tokens);
  ExpertSnapshot snapshot = state_->ToSnapshot(total, window, std::move(collapsed));
  snapshot.lifetime = lifetime.PerLayer();
  snapshot.drift = state_->DriftOf(snapshot.window, reference.get());
  return snapshot;
}

ExpertSnapshot ExpertStats::LifetimeSnapshot() const {
  ExpertSnapshot snapshot = Snapshot();
  snapshot.total = snapshot.lifetime;
  return snapshot;
}

}  // namespace cadre
