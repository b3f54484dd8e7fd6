// The list of runs of rows.
#include "kernels/cuda/attention_runs.cuh"
#include "kernels/cuda/launch.h"

namespace cadre::cuda {
namespace {

constexpr int kListThreads = 1024;
constexpr int kListWarps = kListThreads / kWarpSize;
constexpr size_t kHeaderBytes = 16;

// Runs are cut at multiples of max_rows in the step, which needs no looking back.
__device__ bool BeginsRun(const AttentionTensors& t, int64_t row, int max_rows) {
  if (row % max_rows == 0 || t.sequences[row] != t.sequences[row - 1]) return true;
  return t.sequences[row] != kPadding && t.positions[row] != t.positions[row - 1] + 1;
}

// By one block, kListThreads rows at a time.
__global__ void __launch_bounds__(kListThreads)
    ListRunsKernel(int32_t* num_runs, int32_t* firsts, AttentionTensors t, int max_rows) {
  CADRE_SHARED(int, runs_of_warp, [kListWarps]);
  const unsigned warp = threadIdx.x / kWarpSize;
  const unsigned lane = threadIdx.x % kWarpSize;
  int before = 0;
  for (int64_t base = 0; base < t.num_rows; base += kListThreads) {
    const int64_t row = base + threadIdx.x;
    const bool begins = row < t.num_rows && BeginsRun(t, row, max_rows);
    const unsigned of_warp = __ballot_sync(kAllLanes, begins);
    if (lane == 0) runs_of_warp[warp] = __popc(of_warp);
    __syncthreads();
    int index = before + __popc(of_warp & ((1u << lane) - 1));
    for (unsigned w = 0; w < kListWarps; ++w) {
      if (w < warp) index += runs_of_warp[w];
      before += runs_of_warp[w];
    }
    if (begins) firsts[index] = static_cast<int32_t>(row);
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    *num_runs = before;
    firsts[before] = static_cast<int32_t>(t.num_rows);
  }
}

}  // namespace

size_t RunListBytes(int64_t max_rows) { return kHeaderBytes + static_cast<size_t>(max_rows + 1) * sizeof(int32_t); }

cudaError_t LaunchListRuns(cudaStream_t stream, const AttentionTensors& t, int max_rows, std::byte* scratch,
                           RunList* list) {
  auto* const num_runs = reinterpret_cast<int32_t*>(scratch);
  auto* const firsts = reinterpret_cast<int32_t*>(scratch + kHeaderBytes);
  *list = {num_runs, firsts, t.num_rows};
  return Launch(stream, {.blocks = dim3(1), .threads = dim3(kListThreads)}, ListRunsKernel, num_runs, firsts, t,
                max_rows);
}

}  // namespace cadre::cuda
