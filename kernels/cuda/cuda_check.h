// From CUDA's error codes to absl::Status. Every call of the runtime goes through one of these.
#ifndef CADRE_KERNELS_CUDA_CUDA_CHECK_H_
#define CADRE_KERNELS_CUDA_CUDA_CHECK_H_

#if defined(CADRE_SIMT_EMULATOR)
#include <simt_runtime.h>
#else
#include <cuda_runtime_api.h>
#endif

#include <string_view>

#include "absl/status/status.h"

namespace cadre::cuda {

// OK for cudaSuccess. RESOURCE_EXHAUSTED: no memory; FAILED_PRECONDITION: no driver, or one that is too old, or no
// device; UNAVAILABLE: the device failed in the middle of its work and takes none any more. `what` was tried:
// "allocating 5 bytes".
absl::Status ToStatus(cudaError_t error, std::string_view what);

// Whether the device is lost to this process: every later call would fail as well.
bool IsSticky(cudaError_t error);

}  // namespace cadre::cuda

#define CADRE_CUDA_RETURN_IF_ERROR(call, what)                                             \
  do {                                                                                     \
    if (const cudaError_t cadre_error_ = (call); cadre_error_ != cudaSuccess) [[unlikely]] \
      return ::cadre::cuda::ToStatus(cadre_error_, what);                                  \
  } while (false)

// Where nothing can be done about an error any more: what is freed at the end, and a device that is lost.
#define CADRE_CUDA_IGNORE_ERROR(call) static_cast<void>(call)

#endif  // CADRE_KERNELS_CUDA_CUDA_CHECK_H_
