// LimitCapacity: who gets a place of an expert, and what becomes of who does not.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/router_row.h"
#include "kernels/op_checks.h"

namespace cadre {
namespace {

constexpr auto kProcessed = static_cast<int32_t>(AssignmentState::kProcessed);
constexpr auto kRerouted = static_cast<int32_t>(AssignmentState::kRerouted);
constexpr auto kReweighted = static_cast<int32_t>(AssignmentState::kReweighted);
constexpr auto kDropped = static_cast<int32_t>(AssignmentState::kDropped);

// The arguments of one call, as arrays.
struct Call {
  int64_t num_rows;
  int64_t num_experts;
  int64_t top_k;
  int64_t num_sequences;
  int64_t num_slots;
  const RouterOptions& options;
  const CapacityTally& tally;
  int32_t* ids;
  float* weights;
  int32_t* states;
  View outputs;
  int32_t* taken;
  const SequenceCapacity* sequences;
  const int32_t* row_sequence;
  const int32_t* positions;
  const float* logits;
  const float* probabilities;
  const float* bias;
  RouterRow row;  // scratch
};

class Limiter {
 public:
  Limiter(const Call& call, std::vector<int32_t>* chosen, std::vector<int32_t>* by_weight,
          std::vector<int32_t>* batch_taken)
      : call_(call), chosen_(*chosen), by_weight_(*by_weight), batch_taken_(*batch_taken) {
    chosen_.assign(call.ids, call.ids + call.num_rows * call.top_k);
    by_weight_.clear();
    batch_taken_.assign(static_cast<size_t>(call.num_experts), 0);
  }

  void Run() {
    for (int64_t t = 0; t < call_.num_rows; ++t) PlaceRow(t);
    PlaceBatch();
    for (int64_t t = 0; t < call_.num_rows; ++t) CloseRow(t);
  }

 private:
  bool IsPadding(int64_t t) const { return call_.row_sequence[t] == kPadding; }
  const SequenceCapacity& CapacityOf(int64_t t) const { return call_.sequences[call_.row_sequence[t]]; }
  const int32_t* ChosenBy(int64_t t) const { return chosen_.data() + t * call_.top_k; }

  void PlaceRow(int64_t t) {
    const int64_t begin = t * call_.top_k;
    const int64_t end = begin + call_.top_k;
    if (IsPadding(t)) {
      std::fill(call_.states + begin, call_.states + end, kPadding);
      return;
    }
    CADRE_CHECK_GE(call_.row_sequence[t], 0);
    CADRE_CHECK_LT(int64_t{call_.row_sequence[t]}, call_.num_sequences);
    const SequenceCapacity& capacity = CapacityOf(t);
    switch (capacity.scope) {
      case CapacityScope::kOff:
        for (int64_t a = begin; a < end; ++a) call_.states[a] = call_.ids[a] == kPadding ? kPadding : kProcessed;
        return;
      case CapacityScope::kRequest:
        return PlaceInGroup(t, capacity);
      case CapacityScope::kBatch:
        for (int64_t a = begin; a < end; ++a) {
          call_.states[a] = kPadding;
          if (call_.ids[a] != kPadding) by_weight_.push_back(static_cast<int32_t>(a));
        }
        return;
    }
    CADRE_CHECK(false);
  }

  void PlaceInGroup(int64_t t, const SequenceCapacity& capacity) {
    CADRE_CHECK_GE(capacity.group, 1);
    CADRE_CHECK_GE(capacity.slot, 0);
    CADRE_CHECK_LT(int64_t{capacity.slot}, call_.num_slots);
    int32_t* const taken = call_.taken + capacity.slot * call_.num_experts;
    if (call_.positions[t] % capacity.group == 0) std::fill_n(taken, call_.num_experts, 0);
    const int64_t begin = t * call_.top_k;
    for (int64_t a = begin; a < begin + call_.top_k; ++a) TakePlace(a, capacity, taken);
    if (capacity.overflow != Overflow::kReroute) return;
    for (int64_t a = begin; a < begin + call_.top_k; ++a) {
      if (call_.states[a] == kDropped) Reroute(a, capacity, taken);
    }
  }

  void PlaceBatch() {
    // A weight that is not a number comes last.
    const auto weight = [this](int32_t a) { return std::isnan(call_.weights[a]) ? kLowestScore : call_.weights[a]; };
    std::sort(by_weight_.begin(), by_weight_.end(), [&](int32_t a, int32_t b) {
      const float left = weight(a);
      const float right = weight(b);
      return left != right ? left > right : a < b;
    });
    for (const int32_t a : by_weight_) TakePlace(a, CapacityOf(a / call_.top_k), batch_taken_.data());
    for (const int32_t a : by_weight_) {
      const SequenceCapacity& capacity = CapacityOf(a / call_.top_k);
      if (capacity.overflow == Overflow::kReroute && call_.states[a] == kDropped) {
        Reroute(a, capacity, batch_taken_.data());
      }
    }
  }

  // Without a place, the assignment counts as dropped until something better is found.
  void TakePlace(int64_t a, const SequenceCapacity& capacity, int32_t* taken) {
    if (call_.ids[a] == kPadding) {  // the row chose fewer than K
      call_.states[a] = kPadding;
      return;
    }
    CADRE_CHECK_GE(call_.ids[a], 0);
    CADRE_CHECK_LT(int64_t{call_.ids[a]}, call_.num_experts);
    int32_t& count = taken[call_.ids[a]];
    const bool has_place = count < capacity.places;
    if (has_place) ++count;
    call_.states[a] = has_place ? kProcessed : kDropped;
  }

