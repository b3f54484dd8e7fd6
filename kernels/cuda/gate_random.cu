// AddGateNoise and HashLogits: logits that come, partly or all, from counter-based random numbers. One thread for four
// experts of a row, which share a block of words.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"
#include "kernels/philox.h"

namespace cadre::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kBlock = 4;

struct GateTensors {
  float* logits;                // [T, E]
  const int32_t* seeds;         // [S, 2]
  const int32_t* row_sequence;  // [T]
  const int32_t* positions;     // [T]
  int64_t num_rows;
  int num_experts;
  int num_blocks;  // of experts
  int num_sequences;
};

// Two numbers of N(0, 1) from two words (Box and Muller 1958). The first is never 0, so that its logarithm is finite.
__device__ __forceinline__ void NormalPair(uint32_t first, uint32_t second, float* normals) {
  constexpr float kTwoPi = 6.28318530718f;
  const float radius = sqrtf(-2.0f * logf(UnitFloat(first) + 0x1p-24f));
  const float angle = kTwoPi * UnitFloat(second);
  normals[0] = radius * cosf(angle);
  normals[1] = radius * sinf(angle);
}

__global__ void __launch_bounds__(kThreads) AddGateNoiseKernel(GateTensors t, uint32_t layer, float deviation) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= t.num_rows * t.num_blocks) return;
  const int64_t row = index / t.num_blocks;
  const int block = static_cast<int>(index % t.num_blocks);
  const int32_t s = t.row_sequence[row];
  if (s == kPadding) return;
  if (s < 0 || s >= t.num_sequences) __trap();
  const PhiloxKey key = {static_cast<uint32_t>(t.seeds[2 * s]), static_cast<uint32_t>(t.seeds[2 * s + 1])};
  const PhiloxCounter words =
      GateNoiseWords(static_cast<uint32_t>(t.positions[row]), static_cast<uint32_t>(block), layer, key);
  float normals[kBlock];
  NormalPair(words[0], words[1], normals);
  NormalPair(words[2], words[3], normals + 2);
  float* const z = t.logits + row * t.num_experts + block * kBlock;
  for (int i = 0; i < kBlock && block * kBlock + i < t.num_experts; ++i) z[i] += deviation * normals[i];
}

__global__ void __launch_bounds__(kThreads)
    HashLogitsKernel(float* logits, const int32_t* token_ids, int64_t num_rows, int num_experts, int num_blocks,
                     uint32_t layer, uint64_t seed) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= num_rows * num_blocks) return;
  const int64_t row = index / num_blocks;
  const int block = static_cast<int>(index % num_blocks);
  const PhiloxKey key = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  const PhiloxCounter words =
      ExpertHashWords(static_cast<uint32_t>(token_ids[row]), static_cast<uint32_t>(block), layer, key);
  float* const z = logits + row * num_experts + block * kBlock;
  for (int i = 0; i < kBlock && block * kBlock + i < num_experts; ++i) z[i] = UnitFloat(words[i]);
}

}  // namespace

cudaError_t LaunchAddGateNoise(cudaStream_t stream, View logits, ConstView seeds, ConstView row_sequence,
                               ConstView positions, int64_t layer, float deviation) {
  const int64_t num_blocks = CeilDiv(logits.dim(1), kBlock);
  const GateTensors tensors = {.logits = Data<float>(logits),
                               .seeds = Data<int32_t>(seeds),
                               .row_sequence = Data<int32_t>(row_sequence),
                               .positions = Data<int32_t>(positions),
                               .num_rows = logits.dim(0),
                               .num_experts = static_cast<int>(logits.dim(1)),
                               .num_blocks = static_cast<int>(num_blocks),
                               .num_sequences = static_cast<int>(seeds.dim(0))};
  const Grid grid = {.blocks = dim3(CeilDiv(logits.dim(0) * num_blocks, kThreads)), .threads = dim3(kThreads)};
  return Launch(stream, grid, AddGateNoiseKernel, tensors, static_cast<uint32_t>(layer), deviation);
}

cudaError_t LaunchHashLogits(cudaStream_t stream, View logits, ConstView token_ids, int64_t layer, uint64_t seed) {
  const int64_t num_blocks = CeilDiv(logits.dim(1), kBlock);
  const Grid grid = {.blocks = dim3(CeilDiv(logits.dim(0) * num_blocks, kThreads)), .threads = dim3(kThreads)};
  return Launch(stream, grid, HashLogitsKernel, Data<float>(logits), Data<int32_t>(token_ids), logits.dim(0),
                static_cast<int>(logits.dim(1)), static_cast<int>(num_blocks), static_cast<uint32_t>(layer), seed);
}

}  // namespace cadre::cuda
