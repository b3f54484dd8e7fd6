// LimitCapacity: who gets a place of an expert, and what becomes of who does not. Decided on the device, one kernel
// after the other: places by group (one warp for each sequence), places by batch (ranks first, then one warp), weights
// of what is left, tallies, and the end of what is lost.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/router_row.cuh"

namespace cadre::cuda {
namespace {

constexpr int kThreads = 128;
constexpr auto kProcessed = static_cast<int32_t>(AssignmentState::kProcessed);
constexpr auto kRerouted = static_cast<int32_t>(AssignmentState::kRerouted);
constexpr auto kReweighted = static_cast<int32_t>(AssignmentState::kReweighted);
constexpr auto kDropped = static_cast<int32_t>(AssignmentState::kDropped);
constexpr int kNumStates = static_cast<int>(kNumAssignmentStates);

struct CapacityTensors {
  int32_t* ids;                       // [A]
  float* weights;                     // [A]
  int32_t* states;                    // [A]
  float* outputs;                     // [A, D]
  int32_t* taken;                     // [slots, E]
  int32_t* chosen;                    // [A] scratch: experts before any assignment was moved
  int32_t* by_weight;                 // [A] scratch: assignments of batches, the first to be served first
  const SequenceCapacity* sequences;  // [S]
  const int32_t* row_sequence;        // [T]
  const int32_t* positions;           // [T]
  const float* logits;                // [T, E]
  const float* probabilities;         // [T, E]
  const float* bias;                  // [E], or null
  int num_rows;
  int num_experts;
  int top_k;
  int num_sequences;
  int num_slots;
  int d;
};

__device__ __forceinline__ bool IsLost(int32_t state) { return state == kReweighted || state == kDropped; }

__device__ __forceinline__ bool IsBatchRow(const CapacityTensors& t, int row) {
  const int32_t s = t.row_sequence[row];
  return s != kPadding && t.sequences[s].scope == CapacityScope::kBatch;
}

// The weight that expert e would have beside the choice `ids` [K]: normalized by the same sum.
__device__ __forceinline__ float WeighBeside(int e, const int32_t* ids, const RouterRow& row,
                                             const RouterOptions& options) {
  const int top_k = NumChosen(ids, static_cast<int>(options.top_k));
  float weight = row.s[e];
  if (options.norm == WeightNorm::kUniform) {
    weight = 1.0f / static_cast<float>(top_k);
  } else if (options.norm == WeightNorm::kSoftmax) {
    float largest = -INFINITY;
    for (int j = 0; j < top_k; ++j) largest = fmaxf(largest, row.z[ids[j]]);
    float sum = 0.0f;
    for (int j = 0; j < top_k; ++j) sum += expf(row.z[ids[j]] - largest);
    weight = expf(row.z[e] - largest) / sum;
  } else if (options.norm == WeightNorm::kSum) {
    float sum = 0.0f;
    for (int j = 0; j < top_k; ++j) sum += row.s[ids[j]];
    sum += options.norm_epsilon;
    if (sum != 0.0f) weight /= sum;
  }
  return weight * options.scaling_factor;
}

// Without a place, the assignment counts as dropped until something better is found. By one lane.
__device__ __forceinline__ void TakePlace(const CapacityTensors& t, int64_t a, int32_t places, int32_t* counts) {
  const int32_t id = t.ids[a];
  if (id == kPadding) {  // the row chose fewer than K
    t.states[a] = kPadding;
    return;
  }
  if (id < 0 || id >= t.num_experts) __trap();
  const bool has_place = counts[id] < places;
  if (has_place) ++counts[id];
  t.states[a] = has_place ? kProcessed : kDropped;
}

// Of the experts that are free, all but the `count` best are taken.
__device__ __forceinline__ void KeepNextBest(const RouterRow& row, int num_experts, int64_t count) {
  constexpr uint8_t kKept = 2;
  for (int64_t i = 0; i < count; ++i) {
    const int best = BestFree(row.c, row.taken, num_experts);
    __syncwarp();
    if (best == kNone) break;
    if (Lane() == 0) row.taken[best] = kKept;
    __syncwarp();
  }
  for (int e = Lane(); e < num_experts; e += kWarpSize) row.taken[e] = row.taken[e] == kKept ? 0 : 1;
  __syncwarp();
}

// Scores the row of assignment `a`, and sends it to the best expert with a place, if there is one. By a warp, whose
// writes to counts, ids and states are visible before and after.
__device__ __forceinline__ void Reroute(const CapacityTensors& t, const RouterRow& row, int64_t a, int32_t places,
                                        int32_t* counts, const RouterOptions& options) {
  const int64_t index = a / t.top_k;
  for (int e = Lane(); e < t.num_experts; e += kWarpSize) row.z[e] = Defined(t.logits[index * t.num_experts + e]);
  ScoreRow(row, t.probabilities + index * t.num_experts, t.bias, t.num_experts, options);
  const int32_t* const chosen = t.chosen + index * t.top_k;
  const int32_t* const ids = t.ids + index * t.top_k;
  const int num_chosen = NumChosen(chosen, t.top_k);
  for (int j = 0; j < num_chosen && Lane() == 0; ++j) row.taken[chosen[j]] = 1;
  __syncwarp();
  if (options.spill_over > 0) KeepNextBest(row, t.num_experts, options.spill_over);
  for (int e = Lane(); e < t.num_experts; e += kWarpSize) {
    if (counts[e] >= places) row.taken[e] = 1;
  }
  __syncwarp();
  for (int j = 0; j < num_chosen && Lane() == 0; ++j) row.taken[ids[j]] = 1;
  __syncwarp();
  const int best = BestFree(row.c, row.taken, t.num_experts);
  const bool is_found = best != kNone && row.c[best] != -INFINITY;
  __syncwarp();  // who returns writes the next row over this one
  if (!is_found) return;
  if (Lane() == 0) {
    ++counts[best];
    t.states[a] = kRerouted;
    t.ids[a] = best;
    t.weights[a] = WeighBeside(best, chosen, row, options);
  }
  __syncwarp();
}

// A row of a sequence that is limited by groups; `counts` [E] are the places that its group has taken.
__device__ __forceinline__ void PlaceInGroup(const CapacityTensors& t, const SequenceCapacity& capacity, int index,
                                             int32_t* counts, const RouterRow& row, const RouterOptions& options) {
  if (t.positions[index] % capacity.group == 0) {
    for (int e = Lane(); e < t.num_experts; e += kWarpSize) counts[e] = 0;
    __syncwarp();
  }
  const int64_t begin = static_cast<int64_t>(index) * t.top_k;
  // A row names an expert once, so its lanes meet no counter twice.
  for (int j = Lane(); j < t.top_k; j += kWarpSize) {
    t.chosen[begin + j] = t.ids[begin + j];
    TakePlace(t, begin + j, capacity.places, counts);
  }
  __syncwarp();
  if (capacity.overflow != Overflow::kReroute) return;
  for (int j = 0; j < t.top_k; ++j) {
    if (t.states[begin + j] == kDropped) Reroute(t, row, begin + j, capacity.places, counts, options);
  }
}

// One warp for each sequence, which walks through its rows in their order.
__global__ void __launch_bounds__(kWarpSize) PlaceByGroupKernel(CapacityTensors t, RouterOptions options) {
  CADRE_DYNAMIC_SHARED(unsigned char, scratch);
  const int32_t s = static_cast<int32_t>(blockIdx.x);
  const RouterRow row = RouterRowAt(scratch, t.num_experts, static_cast<int>(options.num_groups));
  int32_t* const counts = reinterpret_cast<int32_t*>(scratch + RouterRowBytes(t.num_experts, options.num_groups));
  const SequenceCapacity capacity = t.sequences[s];
  const bool is_limited = capacity.scope == CapacityScope::kRequest;
  if (is_limited && (capacity.slot < 0 || capacity.slot >= t.num_slots || capacity.group < 1)) __trap();
  int32_t* const taken = is_limited ? t.taken + static_cast<int64_t>(capacity.slot) * t.num_experts : nullptr;
  for (int e = Lane(); e < t.num_experts; e += kWarpSize) counts[e] = is_limited ? taken[e] : 0;
  __syncwarp();
  for (int first = 0; first < t.num_rows; first += kWarpSize) {
    const bool is_own = first + Lane() < t.num_rows && t.row_sequence[first + Lane()] == s;
    for (unsigned rows = __ballot_sync(kAllLanes, is_own); rows != 0; rows &= rows - 1) {
      const int index = first + __ffs(static_cast<int>(rows)) - 1;
      const int64_t begin = static_cast<int64_t>(index) * t.top_k;
      for (int j = Lane(); j < t.top_k; j += kWarpSize) {
        if (capacity.scope == CapacityScope::kOff) {
          t.states[begin + j] = t.ids[begin + j] == kPadding ? kPadding : kProcessed;
        }
      }
      __syncwarp();
      if (is_limited) PlaceInGroup(t, capacity, index, counts, row, options);
    }
  }
  for (int e = Lane(); is_limited && e < t.num_experts; e += kWarpSize) taken[e] = counts[e];
}

// A weight that is not a number comes last.
__device__ __forceinline__ float Key(float weight) { return weight != weight ? -INFINITY : weight; }

// One thread for each assignment of a batch: how many come before it.
__global__ void __launch_bounds__(kThreads) RankKernel(CapacityTensors t) {
  const int num_assignments = t.num_rows * t.top_k;
  const int a = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (a >= num_assignments || !IsBatchRow(t, a / t.top_k)) return;
  t.chosen[a] = t.ids[a];
  if (t.ids[a] == kPadding) {  // its row chose fewer than K
    t.states[a] = kPadding;
    return;
  }
  const float key = Key(t.weights[a]);
  int rank = 0;
  for (int index = 0; index < t.num_rows; ++index) {
    if (!IsBatchRow(t, index)) continue;
    for (int b = index * t.top_k; b < (index + 1) * t.top_k; ++b) {
      if (t.ids[b] == kPadding) continue;
      const float other = Key(t.weights[b]);
      rank += other > key || (other == key && b < a) ? 1 : 0;
    }
  }
  t.by_weight[rank] = a;
}

// One warp for all.
__global__ void __launch_bounds__(kWarpSize) PlaceByWeightKernel(CapacityTensors t, RouterOptions options) {
  CADRE_DYNAMIC_SHARED(unsigned char, scratch);
  int num_ranked = 0;
  for (int index = Lane(); index < t.num_rows; index += kWarpSize) {
    if (IsBatchRow(t, index)) num_ranked += NumChosen(t.ids + static_cast<int64_t>(index) * t.top_k, t.top_k);
  }
  const int count = WarpSum(num_ranked);
  if (count == 0) return;
  const RouterRow row = RouterRowAt(scratch, t.num_experts, static_cast<int>(options.num_groups));
  int32_t* const counts = reinterpret_cast<int32_t*>(scratch + RouterRowBytes(t.num_experts, options.num_groups));
  for (int e = Lane(); e < t.num_experts; e += kWarpSize) counts[e] = 0;
  __syncwarp();
  for (int i = 0; i < count && Lane() == 0; ++i) {
    const int32_t a = t.by_weight[i];
    TakePlace(t, a, t.sequences[t.row_sequence[a / t.top_k]].places, counts);
  }
  __syncwarp();
  for (int i = 0; i < count; ++i) {
    const int32_t a = t.by_weight[i];
    const SequenceCapacity capacity = t.sequences[t.row_sequence[a / t.top_k]];
    if (capacity.overflow == Overflow::kReroute && t.states[a] == kDropped) {
      Reroute(t, row, a, capacity.places, counts, options);
    }
  }
}

// One thread for each row: gives the weight of what is lost to what is left.
__global__ void __launch_bounds__(kThreads) ReweightKernel(CapacityTensors t) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= t.num_rows || t.row_sequence[index] == kPadding) return;
  if (t.sequences[t.row_sequence[index]].overflow != Overflow::kReweight) return;
  float sum = 0.0f;
  float left = 0.0f;
  for (int64_t a = index * t.top_k; a < (index + 1) * t.top_k; ++a) {
    sum += t.weights[a];
    if (t.states[a] == kProcessed) left += t.weights[a];
  }
  const float scale = sum / left;
  if (!(left > 0.0f) || !(scale > 0.0f) || scale > 3.402823466e38f) return;
  for (int64_t a = index * t.top_k; a < (index + 1) * t.top_k; ++a) {
    if (t.states[a] == kDropped) t.states[a] = kReweighted;
    if (t.states[a] == kProcessed) t.weights[a] *= scale;  // by 1 where nothing was lost
  }
}

