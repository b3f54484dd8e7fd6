// An NVIDIA GPU (the first one that CUDA_VISIBLE_DEVICES leaves) as a device: its memory, one stream on which
// everything is ordered, and the verbs.
#ifndef CADRE_KERNELS_CUDA_CUDA_DEVICE_H_
#define CADRE_KERNELS_CUDA_CUDA_DEVICE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace cadre {

struct CudaDeviceOptions {
  // Of the memory that is free at the start, what Allocate may give in all; (0, 1].
  double memory_utilization = 0.9;
  // Memory that the host may read and write, and verbs that have ended when they return: for tests of small tensors.
  bool host_readable = false;
};

// Whether this build has CUDA in it at all.
bool IsCudaBuilt();

// FAILED_PRECONDITION that says what is missing: CUDA in this build, a driver, a driver new enough, permission, a
// device, or kernels for its architecture. INVALID_ARGUMENT for options out of range.
absl::StatusOr<std::unique_ptr<Device>> CreateCudaDevice(const CudaDeviceOptions& options = {});

}  // namespace cadre

#endif  // CADRE_KERNELS_CUDA_CUDA_DEVICE_H_
