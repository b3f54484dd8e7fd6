// Products with bfloat16 weights on the tensor cores, where weights are met by many rows: prompts. A block computes
// kTileWeights weight rows against kTileTokens activation rows, both of which go through shared memory.
//
// The bits are those of mma_strip.cuh, which computes the same rows when there are few: the same fragments meet in the
// same order, and the four parts of the depth are added in theirs. Here one warp computes all four one after the other,
// and keeps the sum of those behind it in shared memory: registers have room for one part.
#ifndef CADRE_KERNELS_CUDA_MMA_TILE_CUH_
#define CADRE_KERNELS_CUDA_MMA_TILE_CUH_

#include <cstdint>

#include "kernels/cuda/mma_strip.cuh"
#include "kernels/cuda/ptx.h"

namespace cadre::cuda {

inline constexpr int kTileWeights = 128;
inline constexpr int kTileTokens = 128;
inline constexpr int kTileThreads = 128;    // two warps over the weights, two over the tokens
inline constexpr int kTileBlocksPerSm = 2;  // one computes while the other waits
inline constexpr int kWarpTile = 64;        // weight rows and tokens of a warp
inline constexpr int kWarpWeightFrags = 4;  // of 16 rows
inline constexpr int kWarpTokenFrags = 8;   // of 8 rows
inline constexpr int kFragPairs = kWarpTokenFrags / 2;
inline constexpr int kCopyRows =
    kTileThreads / 4;  // rows of an operand that the block copies at once, 4 x 16 bytes each
inline constexpr int kCopies = kTileWeights / kCopyRows;
static_assert(kTileWeights == kTileTokens, "a thread copies as many rows of either");

// One chunk of depth of all rows of an operand: 64 bytes each, as the fragments want them.
using TileOperand = uint4[kTileWeights * 4];
struct TileStage {
  TileOperand weights;
  TileOperand tokens;
};
inline constexpr int kMostStages = 3;  // as many as let two blocks share a multiprocessor of Hopper
inline constexpr int kFewestStages = 2;

// Rows of a tile out of those that are left.
__device__ __forceinline__ int TileCount(int64_t rest, int tile) { return static_cast<int>(rest < tile ? rest : tile); }

// The accumulators of a thread. Element [i][j][r] is of weight row RowOfAccumulator(i, r) and token
// TokenOfAccumulator(j, r) of the block's tile.
using TileAccumulators = float[kWarpWeightFrags][kWarpTokenFrags][4];
constexpr size_t kTileTotalsBytes = sizeof(TileAccumulators) * kTileThreads;

__host__ __device__ constexpr size_t TileSharedBytes(int num_stages) {
  return kTileTotalsBytes + static_cast<size_t>(num_stages) * sizeof(TileStage);
}

__device__ __forceinline__ int TileLane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
__device__ __forceinline__ int FirstWeightOfWarp() { return static_cast<int>(threadIdx.x) / kWarpSize / 2 * kWarpTile; }
__device__ __forceinline__ int FirstTokenOfWarp() { return static_cast<int>(threadIdx.x) / kWarpSize % 2 * kWarpTile; }
__device__ __forceinline__ int RowOfAccumulator(int i, int r) {
  return FirstWeightOfWarp() + i * 16 + TileLane() / 4 + r / 2 * 8;
}
__device__ __forceinline__ int TokenOfAccumulator(int j, int r) {
  return FirstTokenOfWarp() + j * kTokenTile + TileLane() % 4 * 2 + r % 2;
}

// What a thread copies: 16 bytes of each chunk of rows CopyRow(0), CopyRow(1), ... of either operand. Each pointer is
// the beginning of its row; a row that is not there is zeros, and its pointer is not read.
__device__ __forceinline__ int CopyRow(int i) { return static_cast<int>(threadIdx.x) / 4 + i * kCopyRows; }
struct TileSources {
  const BFloat16* weights[kCopies];
  const BFloat16* tokens[kCopies];
  int num_weights;  // rows that are there, of the tile
  int num_tokens;
};

// Begins to copy a chunk. Fragments of tokens that nobody needs are neither copied nor computed.
__device__ __forceinline__ void CopyChunk(TileStage* stage, const TileSources& from, int64_t chunk) {
  const int64_t k = chunk * kDepthChunk + threadIdx.x % 4 * 8;
#pragma unroll
  for (int i = 0; i < kCopies; ++i) {
    CpAsync16(&stage->weights[i * kTileThreads + threadIdx.x], from.weights[i] + k, CopyRow(i) < from.num_weights);
  }
#pragma unroll
  for (int i = 0; i < kCopies; ++i) {
    CpAsync16(&stage->tokens[i * kTileThreads + threadIdx.x], from.tokens[i] + k, CopyRow(i) < from.num_tokens);
  }
}

// Adds the products of one chunk; `num_pairs` of the warp's pairs of token fragments are needed.
__device__ __forceinline__ void MultiplyChunk(TileAccumulators& acc, const TileStage& stage, int num_pairs) {
  const uint4* const weights = stage.weights + FirstWeightOfWarp() * 4 + TileLane();
  const uint4* const tokens = stage.tokens + FirstTokenOfWarp() * 4 + TileLane();
  uint4 low[kWarpWeightFrags];
  uint4 high[kWarpWeightFrags];
#pragma unroll
  for (int i = 0; i < kWarpWeightFrags; ++i) {
    low[i] = weights[i * 2 * kWarpSize];
    high[i] = weights[(i * 2 + 1) * kWarpSize];
  }
#pragma unroll
  for (int pair = 0; pair < kFragPairs; ++pair) {
    if (pair >= num_pairs) break;
    const int j = pair * 2;
    const uint4 b0 = tokens[j * kWarpSize];
    const uint4 b1 = tokens[(j + 1) * kWarpSize];
    // Eight products that do not wait for each other, and then the eight that wait for them.
#pragma unroll
    for (int i = 0; i < kWarpWeightFrags; ++i) {
      MmaM16N8K16Bf16(acc[i][j], {low[i].x, high[i].x, low[i].y, high[i].y}, {b0.x, b0.y});
      MmaM16N8K16Bf16(acc[i][j + 1], {low[i].x, high[i].x, low[i].y, high[i].y}, {b1.x, b1.y});
    }
#pragma unroll
    for (int i = 0; i < kWarpWeightFrags; ++i) {
      MmaM16N8K16Bf16(acc[i][j], {low[i].z, high[i].z, low[i].w, high[i].w}, {b0.z, b0.w});
      MmaM16N8K16Bf16(acc[i][j + 1], {low[i].z, high[i].z, low[i].w, high[i].w}, {b1.z, b1.w});
    }
  }
}

// acc = totals + acc, where the totals of the first part are zero. Each thread has its own totals.
__device__ __forceinline__ void AddTotals(TileAccumulators& acc, const float4* totals, bool is_first_part) {
#pragma unroll
  for (int i = 0; i < kWarpWeightFrags; ++i) {
#pragma unroll
    for (int j = 0; j < kWarpTokenFrags; ++j) {
      float4 total = {};
      if (!is_first_part) total = totals[(i * kWarpTokenFrags + j) * kTileThreads + threadIdx.x];
      acc[i][j][0] = total.x + acc[i][j][0];
      acc[i][j][1] = total.y + acc[i][j][1];
      acc[i][j][2] = total.z + acc[i][j][2];
      acc[i][j][3] = total.w + acc[i][j][3];
    }
  }
}

__device__ __forceinline__ void MoveToTotals(float4* totals, TileAccumulators& acc) {
#pragma unroll
  for (int i = 0; i < kWarpWeightFrags; ++i) {
#pragma unroll
    for (int j = 0; j < kWarpTokenFrags; ++j) {
      float(&sums)[4] = acc[i][j];
      totals[(i * kWarpTokenFrags + j) * kTileThreads + threadIdx.x] = {sums[0], sums[1], sums[2], sums[3]};
      sums[0] = sums[1] = sums[2] = sums[3] = 0.0f;
    }
  }
}

// acc = dot(weight row, token) of the whole depth, a multiple of kDepthChunk. All threads of the block call; `shared`
// is TileSharedBytes(kStages).
template <int kStages>
__device__ __forceinline__ void TileProducts(TileAccumulators& acc, const TileSources& from, int64_t depth,
                                             unsigned char* shared) {
  float4* const totals = reinterpret_cast<float4*>(shared);
  TileStage* const stages = reinterpret_cast<TileStage*>(shared + kTileTotalsBytes);
  const auto num_chunks = static_cast<int>(depth / kDepthChunk);
  const auto part_chunks = static_cast<int>(ChunksOfPart(depth));
  const int rest = from.num_tokens - FirstTokenOfWarp();
  const int num_pairs = rest <= 0 ? 0 : (rest + 2 * kTokenTile - 1) / (2 * kTokenTile);
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < num_chunks) CopyChunk(&stages[stage], from, stage);
    CpAsyncCommit();
  }
  for (int begin = 0; begin < num_chunks; begin += part_chunks) {
    const int end = begin + part_chunks < num_chunks ? begin + part_chunks : num_chunks;
    for (int chunk = begin; chunk < end; ++chunk) {
      CpAsyncWait<kStages - 2>();
      __syncthreads();  // the chunk is there for all, and nobody reads the stage that is filled next
      const int next = chunk + kStages - 1;
      if (next < num_chunks) CopyChunk(&stages[next % kStages], from, next);
      CpAsyncCommit();
      MultiplyChunk(acc, stages[chunk % kStages], num_pairs);
    }
    AddTotals(acc, totals, begin == 0);
    if (end < num_chunks) MoveToTotals(totals, acc);
  }
}

// Whether so many products, activation rows by weight rows, make enough tiles to keep a card busy for as long as a
// block takes; fewer are done sooner as strips, which read the weights more often but have many more blocks. Both give
// the same bits.
constexpr bool AreEnoughForTiles(int64_t num_rows, int64_t num_weights) {
  return num_rows > kMaxStripTokens && num_rows * num_weights >= int64_t{16} * kTileTokens * kTileWeights;
}

// Whether a block of the current device may have the shared memory of so many stages.
bool HasRoomForStages(int num_stages);

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_MMA_TILE_CUH_
