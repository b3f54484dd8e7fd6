// Errors, faults, and what the device says about itself.
#include <algorithm>
#include <cstring>

#include "tests/support/simt/block.h"
#include "tests/support/simt/runtime_state.h"
#include "tests/support/simt/simt_runtime.h"

namespace simt {
namespace {

constexpr size_t kDefaultSharedBytes = 48 << 10;
constexpr size_t kSharedBytesOfMultiprocessor = 228 << 10;
constexpr int kRuntimeVersion = 13000;

struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
  bool is_sticky;
};
constexpr ErrorText kErrors[] = {
#define CADRE_SIMT_TEXT(name, value, text, is_sticky) {name, #name, text, is_sticky},
    CADRE_SIMT_ERRORS(CADRE_SIMT_TEXT)
#undef CADRE_SIMT_TEXT
};

const ErrorText* Find(cudaError_t error) {
  const auto* const found = std::ranges::find(kErrors, error, &ErrorText::error);
  return found == std::end(kErrors) ? nullptr : found;
}

cudaError_t InjectedError(RuntimeState& runtime, std::string_view call) {
  for (auto fault = runtime.faults.begin(); fault != runtime.faults.end(); ++fault) {
    if (fault->call != call) continue;
    if (fault->num_passing-- > 0) return cudaSuccess;
    const cudaError_t error = fault->error;
    runtime.faults.erase(fault);
    return error;
  }
  return cudaSuccess;
}

}  // namespace

RuntimeState& Runtime() {
  static RuntimeState& state = *new RuntimeState;  // outlives whatever frees memory at the end of the process
  return state;
}

bool IsStickyError(cudaError_t error) {
  const ErrorText* const found = Find(error);
  return found != nullptr && found->is_sticky;
}

Call::Call(const char* name) : lock_(Runtime().mutex) {
  RuntimeState& runtime = Runtime();
  error_ = runtime.sticky_error;
  if (error_ != cudaSuccess) return;
  error_ = Return(InjectedError(runtime, name));
}

cudaError_t Call::Return(cudaError_t error) const {
  RuntimeState& runtime = Runtime();
  if (IsStickyError(error)) runtime.sticky_error = error;
  if (error != cudaSuccess && error != cudaErrorNotReady) runtime.last_error = error;
  return error;
}

void FailNext(std::string_view name, cudaError_t error, int after_n_calls) {
  const std::scoped_lock lock(Runtime().mutex);
  Runtime().faults.push_back({std::string(name), error, after_n_calls});
}

void SetCopyTime(CopyTime time) {
  const std::scoped_lock lock(Runtime().mutex);
  Runtime().copy_time = time;
}

void BreakNextKernel(cudaError_t error) {
  const std::scoped_lock lock(Runtime().mutex);
  if (!IsStickyError(error)) Fail("BreakNextKernel with %s, which is not sticky", cudaGetErrorName(error));
  Runtime().next_kernel_error = error;
}

ResourcesInUse Resources() {
  RuntimeState& runtime = Runtime();
  const std::scoped_lock lock(runtime.mutex);
  return {
      .device_allocations = runtime.device_memory.size(),
      .device_bytes = runtime.device_bytes,
      .host_allocations = runtime.host_memory.size(),
      .handles = runtime.streams.size() + runtime.events.size() + runtime.graphs.size() + runtime.executables.size()};
}

size_t NumKernels() {
  const std::scoped_lock lock(Runtime().mutex);
  return Runtime().num_kernels;
}

void ResetDevice(const DeviceOptions& options) {
  RuntimeState& runtime = Runtime();
  const std::scoped_lock lock(runtime.mutex);
  const ResourcesInUse left = Resources();
  if (left != ResourcesInUse{}) {
    Fail("%zu allocations of the device (%zu bytes), %zu of the host and %zu handles were not freed",
         left.device_allocations, left.device_bytes, left.host_allocations, left.handles);
  }
  runtime.options = options;
  runtime.last_error = cudaSuccess;
  runtime.sticky_error = cudaSuccess;
  runtime.next_kernel_error = cudaSuccess;
  runtime.faults.clear();
  runtime.num_kernels = 0;
  runtime.copy_time = CopyTime::kLate;
  runtime.dynamic_shared_limits.clear();
}

}  // namespace simt

