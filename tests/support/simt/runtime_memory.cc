// Memory of the device and of the host: counted, poisoned, and guarded on both sides.
#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "tests/support/simt/block.h"
#include "tests/support/simt/runtime_state.h"
#include "tests/support/simt/simt_runtime.h"

namespace simt {
namespace {

using AllocationMap = std::map<uintptr_t, Allocation>;

constexpr size_t kAlignment = 256;  // of cudaMalloc
constexpr size_t kGuardBytes = 256;
constexpr std::byte kGuard{0xA5};
constexpr int kPoison = 0xFF;

uintptr_t Address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

// Null where the host has no memory.
void* Allocate(AllocationMap& map, size_t size_bytes) {
  Allocation allocation;
  allocation.size_bytes = size_bytes;
  const size_t total = size_bytes + 2 * kGuardBytes + kAlignment;
  allocation.block.reset(new (std::nothrow) std::byte[total]);
  if (allocation.block == nullptr) return nullptr;
  const uintptr_t first = Address(allocation.block.get()) + kGuardBytes;
  const uintptr_t data = (first + kAlignment - 1) / kAlignment * kAlignment;
  std::memset(allocation.block.get(), static_cast<int>(kGuard), total);
  std::memset(reinterpret_cast<void*>(data), kPoison, size_bytes);
  map.emplace(data, std::move(allocation));
  return reinterpret_cast<void*>(data);
}

// The allocation that [pointer, pointer + size_bytes) lies in, or end().
AllocationMap::const_iterator FindRange(const AllocationMap& map, const void* pointer, size_t size_bytes) {
  auto after = map.upper_bound(Address(pointer));
  if (after == map.begin()) return map.end();
  const auto found = std::prev(after);
  const size_t offset = Address(pointer) - found->first;
  if (offset > found->second.size_bytes || size_bytes > found->second.size_bytes - offset) return map.end();
  return found;
}

void CheckGuardsOf(const AllocationMap::value_type& entry) {
  const auto is_guard = [](std::byte byte) { return byte == kGuard; };
  const std::byte* const data = reinterpret_cast<const std::byte*>(entry.first);
  const std::byte* const end = data + entry.second.size_bytes;
  const std::byte* const front = data - kGuardBytes;
  if (const std::byte* const touched = std::find_if_not(front, data, is_guard); touched != data) {
    Fail("somebody wrote %td bytes before an allocation of %zu bytes", data - touched, entry.second.size_bytes);
  }
  if (const std::byte* const touched = std::find_if_not(end, end + kGuardBytes, is_guard);
      touched != end + kGuardBytes) {
    Fail("somebody wrote byte %td of an allocation of %zu bytes", touched - data, entry.second.size_bytes);
  }
}

cudaError_t AllocateOnDevice(void** pointer, size_t size_bytes) {
  RuntimeState& runtime = Runtime();
  if (pointer == nullptr) return cudaErrorInvalidValue;
  if (BreaksCapture()) return cudaErrorStreamCaptureUnsupported;
  *pointer = nullptr;
  if (size_bytes == 0) return cudaSuccess;
  if (size_bytes > runtime.options.memory_bytes - runtime.device_bytes) return cudaErrorMemoryAllocation;
  *pointer = Allocate(runtime.device_memory, size_bytes);
  if (*pointer == nullptr) return cudaErrorMemoryAllocation;
  runtime.device_bytes += size_bytes;
  return cudaSuccess;
}

cudaError_t AllocateOnHost(void** pointer, size_t size_bytes) {
  *pointer = size_bytes == 0 ? nullptr : Allocate(Runtime().host_memory, size_bytes);
  return *pointer == nullptr && size_bytes > 0 ? cudaErrorMemoryAllocation : cudaSuccess;
}

}  // namespace

bool IsDeviceRange(const void* pointer, size_t size_bytes) {
  const AllocationMap& memory = Runtime().device_memory;
  return FindRange(memory, pointer, size_bytes) != memory.end();
}

bool TouchesDevice(const void* pointer, size_t size_bytes) {
  const AllocationMap& memory = Runtime().device_memory;
  const auto after = memory.lower_bound(Address(pointer) + size_bytes);
  if (after == memory.begin()) return false;
  const auto last = std::prev(after);
  return last->first + last->second.size_bytes > Address(pointer);
}

bool IsPinned(const void* pointer, size_t size_bytes) {
  const AllocationMap& memory = Runtime().host_memory;
  return FindRange(memory, pointer, size_bytes) != memory.end();
}

void CheckGuards() {
  std::ranges::for_each(Runtime().device_memory, CheckGuardsOf);
  std::ranges::for_each(Runtime().host_memory, CheckGuardsOf);
}

}  // namespace simt

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  CADRE_SIMT_CALL("cudaMemGetInfo");
  *total_bytes = simt::Runtime().options.memory_bytes;
  *free_bytes = *total_bytes - simt::Runtime().device_bytes;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, size_t size_bytes) {
  CADRE_SIMT_CALL("cudaMalloc");
  return call.Return(simt::AllocateOnDevice(pointer, size_bytes));
}

