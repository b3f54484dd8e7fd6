#include "kernels/cuda/cuda_device.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/host_limits.h"
#include "kernels/cuda/background_copies.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_graph.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/find_gpu.h"

namespace cadre {
namespace {

std::string Mib(size_t bytes) { return absl::StrCat(bytes >> 20, " MiB"); }

class CudaMark final : public WorkMark {
 public:
  explicit CudaMark(cudaEvent_t event) : event_(event) {}
  ~CudaMark() override { CADRE_CUDA_IGNORE_ERROR(cudaEventDestroy(event_)); }
  CudaMark(const CudaMark&) = delete;
  CudaMark& operator=(const CudaMark&) = delete;

  cudaEvent_t event() const { return event_; }
  bool is_set() const { return is_set_; }
  void set(bool is_set) { is_set_ = is_set; }

 private:
  const cudaEvent_t event_;
  bool is_set_ = false;  // the stream knows of it
};

class CudaDevice final : public Device, private CudaOpsHost {
 public:
  CudaDevice(const CudaDeviceOptions& options, const cudaDeviceProp& gpu, size_t budget)
      : host_readable_(options.host_readable), gpu_(gpu), budget_(budget), ops_(this) {}
  ~CudaDevice() override {
    if (stream_ != nullptr) CADRE_CUDA_IGNORE_ERROR(cudaStreamDestroy(stream_));
  }
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  absl::Status Start() {
    CADRE_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    return absl::OkStatus();
  }

  std::string name() const override { return "cuda:0"; }
  std::string kernels() const override { return cuda::DescribeGpu(gpu_); }

  absl::StatusOr<DeviceBuffer> Allocate(size_t size_bytes) override;
  absl::StatusOr<DeviceBuffer> AllocateStaging(size_t size_bytes) override;
  bool shares_host_memory() const override { return false; }
  absl::StatusOr<DeviceBuffer> AllocateMapped(size_t size_bytes) override;
  size_t AvailableMappedBytes() const override { return AvailableMemoryBytes(); }
  size_t AvailableBytes() const override {
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) return 0;
    return std::min(free_bytes, LeftOfBudget());
  }

  void CopyToDevice(View to, const void* from) override {
    if (to.size_bytes() == 0 || RefusesToRecord("a copy to the GPU")) return;
    NoteError(cudaMemcpyAsync(to.raw(), from, to.size_bytes(), cudaMemcpyHostToDevice, stream_), "copying to the GPU");
  }
  void CopyToHost(void* to, ConstView from) override {
    if (from.size_bytes() == 0 || RefusesToRecord("a copy from the GPU")) return;
    NoteError(cudaMemcpyAsync(to, from.raw(), from.size_bytes(), cudaMemcpyDeviceToHost, stream_),
              "copying from the GPU");
  }

  absl::Status CopyInBackground(View to, const void* from) override {
    if (is_recording_) return absl::InternalError("a copy in the background cannot be recorded");
    return background_.Order(to, from, stream_);
  }
  absl::StatusOr<int64_t> CountBackgroundCopies() override { return background_.CountEnded(); }
  absl::Status FinishBackgroundCopies() override { return background_.Finish(); }

  // What host_readable devices do after each verb cannot be recorded.
  bool can_record() const override { return !host_readable_; }
  absl::StatusOr<std::unique_ptr<RecordedWork>> Record(absl::FunctionRef<void()> order) override;
  void Replay(const RecordedWork& work) override {
    NoteError(static_cast<const cuda::CudaGraph&>(work).Launch(stream_), "replaying a recorded step");
  }

  // host_readable devices have waited for all that is in front of any mark.
  bool can_mark() const override { return !host_readable_; }
  absl::StatusOr<std::unique_ptr<WorkMark>> CreateMark() override;
  void Mark(WorkMark* mark) override;
  absl::Status Await(const WorkMark& mark) override;
  absl::Status Synchronize() override;
  bool is_lost() const override { return is_lost_; }

  Ops& ops() override { return ops_; }

