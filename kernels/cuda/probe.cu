// Whether kernels of this build run on the current device.
#include "kernels/cuda/cuda_kernels.h"

namespace cadre::cuda {
namespace {

__global__ void ProbeKernel() {}

}  // namespace

cudaError_t ProbeKernels() { return Launch(nullptr, {.blocks = dim3(1), .threads = dim3(1)}, ProbeKernel); }

}  // namespace cadre::cuda
