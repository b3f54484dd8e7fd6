// How a test sets up the emulated device, breaks it, and looks at what is left.
#ifndef CADRE_TESTS_SUPPORT_SIMT_RUNTIME_CONTROL_H_
#define CADRE_TESTS_SUPPORT_SIMT_RUNTIME_CONTROL_H_

#include <cstddef>
#include <string_view>

#include "tests/support/simt/runtime_types.h"

namespace simt {

struct DeviceOptions {
  int num_devices = 1;  // 0: cudaGetDeviceCount says cudaErrorNoDevice
  size_t memory_bytes = size_t{4} << 30;
  const char* name = "Emulated device";
  int major = 9;
  int minor = 0;
  int num_multiprocessors = 132;
  size_t max_shared_bytes = size_t{227} << 10;  // of a block that asks for it
  int driver_version = 13000;
};

// A fresh process: no sticky error, no fault, no attribute. Fails if memory, streams, events or graphs are left.
void ResetDevice(const DeviceOptions& options = {});

// The call `name` fails with `error` after `after_n_calls` of them have passed; "kernel" stands for every launch. The
// call does nothing else. A sticky error (an illegal address, a failed launch, ...) is returned by every later call.
void FailNext(std::string_view name, cudaError_t error, int after_n_calls = 0);
// The next launch to run fails as a broken kernel does: the waiting call that makes it run returns `error`, and so does
// every later call. `error` is sticky.
void BreakNextKernel(cudaError_t error);

// When copies are done that nothing holds up: as late as may be, like everything else, or the moment that what they
// wait for is done. Both are what a real device may do. Late after ResetDevice.
enum class CopyTime { kLate, kEarly };
void SetCopyTime(CopyTime time);

struct ResourcesInUse {
  size_t device_allocations = 0;
  size_t device_bytes = 0;
  size_t host_allocations = 0;
  size_t handles = 0;  // streams, events and graphs

  friend bool operator==(const ResourcesInUse&, const ResourcesInUse&) = default;
};
ResourcesInUse Resources();

// Launches run since ResetDevice.
size_t NumKernels();

}  // namespace simt

#endif  // CADRE_TESTS_SUPPORT_SIMT_RUNTIME_CONTROL_H_
