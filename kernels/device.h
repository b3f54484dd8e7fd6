// A place where tensors live and ops run: memory, copies, one synchronization point.
#ifndef CADRE_KERNELS_DEVICE_H_
#define CADRE_KERNELS_DEVICE_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
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

// Ops that were ordered once and can be ordered again as one piece, with the same arguments: what changes between two
// times is what the memory behind them holds. Freed before its device.
class RecordedWork {
 public:
  virtual ~RecordedWork() = default;
};

// A place in the order of a device's work, which can be waited for. Freed before its device.
class WorkMark {
 public:
  virtual ~WorkMark() = default;
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
  // Memory of the host, 64-byte aligned and zeroed, which copies to and from the device read and write at full speed
  // and without waiting: it must stay as it is until they have ended.
  virtual absl::StatusOr<DeviceBuffer> AllocateStaging(size_t size_bytes) { return Allocate(size_bytes); }
  // Bytes that Allocate can still be expected to give (for the memory plan).
  virtual size_t AvailableBytes() const = 0;
  // Memory of the host that ops read where it lies, over the link, 64-byte aligned: for weights that the device has no
  // room for. It holds anything at first. RESOURCE_EXHAUSTED names the size; UNIMPLEMENTED where ops read nothing but
  // what Allocate gives.
  virtual absl::StatusOr<DeviceBuffer> AllocateMapped(size_t /*size_bytes*/) {
    return absl::UnimplementedError(name() + " reads no memory but its own");
  }
  // Bytes that AllocateMapped can still be expected to give.
  virtual size_t AvailableMappedBytes() const { return 0; }

  // Whether the memory that Allocate gives is the host's, too: threads of the host may write there what no op uses yet.
  virtual bool shares_host_memory() const { return true; }
  // Backs all that was allocated with memory, so that none is missing when it is first used. RESOURCE_EXHAUSTED when
  // there is not enough. Nothing where Allocate does so at once.
  virtual absl::Status CommitMemory() { return absl::OkStatus(); }
  // Gives the host's memory behind the whole pages of `view` back to the system; the next use takes it again, and finds
  // anything there. Nothing where memory is not the host's.
  virtual void ReleasePages(View /*view*/) {}

  // Address space for memory that is used in parts, 64-byte aligned and zeroed. It takes memory where it is written to;
  // AvailableBytes counts `counted_bytes` of it as given away, and CommitMemory leaves it alone. UNIMPLEMENTED where
  // memory cannot be given back by the page.
  virtual absl::StatusOr<DeviceBuffer> Reserve(size_t /*size_bytes*/, size_t /*counted_bytes*/) {
    return absl::UnimplementedError(name() + " reserves no address space");
  }
  // Backs `view`, of what Reserve gave, with memory. RESOURCE_EXHAUSTED when there is not enough.
  virtual absl::Status CommitPages(View /*view*/) {
    return absl::UnimplementedError(name() + " reserves no address space");
  }

  // Copies `view.size_bytes()` bytes; ordered with the ops.
  virtual void CopyToDevice(View to, const void* from) = 0;
  virtual void CopyToHost(void* to, ConstView from) = 0;

  // Copies from AllocateMapped's memory beside the ops: it begins when everything has ended that was ordered before,
  // and nothing that is ordered later waits for it. Such copies end in the order in which they were ordered. After an
  // error, which is this copy's alone, `to` may hold anything.
  virtual absl::Status CopyInBackground(View /*to*/, const void* /*from*/) {
    return absl::UnimplementedError(name() + " copies nothing in the background");
  }
  // How many copies in the background have ended since the start: what ops that are ordered now find in place.
  virtual absl::StatusOr<int64_t> CountBackgroundCopies() { return 0; }
  // Waits for all of them. Synchronize does not.
  virtual absl::Status FinishBackgroundCopies() { return absl::OkStatus(); }

  // Whether Record works here.
  virtual bool can_record() const { return false; }
  // Records the ops that `order` orders, which are not run. It may order nothing else: no copies, no allocation, no
  // Synchronize; and nothing that an op does only once, so the same ops must have run before. INTERNAL otherwise.
  // RESOURCE_EXHAUSTED when there is no memory to keep it. REQUIRES: can_record().
  virtual absl::StatusOr<std::unique_ptr<RecordedWork>> Record(absl::FunctionRef<void()> /*order*/) {
    return absl::UnimplementedError(name() + " records nothing");
  }
  // Orders what was recorded on this device.
  virtual void Replay(const RecordedWork& /*work*/) { CADRE_CHECK(can_record()); }

  // Whether ops and copies run beside the host, so that it can order more before what it ordered has ended: then what
  // follows works here.
  virtual bool can_mark() const { return false; }
  // INTERNAL when the device has no more marks. REQUIRES: can_mark(), as the next two.
  virtual absl::StatusOr<std::unique_ptr<WorkMark>> CreateMark() {
    return absl::UnimplementedError(name() + " runs nothing beside the host");
  }
  // Puts `mark` behind all ops and copies that are ordered so far; where it was before is forgotten.
  virtual void Mark(WorkMark* /*mark*/) { CADRE_CHECK(can_mark()); }
  // Waits for what is in front of `mark`, and for nothing behind it; reports as Synchronize does. An error of ordering
  // what is behind the mark is told here, too.
  virtual absl::Status Await(const WorkMark& /*mark*/) { return Synchronize(); }

  // Waits for all ops and copies; reports the first device error since the last call, or the last call of Await.
  virtual absl::Status Synchronize() = 0;
  // Whether an error was such that nothing will ever work again, in this process.
  virtual bool is_lost() const { return false; }

  virtual Ops& ops() = 0;
};

}  // namespace cadre

#endif  // CADRE_KERNELS_DEVICE_H_