 private:
  cudaStream_t stream() const override { return stream_; }
  void Note(absl::Status status) override {
    const std::lock_guard lock(error_mutex_);
    if (error_.ok()) error_ = std::move(status);
  }
  void AfterVerb() override {
    if (host_readable_) NoteError(cudaStreamSynchronize(stream_), "a verb");
  }
  cudaError_t AllocateMemory(void** data, size_t size_bytes) const {
    return host_readable_ ? cudaMallocManaged(data, size_bytes) : cudaMalloc(data, size_bytes);
  }
  // What waiting tells, which ended with `error`.
  absl::Status AfterWaiting(cudaError_t error);
  size_t LeftOfBudget() const { return budget_ - std::min(budget_, allocated_.load()); }
  // Notes `what` as an error while something is recorded: a replay would do it with what the host's memory holds then.
  bool RefusesToRecord(const char* what) {
    if (is_recording_) Note(absl::InternalError(absl::StrCat(what, " cannot be recorded")));
    return is_recording_;
  }
  void NoteError(cudaError_t error, const char* what) {
    if (error != cudaSuccess) Note(cuda::ToStatus(error, what));
  }

  const bool host_readable_;
  const cudaDeviceProp gpu_;
  const size_t budget_;  // bytes
  std::atomic<size_t> allocated_ = 0;
  cudaStream_t stream_ = nullptr;
  cuda::BackgroundCopies background_;
  bool is_recording_ = false;
  std::mutex error_mutex_;
  absl::Status error_;                 // guarded by error_mutex_: the first since the last Synchronize
  std::atomic<bool> is_lost_ = false;  // a sticky error was seen
  CudaOps ops_;
};

absl::StatusOr<DeviceBuffer> CudaDevice::Allocate(size_t size_bytes) {
  if (size_bytes == 0) return DeviceBuffer();
  if (is_recording_) return absl::InternalError("an allocation cannot be recorded");
  if (size_bytes > LeftOfBudget()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate ", Mib(size_bytes), " on ", name(), ": ", Mib(LeftOfBudget()),
                     " are left of the share of its memory that may be used (--gpu-memory-utilization)"));
  }
  void* data = nullptr;
  if (const cudaError_t error = AllocateMemory(&data, size_bytes); error != cudaSuccess) {
    CADRE_CUDA_IGNORE_ERROR(cudaGetLastError());  // it is told here, and not again by the next call
    return cuda::ToStatus(error, absl::StrCat("cannot allocate ", Mib(size_bytes), " on ", name(), " (",
                                              Mib(AvailableBytes()), " available)"));
  }
  allocated_ += size_bytes;
  DeviceBuffer buffer(static_cast<std::byte*>(data), size_bytes, [this, size_bytes](std::byte* freed) {
    CADRE_CUDA_IGNORE_ERROR(cudaFree(freed));
    allocated_ -= size_bytes;
  });
  CADRE_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(data, 0, size_bytes, stream_), "clearing memory of the GPU");
  // Whoever gets the buffer may use it at once, on any stream.
  CADRE_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(stream_), "clearing memory of the GPU");
  return buffer;
}

absl::StatusOr<DeviceBuffer> CudaDevice::AllocateStaging(size_t size_bytes) {
  if (host_readable_) return Allocate(size_bytes);
  if (size_bytes == 0) return DeviceBuffer();
  void* data = nullptr;
  if (const cudaError_t error = cudaMallocHost(&data, size_bytes); error != cudaSuccess) {
    CADRE_CUDA_IGNORE_ERROR(cudaGetLastError());
    return cuda::ToStatus(error, absl::StrCat("cannot pin ", Mib(size_bytes), " of the host's memory for copies"));
  }
  std::memset(data, 0, size_bytes);
  return DeviceBuffer(static_cast<std::byte*>(data), size_bytes,
                      [](std::byte* freed) { CADRE_CUDA_IGNORE_ERROR(cudaFreeHost(freed)); });
}

