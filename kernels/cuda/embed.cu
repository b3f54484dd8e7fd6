// GatherRows: the token embedding, and rows picked for the head. FillSampledTokens: what is embedded.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"

namespace cadre::cuda {
namespace {

constexpr int kGatherThreads = 256;
constexpr int kFillThreads = 256;

// One block for each row. An id outside the table is our own mistake: it stops the device.
template <typename T>
__global__ void __launch_bounds__(kGatherThreads)
    GatherRowsKernel(float* out, const T* table, const int32_t* rows, int64_t table_rows, int64_t d) {
  const int64_t row = rows[blockIdx.x];
  float* const to = out + static_cast<int64_t>(blockIdx.x) * d;
  if (row == kPadding) {
    for (int64_t i = threadIdx.x; i < d; i += kGatherThreads) to[i] = 0.0f;
    return;
  }
  if (row < 0 || row >= table_rows) __trap();
  const T* const from = table + row * d;
  for (int64_t i = threadIdx.x; i < d; i += kGatherThreads) to[i] = ToFloat(from[i]);
}

// One thread for each id. A row that was not sampled in the step before is our own mistake: it stops the device.
__global__ void __launch_bounds__(kFillThreads)
    FillSampledTokensKernel(int32_t* ids, const int32_t* sampled, int64_t num_ids, int64_t num_sampled) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kFillThreads + threadIdx.x;
  if (i >= num_ids || ids[i] >= 0 || ids[i] == kPadding) return;
  const int64_t row = -1 - int64_t{ids[i]};
  if (row >= num_sampled) __trap();
  ids[i] = sampled[row] < 0 ? 0 : sampled[row];
}

}  // namespace

cudaError_t LaunchGatherRows(cudaStream_t stream, View out, ConstView table, ConstView rows) {
  const Grid grid = {.blocks = dim3(static_cast<unsigned>(rows.dim(0))), .threads = dim3(kGatherThreads)};
  return DispatchFloat(table.dtype(), [&]<typename T>() {
    return Launch(stream, grid, GatherRowsKernel<T>, Data<float>(out), Data<T>(table), Data<int32_t>(rows),
                  table.dim(0), table.dim(1));
  });
}

cudaError_t LaunchFillSampledTokens(cudaStream_t stream, View token_ids, ConstView sampled) {
  const int64_t num_ids = token_ids.dim(0);
  const Grid grid = {.blocks = dim3(static_cast<unsigned>((num_ids + kFillThreads - 1) / kFillThreads)),
                     .threads = dim3(kFillThreads)};
  return Launch(stream, grid, FillSampledTokensKernel, Data<int32_t>(token_ids), Data<int32_t>(sampled), num_ids,
                sampled.dim(0));
}

}  // namespace cadre::cuda