  void Reroute(int64_t a, const SequenceCapacity& capacity, int32_t* taken) {
    const int64_t t = a / call_.top_k;
    const RouterRow& row = call_.row;
    DefineLogits(row, call_.logits + t * call_.num_experts, call_.num_experts);
    ScoreRow(row, call_.probabilities + t * call_.num_experts, call_.bias, call_.num_experts, call_.options);
    const int64_t count = NumChosen(ChosenBy(t), call_.options);
    for (int64_t j = 0; j < count; ++j) row.taken[ChosenBy(t)[j]] = 1;
    if (call_.options.spill_over > 0) KeepNextBest();
    for (int64_t e = 0; e < call_.num_experts; ++e) row.taken[e] |= taken[e] >= capacity.places ? 1 : 0;
    for (int64_t j = 0; j < count; ++j) row.taken[call_.ids[t * call_.top_k + j]] = 1;
    const int64_t best = BestFree(row.c, row.taken, call_.num_experts);
    if (best < 0 || row.c[best] == kLowestScore) return;
    ++taken[best];
    call_.states[a] = kRerouted;
    call_.ids[a] = static_cast<int32_t>(best);
    call_.weights[a] = WeighBeside(best, ChosenBy(t), row, call_.options);
  }

  // Of the experts that are free, all but the options.spill_over best are taken.
  void KeepNextBest() {
    constexpr uint8_t kKept = 2;
    const RouterRow& row = call_.row;
    for (int64_t i = 0; i < call_.options.spill_over; ++i) {
      const int64_t best = BestFree(row.c, row.taken, call_.num_experts);
      if (best < 0) break;
      row.taken[best] = kKept;
    }
    for (int64_t e = 0; e < call_.num_experts; ++e) row.taken[e] = row.taken[e] == kKept ? 0 : 1;
  }

  // What is decided of a row takes effect, and is counted.
  void CloseRow(int64_t t) {
    if (IsPadding(t)) return;
    const int32_t sequence = call_.row_sequence[t];
    if (CapacityOf(t).overflow == Overflow::kReweight) Reweight(t);
    const int64_t d = call_.outputs.dim(1);
    for (int64_t a = t * call_.top_k; a < (t + 1) * call_.top_k; ++a) {
      const int32_t state = call_.states[a];
      if (state == kPadding) continue;
      ++states_[state * call_.num_experts + call_.ids[a]];
      ++sequence_states_[sequence * kNumAssignmentStates + state];
      if (state != kReweighted && state != kDropped) continue;
      const auto lost = static_cast<double>(call_.weights[a]);
      call_.tally.lost_gate_weight.data<double>()[call_.ids[a]] += lost;
      call_.tally.sequence_lost_gate_weight.data<double>()[sequence] += lost;
      call_.ids[a] = kPadding;
      call_.weights[a] = 0.0f;
      std::fill_n(call_.outputs.data<float>() + a * d, d, 0.0f);
    }
  }

  // Gives the weight of what is lost to what is left.
  void Reweight(int64_t t) {
    float sum = 0.0f;
    float left = 0.0f;
    for (int64_t a = t * call_.top_k; a < (t + 1) * call_.top_k; ++a) {
      sum += call_.weights[a];
      if (call_.states[a] == kProcessed) left += call_.weights[a];
    }
    const float scale = sum / left;
    if (!(left > 0.0f) || !(scale > 0.0f) || !std::isfinite(scale)) return;
    for (int64_t a = t * call_.top_k; a < (t + 1) * call_.top_k; ++a) {
      if (call_.states[a] == kDropped) call_.states[a] = kReweighted;
      if (call_.states[a] == kProcessed) call_.weights[a] *= scale;  // by 1 where nothing was lost
    }
  }

  const Call& call_;
  int64_t* const states_ = call_.tally.states.data<int64_t>();
  int64_t* const sequence_states_ = call_.tally.sequence_states.data<int64_t>();
  std::vector<int32_t>& chosen_;
  std::vector<int32_t>& by_weight_;
  std::vector<int32_t>& batch_taken_;
};

}  // namespace

void CpuOps::LimitCapacity(const LimitedRows& rows, View taken, const CapacityTally& tally,
                           const CapacityInputs& inputs, ConstView logits, ConstView probabilities,
                           ConstView selection_bias, const RouterOptions& options) {
  CheckLimitCapacity(rows, taken, tally, inputs, logits, probabilities, selection_bias, options);
  CADRE_CHECK_LE(logits.dim(0), limits_.max_tokens);
  CADRE_CHECK_LE(logits.dim(1), limits_.num_experts);
  CADRE_CHECK_LE(options.top_k, limits_.top_k);
  CADRE_CHECK(inputs.sequences.dtype() == DType::kI32);
  const Call call = {.num_rows = logits.dim(0),
                     .num_experts = logits.dim(1),
                     .top_k = options.top_k,
                     .num_sequences = inputs.sequences.dim(0),
                     .num_slots = taken.dim(0),
                     .options = options,
                     .tally = tally,
                     .ids = rows.expert_ids.data<int32_t>(),
                     .weights = rows.weights.data<float>(),
                     .states = rows.states.data<int32_t>(),
                     .outputs = rows.expert_outputs,
                     .taken = taken.data<int32_t>(),
                     .sequences = reinterpret_cast<const SequenceCapacity*>(inputs.sequences.raw()),
                     .row_sequence = inputs.row_sequence.data<int32_t>(),
                     .positions = inputs.positions.data<int32_t>(),
                     .logits = logits.data<float>(),
                     .probabilities = probabilities.data<float>(),
                     .bias = selection_bias.empty() ? nullptr : selection_bias.data<float>(),
                     .row = RouterRowAt(ThreadScratch(0), logits.dim(1))};
  Limiter(call, &chosen_, &by_weight_, &batch_taken_).Run();
}

}  // namespace cadre