absl::StatusOr<DeviceBuffer> CudaDevice::AllocateMapped(size_t size_bytes) {
  if (size_bytes == 0) return DeviceBuffer();
  void* data = nullptr;
  if (const cudaError_t error = cudaHostAlloc(&data, size_bytes, cudaHostAllocMapped | cudaHostAllocPortable);
      error != cudaSuccess) {
    CADRE_CUDA_IGNORE_ERROR(cudaGetLastError());
    return cuda::ToStatus(error, absl::StrCat("cannot pin ", Mib(size_bytes), " of the host's memory for experts (",
                                              Mib(AvailableMappedBytes()), " available)"));
  }
  DeviceBuffer buffer(static_cast<std::byte*>(data), size_bytes,
                      [](std::byte* freed) { CADRE_CUDA_IGNORE_ERROR(cudaFreeHost(freed)); });
  void* on_device = nullptr;
  CADRE_CUDA_RETURN_IF_ERROR(cudaHostGetDevicePointer(&on_device, data, /*flags=*/0), "mapping memory of the host");
  // The addresses of the two are one where both are of 64 bits, on every GPU that has kernels here.
  if (on_device != data) return absl::UnimplementedError(name() + " sees the host's memory at other addresses");
  return buffer;
}

absl::StatusOr<std::unique_ptr<RecordedWork>> CudaDevice::Record(absl::FunctionRef<void()> order) {
  if (!can_record()) return absl::FailedPreconditionError("this device waits after each verb, and records nothing");
  // What was noted before is not told as an error of the recording.
  if (absl::Status status = Synchronize(); !status.ok()) return status;
  is_recording_ = true;
  absl::StatusOr<std::unique_ptr<cuda::CudaGraph>> graph = cuda::CudaGraph::Capture(stream_, order);
  is_recording_ = false;
  // What went wrong first explains why the capture is not valid.
  if (absl::Status status = Synchronize(); !status.ok()) return status;
  return graph;
}

absl::Status CudaDevice::Synchronize() {
  if (RefusesToRecord("waiting")) return absl::OkStatus();
  return AfterWaiting(cudaStreamSynchronize(stream_));
}

absl::StatusOr<std::unique_ptr<WorkMark>> CudaDevice::CreateMark() {
  cudaEvent_t event = nullptr;
  CADRE_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  return std::make_unique<CudaMark>(event);
}

void CudaDevice::Mark(WorkMark* mark) {
  if (RefusesToRecord("a mark")) return;
  auto* const cuda_mark = static_cast<CudaMark*>(mark);
  const cudaError_t error = cudaEventRecord(cuda_mark->event(), stream_);
  cuda_mark->set(error == cudaSuccess);
  NoteError(error, "marking the end of a step");
}

absl::Status CudaDevice::Await(const WorkMark& mark) {
  const auto& cuda_mark = static_cast<const CudaMark&>(mark);
  // Without the mark there is nothing less to wait for than all.
  if (is_recording_ || !cuda_mark.is_set()) return Synchronize();
  return AfterWaiting(cudaEventSynchronize(cuda_mark.event()));
}

absl::Status CudaDevice::AfterWaiting(cudaError_t error) {
  const std::lock_guard lock(error_mutex_);
  if (error == cudaSuccess) return std::exchange(error_, absl::OkStatus());
  is_lost_ = is_lost_ || cuda::IsSticky(error);
  // What was noted before is most likely its consequence.
  error_ = absl::OkStatus();
  return cuda::ToStatus(error, absl::StrCat(name(), is_lost_ ? " is lost to this process" : " failed"));
}

absl::Status CheckOptions(const CudaDeviceOptions& options) {
  if (options.memory_utilization > 0.0 && options.memory_utilization <= 1.0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("memory_utilization is ", options.memory_utilization, ", not in (0, 1]"));
}

}  // namespace

bool IsCudaBuilt() { return true; }

absl::StatusOr<std::unique_ptr<Device>> CreateCudaDevice(const CudaDeviceOptions& options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  const absl::StatusOr<cudaDeviceProp> gpu = cuda::FindGpu();
  if (!gpu.ok()) return gpu.status();
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  CADRE_CUDA_RETURN_IF_ERROR(cudaMemGetInfo(&free_bytes, &total_bytes), "reading the GPU's memory");
  const auto budget = static_cast<size_t>(static_cast<double>(free_bytes) * options.memory_utilization);
  auto device = std::make_unique<CudaDevice>(options, *gpu, budget);
  if (absl::Status status = device->Start(); !status.ok()) return status;
  return device;
}

}  // namespace cadre
