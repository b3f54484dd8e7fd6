// The factory of kernels/cuda/cuda_device.h in a build without CUDA.
#include "kernels/cuda/cuda_device.h"

namespace cadre {

bool IsCudaBuilt() { return false; }

absl::StatusOr<std::unique_ptr<Device>> CreateCudaDevice(const CudaDeviceOptions& /*options*/) {
  return absl::FailedPreconditionError(
      "this cadre was built without CUDA (build with the CUDA toolkit installed, or "
      "-DCADRE_CUDA=ON)");
}

}  // namespace cadre