const char* cudaGetErrorName(cudaError_t error) {
  const simt::ErrorText* const found = simt::Find(error);
  return found == nullptr ? "unrecognized error code" : found->name;
}

const char* cudaGetErrorString(cudaError_t error) {
  const simt::ErrorText* const found = simt::Find(error);
  return found == nullptr ? "unrecognized error code" : found->text;
}

cudaError_t cudaPeekAtLastError() {
  const std::scoped_lock lock(simt::Runtime().mutex);
  const simt::RuntimeState& runtime = simt::Runtime();
  return runtime.sticky_error != cudaSuccess ? runtime.sticky_error : runtime.last_error;
}

cudaError_t cudaGetLastError() {
  const std::scoped_lock lock(simt::Runtime().mutex);
  const cudaError_t error = cudaPeekAtLastError();
  simt::Runtime().last_error = cudaSuccess;
  return error;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  CADRE_SIMT_CALL("cudaGetDeviceCount");
  *count = simt::Runtime().options.num_devices;
  return call.Return(*count == 0 ? cudaErrorNoDevice : cudaSuccess);
}

cudaError_t cudaSetDevice(int device) {
  CADRE_SIMT_CALL("cudaSetDevice");
  // Its devices share one memory: several of them are for counting only.
  const bool is_known = device >= 0 && device < simt::Runtime().options.num_devices;
  return call.Return(is_known ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int* device) {
  CADRE_SIMT_CALL("cudaGetDevice");
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  CADRE_SIMT_CALL("cudaGetDeviceProperties");
  const simt::DeviceOptions& options = simt::Runtime().options;
  if (device < 0 || device >= options.num_devices) return call.Return(cudaErrorInvalidDevice);
  *properties = {.name = {},
                 .totalGlobalMem = options.memory_bytes,
                 .sharedMemPerBlock = simt::kDefaultSharedBytes,
                 .regsPerBlock = 65536,
                 .warpSize = 32,
                 .maxThreadsPerBlock = simt::kMaxThreads,
                 .maxThreadsDim = {1024, 1024, 64},
                 .maxGridSize = {2147483647, 65535, 65535},
                 .major = options.major,
                 .minor = options.minor,
                 .multiProcessorCount = options.num_multiprocessors,
                 .integrated = 0,
                 .pciBusID = 1,
                 .pciDeviceID = 0,
                 .pciDomainID = 0,
                 .memoryBusWidth = 5120,
                 .l2CacheSize = 50 << 20,
                 .maxThreadsPerMultiProcessor = 2048,
                 .sharedMemPerMultiprocessor = simt::kSharedBytesOfMultiprocessor,
                 .sharedMemPerBlockOptin = options.max_shared_bytes,
                 .reservedSharedMemPerBlock = 1024};
  std::strncpy(properties->name, options.name, sizeof(properties->name) - 1);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  CADRE_SIMT_CALL("cudaDeviceGetAttribute");
  const simt::DeviceOptions& options = simt::Runtime().options;
  if (device < 0 || device >= options.num_devices) return call.Return(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = simt::kMaxThreads;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = simt::kDefaultSharedBytes;
      return cudaSuccess;
    case cudaDevAttrWarpSize:
      *value = 32;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = options.num_multiprocessors;
      return cudaSuccess;
    case cudaDevAttrL2CacheSize:
      *value = 50 << 20;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = options.major;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = options.minor;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = simt::kSharedBytesOfMultiprocessor;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(options.max_shared_bytes);
      return cudaSuccess;
  }
  return call.Return(cudaErrorInvalidValue);
}

cudaError_t cudaDriverGetVersion(int* version) {
  CADRE_SIMT_CALL("cudaDriverGetVersion");
  *version = simt::Runtime().options.driver_version;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  CADRE_SIMT_CALL("cudaRuntimeGetVersion");
  *version = simt::kRuntimeVersion;
  return cudaSuccess;
}
