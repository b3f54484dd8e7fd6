// A place where tensors live and ops run: memory, copies, one synchronization point.
#ifndef CADRE_KERNELS_DEVICE_H_
#define CADRE_KERNELS_DEVICE_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/view.h"

namespace cadre {

class Ops;

// Owns one allocation on a device and frees it there. Movable, not copyable: a copy would need a stream.
class DeviceBuffer {
 public:
  using Deleter = std::function<void(std::byte*)>;

  DeviceBuffer() = default;
  DeviceBuffer(std::byte* data, size_t size_bytes, Deleter deleter)
      : data_(data, std::move(deleter)), size_bytes_(size_bytes) {}

  std::byte* data() const { return data_.get(); }
  size_t size_bytes() const { return size_bytes_; }

  // A view of `shape` elements that starts `offset_bytes` into the buffer.
  View view(DType dtype, Shape shape, size_t offset_bytes = 0) const {
    const View v(data_.get() + offset_bytes, dtype, shape);
    CADRE_CHECK_LE(offset_bytes + v.size_bytes(), size_bytes_);
    return v;
  }

 private:
  std::unique_ptr<std::byte, Deleter> data_;
  size_t size_bytes_ = 0;
};

// Thread rules: one thread (the engine's) uses a device after start; loading may use several threads, each with its own
// buffers.
class Device {
 public:
  virtual ~Device() = default;

  // "cpu" or "cuda:0".
  virtual std::string name() const = 0;
  // The kernels in use, for the log and for operators: "avx512-bf16, 2 threads".
  virtual std::string kernels() const = 0;

  // 64-byte aligned, zeroed. RESOURCE_EXHAUSTED names the size asked for and the size available.
  virtual absl::StatusOr<DeviceBuffer> Allocate(size_t size_bytes) = 0;
  // Bytes that Allocate can still be expected to give (for the memory plan).
  virtual size_t AvailableBytes() const = 0;

  // Copies `view.size_bytes()` bytes; ordered with the ops.
  virtual void CopyToDevice(View to, const void* from) = 0;
  virtual void CopyToHost(void* to, ConstView from) = 0;

  // Waits for all ops and copies; reports the first device error since the last call.
  virtual absl::Status Synchronize() = 0;
  // Whether an error was such that nothing will ever work again, in this process.
  virtual bool is_lost() const { return false; }

  virtual Ops& ops() = 0;
};

}  // namespace cadre

#endif  // CADRE_KERNELS_DEVICE_H_
