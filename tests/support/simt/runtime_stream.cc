// Streams, events, and the work that is ordered on them.
#include <cstring>
#include <utility>

#include "tests/support/simt/block.h"
#include "tests/support/simt/runtime_state.h"
#include "tests/support/simt/simt_runtime.h"

namespace simt {
namespace {

// On a lost device nothing is done any more.
void RunNext(cudaStream_t stream) {
  const OrderedWork work = std::move(stream->work.front());
  stream->work.pop_front();
  stream->is_running = true;
  if (Runtime().sticky_error == cudaSuccess) work.run();
  stream->is_running = false;
  ++stream->num_done;
}

void RunEarly() {
  RuntimeState& runtime = Runtime();
  if (runtime.copy_time == CopyTime::kLate || runtime.is_running_early) return;
  runtime.is_running_early = true;
  for (bool has_run = true; has_run;) {  // what is done in one stream may be what another waits for
    has_run = false;
    for (const cudaStream_t stream : runtime.streams) {
      while (!stream->is_running && !stream->work.empty() && stream->work.front().can_run_early &&
             stream->work.front().can_run_early()) {
        RunNext(stream);
        has_run = true;
      }
    }
  }
  runtime.is_running_early = false;
}

// Does the first `position` pieces of work of `stream`.
void DrainTo(cudaStream_t stream, uint64_t position) {
  while (Runtime().streams.contains(stream) && stream->num_done < position && !stream->work.empty()) {
    RunNext(stream);
    RunEarly();
  }
}

void Drain(cudaStream_t stream) { DrainTo(stream, stream->num_ordered); }

// The default stream waits for the blocking ones.
void DrainBlocking() {
  for (const cudaStream_t stream : Runtime().streams) {
    if (stream->is_blocking) Drain(stream);
  }
}

bool IsKnown(cudaStream_t stream) { return stream == nullptr || Runtime().streams.contains(stream); }

// After waiting: what waiting tells.
cudaError_t Waited(const Call& call) {
  CheckGuards();
  return call.Return(Runtime().sticky_error);
}

}  // namespace

bool Enqueue(cudaStream_t stream, Work work, std::function<bool()> can_run_early) {
  if (!IsKnown(stream)) return false;
  if (stream == nullptr) {
    DrainBlocking();
    if (Runtime().sticky_error == cudaSuccess) work();
  } else if (stream->capture != nullptr) {
    stream->capture->work.push_back(std::move(work));
  } else {
    stream->work.push_back({std::move(work), std::move(can_run_early)});
    ++stream->num_ordered;
    RunEarly();
  }
  return true;
}

Capture* CaptureOf(cudaStream_t stream) {
  return stream != nullptr && Runtime().streams.contains(stream) ? stream->capture : nullptr;
}

bool BreaksCapture() {
  bool breaks = false;
  for (Capture* const capture : Runtime().captures) {
    if (capture->mode == cudaStreamCaptureModeRelaxed) continue;
    capture->is_valid = false;
    breaks = true;
  }
  return breaks;
}

void DrainAll() {
  for (const cudaStream_t stream : Runtime().streams) Drain(stream);
}

cudaError_t EnqueueKernel(cudaStream_t stream, const LaunchShape& shape, const void* kernel,
                          std::function<void()> body) {
  CADRE_SIMT_CALL("kernel");
  const RuntimeState& runtime = Runtime();
  const uint64_t num_threads = uint64_t{shape.block.x} * shape.block.y * shape.block.z;
  const bool is_grid = shape.grid.x > 0 && shape.grid.y > 0 && shape.grid.z > 0 && shape.grid.x <= 0x7FFFFFFFu &&
                       shape.grid.y <= 65535 && shape.grid.z <= 65535;
  if (num_threads == 0 || num_threads > kMaxThreads || shape.block.z > 64 || !is_grid) {
    return call.Return(cudaErrorInvalidConfiguration);
  }
  const auto limit = runtime.dynamic_shared_limits.find(kernel);
  const size_t shared_limit = kernel == nullptr                              ? kMaxSharedBytes
                              : limit == runtime.dynamic_shared_limits.end() ? size_t{48} << 10
                                                                             : limit->second;
  if (shape.dynamic_shared_bytes > shared_limit) return call.Return(cudaErrorInvalidValue);
  const bool is_known = Enqueue(stream, [shape, kernel, body = std::move(body)] {
    RuntimeState& state = Runtime();
    ++state.num_kernels;
    if (state.next_kernel_error != cudaSuccess) {
      state.sticky_error = std::exchange(state.next_kernel_error, cudaSuccess);
      return;
    }
    Launch(shape.grid, shape.block, shape.dynamic_shared_bytes, body, {kernel, kernel == nullptr ? "(unnamed)" : ""});
  });
  return call.Return(is_known ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

}  // namespace simt

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  CADRE_SIMT_CALL("cudaFuncSetAttribute");
  if (kernel == nullptr) return call.Return(cudaErrorInvalidDeviceFunction);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  const size_t limit = simt::Runtime().options.max_shared_bytes;
  if (value < 0 || static_cast<size_t>(value) > limit) return call.Return(cudaErrorInvalidValue);
  simt::Runtime().dynamic_shared_limits[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  CADRE_SIMT_CALL("cudaDeviceSynchronize");
  if (simt::BreaksCapture()) return call.Return(cudaErrorStreamCaptureUnsupported);
  simt::DrainAll();
  return simt::Waited(call);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  CADRE_SIMT_CALL("cudaStreamCreateWithFlags");
  *stream = new CUstream_st;
  (*stream)->is_blocking = (flags & cudaStreamNonBlocking) == 0;
  simt::Runtime().streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const simt::Call call("cudaStreamDestroy");
  simt::RuntimeState& runtime = simt::Runtime();
  if (!runtime.streams.contains(stream)) return call.Return(cudaErrorInvalidResourceHandle);
  if (stream->capture != nullptr) {  // it ends the capture, whose graph nobody can get any more
    cudaGraph_t graph = nullptr;
    static_cast<void>(cudaStreamEndCapture(stream->capture->origin, &graph));
    if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
  }
  simt::Drain(stream);
  for (const cudaEvent_t event : runtime.events) {
    if (event->stream == stream) event->stream = nullptr;
  }
  runtime.streams.erase(stream);
  delete stream;
  return runtime.sticky_error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  CADRE_SIMT_CALL("cudaStreamSynchronize");
  if (!simt::IsKnown(stream)) return call.Return(cudaErrorInvalidResourceHandle);
  if (simt::Capture* const capture = simt::CaptureOf(stream); capture != nullptr) {
    capture->is_valid = false;
    return call.Return(cudaErrorStreamCaptureUnsupported);
  }
  if (stream == nullptr) {
    simt::DrainBlocking();
  } else {
    simt::Drain(stream);
  }
  return simt::Waited(call);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  CADRE_SIMT_CALL("cudaStreamQuery");
  if (!simt::IsKnown(stream)) return call.Return(cudaErrorInvalidResourceHandle);
  if (simt::Capture* const capture = simt::CaptureOf(stream); capture != nullptr) {
    capture->is_valid = false;
    return call.Return(cudaErrorStreamCaptureUnsupported);
  }
  if (stream == nullptr || stream->work.empty()) return simt::Waited(call);
  simt::DrainTo(stream, stream->num_done + 1);  // so that who asks again and again sees the end
  return call.Return(simt::Runtime().sticky_error != cudaSuccess ? simt::Runtime().sticky_error : cudaErrorNotReady);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  CADRE_SIMT_CALL("cudaStreamWaitEvent");
  if (!simt::IsKnown(stream) || !simt::Runtime().events.contains(event)) {
    return call.Return(cudaErrorInvalidResourceHandle);
  }
  if (event->capture != nullptr) {  // the stream joins the capture
    if (stream == nullptr || !simt::Runtime().captures.contains(event->capture)) {
      return call.Return(cudaErrorStreamCaptureUnsupported);
    }
    stream->capture = event->capture;
    return cudaSuccess;
  }
  if (event->stream == nullptr) return cudaSuccess;
  simt::Enqueue(
      stream, [from = event->stream, position = event->position] { simt::DrainTo(from, position); },
      [from = event->stream, position = event->position] {
        return !simt::Runtime().streams.contains(from) || from->num_done >= position;
      });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  CADRE_SIMT_CALL("cudaEventCreateWithFlags");
  *event = new CUevent_st;
  (*event)->has_time = (flags & cudaEventDisableTiming) == 0;
  simt::Runtime().events.insert(*event);
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  CADRE_SIMT_CALL("cudaEventRecord");
  if (!simt::IsKnown(stream) || !simt::Runtime().events.contains(event)) {
    return call.Return(cudaErrorInvalidResourceHandle);
  }
  event->capture = simt::CaptureOf(stream);
  if (event->capture != nullptr) return cudaSuccess;
  event->time = std::make_shared<std::chrono::steady_clock::time_point>();
  simt::Enqueue(
      stream, [time = event->time] { *time = std::chrono::steady_clock::now(); }, simt::AlwaysEarly);
  event->stream = stream;
  event->position = stream == nullptr ? 0 : stream->num_ordered;
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  CADRE_SIMT_CALL("cudaEventSynchronize");
  if (!simt::Runtime().events.contains(event)) return call.Return(cudaErrorInvalidResourceHandle);
  if (event->capture != nullptr) return call.Return(cudaErrorStreamCaptureUnsupported);
  if (event->stream != nullptr) simt::DrainTo(event->stream, event->position);
  return simt::Waited(call);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  CADRE_SIMT_CALL("cudaEventQuery");
  if (!simt::Runtime().events.contains(event)) return call.Return(cudaErrorInvalidResourceHandle);
  if (event->capture != nullptr) return call.Return(cudaErrorStreamCaptureUnsupported);
  if (event->stream == nullptr || event->stream->num_done >= event->position) return simt::Waited(call);
  simt::DrainTo(event->stream, event->stream->num_done + 1);
  return call.Return(simt::Runtime().sticky_error != cudaSuccess ? simt::Runtime().sticky_error : cudaErrorNotReady);
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  CADRE_SIMT_CALL("cudaEventElapsedTime");
  for (const cudaEvent_t event : {start, end}) {
    if (!simt::Runtime().events.contains(event) || !event->has_time || event->time == nullptr) {
      return call.Return(cudaErrorInvalidResourceHandle);
    }
    if (event->stream != nullptr && event->stream->num_done < event->position) return cudaErrorNotReady;
  }
  *milliseconds = std::chrono::duration<float, std::milli>(*end->time - *start->time).count();
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const simt::Call call("cudaEventDestroy");
  if (simt::Runtime().events.erase(event) == 0) return call.Return(cudaErrorInvalidResourceHandle);
  delete event;
  return call.error();
}
