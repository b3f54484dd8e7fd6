// The GPU that this process works on, if it can work on one.
#ifndef CADRE_KERNELS_CUDA_FIND_GPU_H_
#define CADRE_KERNELS_CUDA_FIND_GPU_H_

#include <string>

#include "absl/status/statusor.h"
#include "kernels/cuda/launch.h"

namespace cadre::cuda {

// The first GPU that CUDA_VISIBLE_DEVICES leaves, after a kernel has run on it. FAILED_PRECONDITION as of
// CreateCudaDevice.
absl::StatusOr<cudaDeviceProp> FindGpu();

// "NVIDIA H100 80GB HBM3, sm_90, 132 SMs"
std::string DescribeGpu(const cudaDeviceProp& gpu);

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_FIND_GPU_H_
