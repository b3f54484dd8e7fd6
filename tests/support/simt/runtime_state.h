// What the files of the emulated runtime share.
#ifndef CADRE_TESTS_SUPPORT_SIMT_RUNTIME_STATE_H_
#define CADRE_TESTS_SUPPORT_SIMT_RUNTIME_STATE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "tests/support/simt/runtime_control.h"
#include "tests/support/simt/runtime_types.h"

namespace simt {

using Work = std::function<void()>;

struct OrderedWork {
  Work run;
  std::function<bool()> can_run_early;  // null: never
};
inline bool AlwaysEarly() { return true; }

// What is recorded while streams are captured; the work in the order of the calls, which satisfies every dependency.
struct Capture {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  cudaStream_t origin = nullptr;
  bool is_valid = true;
  std::vector<Work> work;
};

struct Fault {
  std::string call;
  cudaError_t error;
  int num_passing;
};

struct Allocation {
  std::unique_ptr<std::byte[]> block;  // guard, data, guard
  size_t size_bytes = 0;
};

struct RuntimeState {
  std::recursive_mutex mutex;
  DeviceOptions options;
  cudaError_t last_error = cudaSuccess;
  cudaError_t sticky_error = cudaSuccess;
  cudaError_t next_kernel_error = cudaSuccess;
  std::vector<Fault> faults;
  size_t num_kernels = 0;
  CopyTime copy_time = CopyTime::kLate;
  bool is_running_early = false;

  std::map<uintptr_t, Allocation> device_memory;  // by address of the data
  size_t device_bytes = 0;
  std::map<uintptr_t, Allocation> host_memory;

  std::set<cudaStream_t> streams;
  std::set<cudaEvent_t> events;
  std::set<cudaGraph_t> graphs;
  std::set<cudaGraphExec_t> executables;
  std::set<Capture*> captures;
  std::map<const void*, size_t> dynamic_shared_limits;  // by kernel
};
RuntimeState& Runtime();

bool IsStickyError(cudaError_t error);

// Holds the runtime during one call, and says what the call returns before it does anything: a sticky error, an
// injected one, or success.
class Call {
 public:
  explicit Call(const char* name);
  bool fails() const { return error_ != cudaSuccess; }
  cudaError_t error() const { return error_; }
  // The result of the call, remembered for cudaGetLastError.
  cudaError_t Return(cudaError_t error) const;

 private:
  std::unique_lock<std::recursive_mutex> lock_;
  cudaError_t error_ = cudaSuccess;
};

#define CADRE_SIMT_CALL(name)    \
  const ::simt::Call call(name); \
  if (call.fails()) return call.error()

// ---- memory ----
bool IsDeviceRange(const void* pointer, size_t size_bytes);
bool TouchesDevice(const void* pointer, size_t size_bytes);
bool IsPinned(const void* pointer, size_t size_bytes);
// Fails if anything wrote next to an allocation.
void CheckGuards();

// ---- streams ----
// Orders `work`; null is the default stream, which waits for all others. False: `stream` does not exist.
// `can_run_early`: with CopyTime::kEarly it is done as soon as that says so and the work before it is done.
bool Enqueue(cudaStream_t stream, Work work, std::function<bool()> can_run_early = nullptr);
Capture* CaptureOf(cudaStream_t stream);
// Whether a capture forbids what waits for the device or changes its memory; that capture is then broken.
bool BreaksCapture();
void DrainAll();

}  // namespace simt

struct CUstream_st {
  bool is_blocking = true;
  std::deque<simt::OrderedWork> work;
  bool is_running = false;  // the piece of work before `work`
  uint64_t num_ordered = 0;
  uint64_t num_done = 0;
  simt::Capture* capture = nullptr;
};

struct CUevent_st {
  bool has_time = true;
  // What it stands behind; null: nothing, it is complete.
  cudaStream_t stream = nullptr;
  uint64_t position = 0;
  simt::Capture* capture = nullptr;
  std::shared_ptr<std::chrono::steady_clock::time_point> time;
};

struct CUgraph_st {
  std::vector<simt::Work> work;
};
struct CUgraphExec_st {
  std::vector<simt::Work> work;
};

#endif  // CADRE_TESTS_SUPPORT_SIMT_RUNTIME_STATE_H_
