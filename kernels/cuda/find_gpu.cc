#include "kernels/cuda/find_gpu.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_kernels.h"

namespace cadre::cuda {
namespace {

// What of the outside world keeps CUDA from working, in words.
absl::Status Explain(cudaError_t error) {
  switch (error) {
    case cudaErrorInsufficientDriver:
      return absl::FailedPreconditionError(
          "the NVIDIA driver is missing, or older than the CUDA runtime that this cadre was built with");
    case cudaErrorNoDevice:
      return absl::FailedPreconditionError(
          "no NVIDIA GPU is visible: is there one, is CUDA_VISIBLE_DEVICES empty, was the container given it?");
    case cudaErrorOperatingSystem:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
      return absl::FailedPreconditionError(absl::StrCat(
          "the NVIDIA driver cannot be used (permission, or a restart is due): ", cudaGetErrorString(error)));
    default:
      return ToStatus(error, "starting CUDA");
  }
}

}  // namespace

absl::StatusOr<cudaDeviceProp> FindGpu() {
  int num_devices = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&num_devices); error != cudaSuccess) return Explain(error);
  cudaDeviceProp properties = {};
  CADRE_CUDA_RETURN_IF_ERROR(cudaGetDeviceProperties(&properties, 0), "reading the GPU's properties");
  const cudaError_t probe = ProbeKernels();
  if (probe == cudaErrorNoKernelImageForDevice || probe == cudaErrorInvalidDeviceFunction) {
    return absl::FailedPreconditionError(
        absl::StrCat(properties.name, " is of architecture sm_", properties.major, properties.minor,
                     ", which this cadre has no kernels for: ", cudaGetErrorString(probe)));
  }
  if (probe != cudaSuccess) return Explain(probe);
  return properties;
}

std::string DescribeGpu(const cudaDeviceProp& gpu) {
  return absl::StrCat(gpu.name, ", sm_", gpu.major, gpu.minor, ", ", gpu.multiProcessorCount, " SMs");
}

}  // namespace cadre::cuda