cudaError_t cudaMallocManaged(void** pointer, size_t size_bytes, unsigned flags) {
  CADRE_SIMT_CALL("cudaMallocManaged");
  // Unlike cudaMalloc it refuses an empty allocation.
  if (size_bytes == 0 || (flags != cudaMemAttachGlobal && flags != cudaMemAttachHost)) {
    return call.Return(cudaErrorInvalidValue);
  }
  return call.Return(simt::AllocateOnDevice(pointer, size_bytes));
}

cudaError_t cudaFree(void* pointer) {
  // A lost device takes its memory along: what is freed afterwards is freed all the same, and the error is told.
  const simt::Call call("cudaFree");
  simt::RuntimeState& runtime = simt::Runtime();
  if (call.fails() && runtime.sticky_error == cudaSuccess) return call.error();
  if (pointer == nullptr) return call.error();
  if (simt::BreaksCapture()) return call.Return(cudaErrorStreamCaptureUnsupported);
  const auto found = runtime.device_memory.find(simt::Address(pointer));
  if (found == runtime.device_memory.end()) return call.Return(cudaErrorInvalidValue);
  simt::DrainAll();
  simt::CheckGuardsOf(*found);
  runtime.device_bytes -= found->second.size_bytes;
  runtime.device_memory.erase(found);
  return runtime.sticky_error;
}

cudaError_t cudaMallocHost(void** pointer, size_t size_bytes) {
  CADRE_SIMT_CALL("cudaMallocHost");
  return call.Return(simt::AllocateOnHost(pointer, size_bytes));
}

cudaError_t cudaHostAlloc(void** pointer, size_t size_bytes, unsigned /*flags*/) {
  CADRE_SIMT_CALL("cudaHostAlloc");
  return call.Return(simt::AllocateOnHost(pointer, size_bytes));
}

cudaError_t cudaHostGetDevicePointer(void** on_device, void* on_host, unsigned flags) {
  CADRE_SIMT_CALL("cudaHostGetDevicePointer");
  if (flags != 0 || !simt::IsPinned(on_host, 1)) return call.Return(cudaErrorInvalidValue);
  *on_device = on_host;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  const simt::Call call("cudaFreeHost");
  simt::RuntimeState& runtime = simt::Runtime();
  if (call.fails() && runtime.sticky_error == cudaSuccess) return call.error();
  if (pointer == nullptr) return call.error();
  const auto found = runtime.host_memory.find(simt::Address(pointer));
  if (found == runtime.host_memory.end()) return call.Return(cudaErrorInvalidValue);
  simt::DrainAll();
  simt::CheckGuardsOf(*found);
  runtime.host_memory.erase(found);
  return runtime.sticky_error;
}