struct CapacitySums {
  int64_t* states;           // [4, E]
  double* lost;              // [E]
  int64_t* sequence_states;  // [S, 4]
  double* sequence_lost;     // [S]
};

// One block for each expert, then one for each sequence. Sums run over the rows in a fixed order.
__global__ void __launch_bounds__(kThreads) TallyStatesKernel(CapacitySums sums, CapacityTensors t) {
  CADRE_SHARED(double, of_warps, [kThreads / kWarpSize]);
  const int block = static_cast<int>(blockIdx.x);
  const bool is_expert = block < t.num_experts;
  const int s = block - t.num_experts;
  double counts[kNumStates] = {};  // exact: far below 2^53
  double lost = 0.0;
  for (int index = static_cast<int>(threadIdx.x); index < t.num_rows; index += kThreads) {
    if (t.row_sequence[index] == kPadding || (!is_expert && t.row_sequence[index] != s)) continue;
    for (int64_t a = static_cast<int64_t>(index) * t.top_k; a < (index + int64_t{1}) * t.top_k; ++a) {
      if (is_expert && t.ids[a] != block) continue;
      const int32_t state = t.states[a];
      for (int i = 0; i < kNumStates; ++i) counts[i] += state == i ? 1.0 : 0.0;
      if (IsLost(state)) lost += static_cast<double>(t.weights[a]);
    }
  }
  for (int i = 0; i < kNumStates; ++i) {
    const auto count = static_cast<int64_t>(BlockSum(counts[i], of_warps));
    if (threadIdx.x != 0) continue;
    if (is_expert) sums.states[static_cast<int64_t>(i) * t.num_experts + block] += count;
    if (!is_expert) sums.sequence_states[static_cast<int64_t>(s) * kNumStates + i] += count;
  }
  lost = BlockSum(lost, of_warps);
  if (threadIdx.x == 0) *(is_expert ? sums.lost + block : sums.sequence_lost + s) += lost;
}

