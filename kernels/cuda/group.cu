// GroupByExpert and TallyRouting: who goes where, and how much.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"

namespace cadre::cuda {
namespace {

constexpr int kGroupWarps = 16;
constexpr int kGroupThreads = kGroupWarps * kWarpSize;
constexpr int kTallyThreads = 256;
constexpr int kWrongId = 0x7FFFFFFF;

// The lanes of the warp whose `id` is this lane's; an id of -1 stands for no assignment.
struct Peers {
  unsigned lanes;
  int rank;  // of this lane among them
  int count;
};
__device__ __forceinline__ Peers PeersOf(int id) {
  const unsigned lanes = __match_any_sync(kAllLanes, id);
  const unsigned below = (1u << (threadIdx.x % kWarpSize)) - 1u;
  return {lanes, __popc(lanes & below), __popc(lanes)};
}

// Of an assignment; -1 behind the last one, and for padding.
__device__ __forceinline__ int ExpertOf(const int32_t* expert_ids, int a, int num_assignments) {
  if (a >= num_assignments || expert_ids[a] == kPadding) return -1;
  return expert_ids[a] < 0 ? kWrongId : expert_ids[a];
}

// A stable counting sort in one block. Each warp owns one run of consecutive assignments, and counts them in a row of
// `counts` [kGroupWarps, E]; where the row of an expert begins for each warp follows from all that comes before it.
__global__ void __launch_bounds__(kGroupThreads)
    GroupByExpertKernel(int32_t* order, int32_t* offsets, const int32_t* expert_ids, int num_assignments,
                        int num_experts) {
  CADRE_DYNAMIC_SHARED(int32_t, counts);
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int run = (num_assignments + kGroupThreads - 1) / kGroupThreads * kWarpSize;
  const int begin = warp * run;
  int32_t* const own_counts = counts + warp * num_experts;

  for (int i = static_cast<int>(threadIdx.x); i < kGroupWarps * num_experts; i += kGroupThreads) counts[i] = 0;
  __syncthreads();
  for (int first = begin; first < begin + run; first += kWarpSize) {
    const int a = first + lane;
    const int id = ExpertOf(expert_ids, a, num_assignments);
    if (id >= num_experts) __trap();
    const Peers peers = PeersOf(id);
    if (id >= 0 && peers.rank == 0) own_counts[id] += peers.count;
    __syncwarp();
  }
  __syncthreads();

  // Experts in rising order, one warp of them at a time, so that the sum before them is carried along.
  if (warp == 0) {
    int32_t before = 0;
    for (int first = 0; first < num_experts; first += kWarpSize) {
      const int e = first + lane;
      int32_t total = 0;
      for (int w = 0; e < num_experts && w < kGroupWarps; ++w) total += counts[w * num_experts + e];
      int32_t through = total;  // inclusive sum over the lanes
      for (int offset = 1; offset < kWarpSize; offset *= 2) {
        const int32_t other = __shfl_up_sync(kAllLanes, through, offset);
        if (lane >= offset) through += other;
      }
      int32_t next = before + through - total;
      if (e < num_experts) {
        offsets[e] = next;
        for (int w = 0; w < kGroupWarps; ++w) {
          const int32_t count = counts[w * num_experts + e];
          counts[w * num_experts + e] = next;
          next += count;
        }
      }
      before += __shfl_sync(kAllLanes, through, kWarpSize - 1);
    }
    if (lane == 0) offsets[num_experts] = before;
  }
  __syncthreads();

  for (int first = begin; first < begin + run; first += kWarpSize) {
    const int a = first + lane;
    const int id = ExpertOf(expert_ids, a, num_assignments);
    const Peers peers = PeersOf(id);
    const int32_t slot = id >= 0 ? own_counts[id] + peers.rank : 0;
    __syncwarp();
    if (id >= 0) order[slot] = a;
    if (id >= 0 && peers.rank == 0) own_counts[id] += peers.count;
    __syncwarp();
  }
}

struct TallyInputs {
  const int32_t* expert_ids;    // [T, K]
  const float* weights;         // [T, K]
  const float* probabilities;   // [T, E]
  const float* log_sum_exp;     // [T]
  const int32_t* row_sequence;  // [T]
  int64_t num_rows;
  int64_t top_k;
  int64_t num_experts;
  int64_t num_sequences;
};
struct TallySums {
  int64_t* assignments;
  double* gate_weight;
  double* probability;
  double* squared_log_sum_exp;
  int64_t* sequence_assignments;
  int64_t* row_assignments;
  double* sequence_gate_weight;
};

// The weights of the rows of one sequence, by a block.
__device__ __forceinline__ void SumSequenceWeights(const TallySums& sums, const TallyInputs& in, int64_t s,
                                                   double* of_warps) {
  double gate_weight = 0.0;
  for (int64_t t = threadIdx.x; t < in.num_rows; t += kTallyThreads) {
    if (in.row_sequence[t] != s) continue;
    for (int64_t a = t * in.top_k; a < (t + 1) * in.top_k; ++a) {
      if (in.expert_ids[a] != kPadding) gate_weight += static_cast<double>(in.weights[a]);
    }
  }
  gate_weight = BlockSum(gate_weight, of_warps);
  if (threadIdx.x == 0) sums.sequence_gate_weight[s] += gate_weight;
}

// One block for each expert, one more for what is counted by row, and one for each sequence. Sums run over the rows in
// a fixed order, so that the statistics, too, are the same each time.
__global__ void __launch_bounds__(kTallyThreads) TallyRoutingKernel(TallySums sums, TallyInputs in) {
  CADRE_SHARED(double, of_warps, [kTallyThreads / kWarpSize]);
  const int64_t e = blockIdx.x;
  if (e > in.num_experts) return SumSequenceWeights(sums, in, e - in.num_experts - 1, of_warps);
  if (e == in.num_experts) {
    double squares = 0.0;
    double assignments = 0.0;  // exact: far below 2^53
    for (int64_t t = threadIdx.x; t < in.num_rows; t += kTallyThreads) {
      if (in.row_sequence[t] == kPadding) continue;
      const double lse = static_cast<double>(in.log_sum_exp[t]);
      squares += lse * lse;
      const int64_t s = in.row_sequence[t];
      if (s < 0 || s >= in.num_sequences) __trap();
      unsigned count = 0;
      for (int64_t a = t * in.top_k; a < (t + 1) * in.top_k; ++a) {
        if (in.expert_ids[a] == kPadding) continue;
        ++count;
        if (in.expert_ids[a] < 0 || in.expert_ids[a] >= in.num_experts) __trap();
      }
      atomicAdd(reinterpret_cast<unsigned long long*>(sums.sequence_assignments + s),
                static_cast<unsigned long long>(count));
      assignments += static_cast<double>(count);
    }
    squares = BlockSum(squares, of_warps);
    assignments = BlockSum(assignments, of_warps);
    if (threadIdx.x == 0) {
      *sums.squared_log_sum_exp += squares;
      *sums.row_assignments += static_cast<int64_t>(assignments);
    }
    return;
  }
  double count = 0.0;  // exact: far below 2^53
  double gate_weight = 0.0;
  double probability = 0.0;
  for (int64_t t = threadIdx.x; t < in.num_rows; t += kTallyThreads) {
    if (in.row_sequence[t] == kPadding) continue;
    probability += static_cast<double>(in.probabilities[t * in.num_experts + e]);
    for (int64_t a = t * in.top_k; a < (t + 1) * in.top_k; ++a) {
      if (in.expert_ids[a] != e) continue;
      count += 1.0;
      gate_weight += static_cast<double>(in.weights[a]);
    }
  }
  count = BlockSum(count, of_warps);
  gate_weight = BlockSum(gate_weight, of_warps);
  probability = BlockSum(probability, of_warps);
  if (threadIdx.x != 0) return;
  sums.assignments[e] += static_cast<int64_t>(count);
  sums.gate_weight[e] += gate_weight;
  sums.probability[e] += probability;
}

}  // namespace

size_t GroupByExpertSharedBytes(int64_t num_experts) {
  return static_cast<size_t>(kGroupWarps * num_experts) * sizeof(int32_t);
}

cudaError_t LaunchGroupByExpert(cudaStream_t stream, View order, View offsets, ConstView expert_ids) {
  const int64_t num_experts = offsets.dim(0) - 1;
  const Grid grid = {
      .blocks = dim3(1), .threads = dim3(kGroupThreads), .shared_bytes = GroupByExpertSharedBytes(num_experts)};
  return Launch(stream, grid, GroupByExpertKernel, Data<int32_t>(order), Data<int32_t>(offsets),
                Data<int32_t>(expert_ids), static_cast<int>(expert_ids.num_elements()), static_cast<int>(num_experts));
}

cudaError_t LaunchTallyRouting(cudaStream_t stream, const RoutingTally& tally, ConstView expert_ids, ConstView weights,
                               ConstView probabilities, ConstView log_sum_exp, ConstView row_sequence) {
  const TallySums sums = {.assignments = Data<int64_t>(tally.assignments),
                          .gate_weight = Data<double>(tally.gate_weight),
                          .probability = Data<double>(tally.probability),
                          .squared_log_sum_exp = Data<double>(tally.squared_log_sum_exp),
                          .sequence_assignments = Data<int64_t>(tally.sequence_assignments),
                          .row_assignments = Data<int64_t>(tally.row_assignments),
                          .sequence_gate_weight = Data<double>(tally.sequence_gate_weight)};
  const TallyInputs in = {.expert_ids = Data<int32_t>(expert_ids),
                          .weights = Data<float>(weights),
                          .probabilities = Data<float>(probabilities),
                          .log_sum_exp = Data<float>(log_sum_exp),
                          .row_sequence = Data<int32_t>(row_sequence),
                          .num_rows = expert_ids.dim(0),
                          .top_k = expert_ids.dim(1),
                          .num_experts = probabilities.dim(1),
                          .num_sequences = tally.sequence_assignments.dim(0)};
  const Grid grid = {.blocks = dim3(static_cast<unsigned>(in.num_experts + 1 + in.num_sequences)),
                     .threads = dim3(kTallyThreads)};
  return Launch(stream, grid, TallyRoutingKernel, sums, in);
}

}  // namespace cadre::cuda
