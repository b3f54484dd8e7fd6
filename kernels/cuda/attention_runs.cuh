// Runs of rows that attention computes together, because they see almost the same positions.
#ifndef CADRE_KERNELS_CUDA_ATTENTION_RUNS_CUH_
#define CADRE_KERNELS_CUDA_ATTENTION_RUNS_CUH_

#include <cstdint>

#include "kernels/cuda/attention.cuh"

namespace cadre::cuda {

// Rows [first, first + count): of one sequence and at positions that follow one another, or all of them padding.
struct RowRun {
  int32_t first;
  int32_t count;
};

// What a kernel that walks through runs is given. Without a list, every row is a run.
struct RunList {
  const int32_t* num_runs;  // or null
  const int32_t* firsts;    // [num_runs + 1], rising; num_rows at the end
  int64_t num_rows;

  __device__ int64_t size() const { return num_runs == nullptr ? num_rows : *num_runs; }
  __device__ RowRun operator[](int64_t i) const {
    if (num_runs == nullptr) return {static_cast<int32_t>(i), 1};
    return {firsts[i], firsts[i + 1] - firsts[i]};
  }
};

// Makes the list of runs of up to `max_rows` rows in `scratch` (RunListBytes). By one block.
cudaError_t LaunchListRuns(cudaStream_t stream, const AttentionTensors& t, int max_rows, std::byte* scratch,
                           RunList* list);

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_ATTENTION_RUNS_CUH_