// One block for each assignment.
__global__ void __launch_bounds__(kThreads) EndLostKernel(CapacityTensors t) {
  const int64_t a = blockIdx.x;
  if (t.row_sequence[a / t.top_k] == kPadding) {
    if (threadIdx.x == 0) t.states[a] = kPadding;
    return;
  }
  if (!IsLost(t.states[a])) return;
  for (int i = static_cast<int>(threadIdx.x); i < t.d; i += kThreads) t.outputs[a * t.d + i] = 0.0f;
  if (threadIdx.x != 0) return;
  t.ids[a] = kPadding;
  t.weights[a] = 0.0f;
}

}  // namespace

size_t LimitCapacitySharedBytes(int64_t num_experts, int64_t num_groups) {
  return RouterRowBytes(num_experts, num_groups) + static_cast<size_t>(num_experts) * sizeof(int32_t);
}

size_t LimitCapacityScratchBytes(int64_t num_assignments) {
  return 2 * static_cast<size_t>(num_assignments) * sizeof(int32_t);
}

cudaError_t LaunchLimitCapacity(cudaStream_t stream, const LimitedRows& rows, View taken, const CapacityTally& tally,
                                const CapacityInputs& inputs, ConstView logits, ConstView probabilities,
                                ConstView selection_bias, const RouterOptions& options, std::byte* scratch) {
  const int64_t num_assignments = rows.expert_ids.num_elements();
  auto* const chosen = reinterpret_cast<int32_t*>(scratch);
  const CapacityTensors t = {.ids = Data<int32_t>(rows.expert_ids),
                             .weights = Data<float>(rows.weights),
                             .states = Data<int32_t>(rows.states),
                             .outputs = Data<float>(rows.expert_outputs),
                             .taken = Data<int32_t>(taken),
                             .chosen = chosen,
                             .by_weight = chosen + num_assignments,
                             .sequences = reinterpret_cast<const SequenceCapacity*>(inputs.sequences.raw()),
                             .row_sequence = Data<int32_t>(inputs.row_sequence),
                             .positions = Data<int32_t>(inputs.positions),
                             .logits = Data<float>(logits),
                             .probabilities = Data<float>(probabilities),
                             .bias = Data<float>(selection_bias),
                             .num_rows = static_cast<int>(logits.dim(0)),
                             .num_experts = static_cast<int>(logits.dim(1)),
                             .top_k = static_cast<int>(options.top_k),
                             .num_sequences = static_cast<int>(inputs.sequences.dim(0)),
                             .num_slots = static_cast<int>(taken.dim(0)),
                             .d = static_cast<int>(rows.expert_outputs.dim(1))};
  const CapacitySums sums = {.states = Data<int64_t>(tally.states),
                             .lost = Data<double>(tally.lost_gate_weight),
                             .sequence_states = Data<int64_t>(tally.sequence_states),
                             .sequence_lost = Data<double>(tally.sequence_lost_gate_weight)};
  const size_t shared_bytes = LimitCapacitySharedBytes(t.num_experts, options.num_groups);
  const auto blocks = [](int64_t n) { return dim3(static_cast<unsigned>(n)); };
  const Grid sequences = {.blocks = blocks(t.num_sequences), .threads = dim3(kWarpSize), .shared_bytes = shared_bytes};
  const Grid one_warp = {.blocks = dim3(1), .threads = dim3(kWarpSize), .shared_bytes = shared_bytes};
  const dim3 threads(kThreads);
  cudaError_t error = Launch(stream, sequences, PlaceByGroupKernel, t, options);
  const Grid ranks = {.blocks = dim3(CeilDiv(num_assignments, kThreads)), .threads = threads};
  if (error == cudaSuccess) error = Launch(stream, ranks, RankKernel, t);
  if (error == cudaSuccess) error = Launch(stream, one_warp, PlaceByWeightKernel, t, options);
  const Grid by_row = {.blocks = dim3(CeilDiv(t.num_rows, kThreads)), .threads = threads};
  if (error == cudaSuccess) error = Launch(stream, by_row, ReweightKernel, t);
  const Grid tallies = {.blocks = blocks(t.num_experts + t.num_sequences), .threads = threads};
  if (error == cudaSuccess) error = Launch(stream, tallies, TallyStatesKernel, sums, t);
  const Grid assignments = {.blocks = blocks(num_assignments), .threads = threads};
  if (error == cudaSuccess) error = Launch(stream, assignments, EndLostKernel, t);
  return error;
}

}  // namespace cadre::cuda
