// WriteKv: each row's key and value into the paged cache.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"

namespace cadre::cuda {
namespace {

constexpr int kWriteThreads = 128;

// One block for each row (x) and kv head (y).
template <typename T>
__global__ void __launch_bounds__(kWriteThreads)
    WriteKvKernel(T* k_cache, T* v_cache, const float* k, const float* v, const int32_t* slots, int64_t num_slots,
                  int64_t block_size, int64_t d) {
  const int64_t slot = slots[blockIdx.x];
  if (slot == kPadding) return;
  if (slot < 0 || slot >= num_slots) __trap();
  const int64_t num_kv_heads = gridDim.y;
  const int64_t from = (static_cast<int64_t>(blockIdx.x) * num_kv_heads + blockIdx.y) * d;
  const int64_t to = ((slot / block_size * num_kv_heads + blockIdx.y) * block_size + slot % block_size) * d;
  for (int64_t i = threadIdx.x; i < d; i += kWriteThreads) {
    k_cache[to + i] = FromFloat<T>(k[from + i]);
    v_cache[to + i] = FromFloat<T>(v[from + i]);
  }
}

}  // namespace

cudaError_t LaunchWriteKv(cudaStream_t stream, View k_cache, View v_cache, ConstView k, ConstView v, ConstView slots) {
  const Grid grid = {.blocks = dim3(static_cast<unsigned>(slots.dim(0)), static_cast<unsigned>(k_cache.dim(1))),
                     .threads = dim3(kWriteThreads)};
  return DispatchFloat(k_cache.dtype(), [&]<typename T>() {
    return Launch(stream, grid, WriteKvKernel<T>, Data<T>(k_cache), Data<T>(v_cache), Data<float>(k), Data<float>(v),
                  Data<int32_t>(slots), k_cache.dim(0) * k_cache.dim(2), k_cache.dim(2), k_cache.dim(3));
  });
}

}  // namespace cadre::cuda
