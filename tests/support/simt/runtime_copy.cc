// Copies and fills, when each reads and writes, and the graphs that repeat them.
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "tests/support/simt/runtime_state.h"
#include "tests/support/simt/simt_runtime.h"

namespace simt {
namespace {

// The kind of a copy by the addresses, or false for one that the addresses contradict.
bool ResolveKind(void* to, const void* from, size_t size_bytes, cudaMemcpyKind& kind) {
  const bool to_device = IsDeviceRange(to, size_bytes);
  const bool from_device = IsDeviceRange(from, size_bytes);
  if (!to_device && TouchesDevice(to, size_bytes)) return false;
  if (!from_device && TouchesDevice(from, size_bytes)) return false;
  const auto actual = static_cast<cudaMemcpyKind>((from_device ? 2 : 0) + (to_device ? 1 : 0));
  if (kind != cudaMemcpyDefault && kind != actual) return false;
  kind = actual;
  return true;
}

cudaError_t CopyAsync(void* to, const void* from, size_t size_bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (size_bytes == 0) return cudaSuccess;
  if (!ResolveKind(to, from, size_bytes, kind)) return cudaErrorInvalidValue;
  const bool is_captured = CaptureOf(stream) != nullptr;
  const bool from_pageable = kind == cudaMemcpyHostToDevice && !IsPinned(from, size_bytes);
  bool is_known = false;
  if (from_pageable && !is_captured) {  // the driver has read it when the call returns
    const auto* const bytes = static_cast<const std::byte*>(from);
    auto staged = std::make_shared<const std::vector<std::byte>>(bytes, bytes + size_bytes);
    is_known = Enqueue(
        stream, [to, staged] { std::memcpy(to, staged->data(), staged->size()); }, AlwaysEarly);
  } else {
    is_known = Enqueue(
        stream, [to, from, size_bytes] { std::memmove(to, from, size_bytes); }, AlwaysEarly);
  }
  if (!is_known) return cudaErrorInvalidResourceHandle;
  const bool to_pageable = kind == cudaMemcpyDeviceToHost && !IsPinned(to, size_bytes);
  // The call returns when pageable memory has been written.
  if ((to_pageable || kind == cudaMemcpyHostToHost) && !is_captured && stream != nullptr) {
    return cudaStreamSynchronize(stream);
  }
  return cudaSuccess;
}

}  // namespace
}  // namespace simt

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size_bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  CADRE_SIMT_CALL("cudaMemcpyAsync");
  return call.Return(simt::CopyAsync(to, from, size_bytes, kind, stream));
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t size_bytes, cudaMemcpyKind kind) {
  CADRE_SIMT_CALL("cudaMemcpy");
  if (simt::BreaksCapture()) return call.Return(cudaErrorStreamCaptureUnsupported);
  const cudaError_t error = simt::CopyAsync(to, from, size_bytes, kind, nullptr);
  return call.Return(error != cudaSuccess ? error : simt::Runtime().sticky_error);
}

cudaError_t cudaMemsetAsync(void* pointer, int value, size_t size_bytes, cudaStream_t stream) {
  CADRE_SIMT_CALL("cudaMemsetAsync");
  if (size_bytes == 0) return cudaSuccess;
  if (!simt::IsDeviceRange(pointer, size_bytes)) return call.Return(cudaErrorInvalidValue);
  const bool is_known =
      simt::Enqueue(stream, [pointer, value, size_bytes] { std::memset(pointer, value, size_bytes); });
  return call.Return(is_known ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaMemset(void* pointer, int value, size_t size_bytes) {
  return cudaMemsetAsync(pointer, value, size_bytes, nullptr);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  CADRE_SIMT_CALL("cudaStreamBeginCapture");
  simt::RuntimeState& runtime = simt::Runtime();
  if (stream == nullptr) return call.Return(cudaErrorStreamCaptureUnsupported);
  if (!runtime.streams.contains(stream)) return call.Return(cudaErrorInvalidResourceHandle);
  if (stream->capture != nullptr) return call.Return(cudaErrorInvalidValue);
  stream->capture = new simt::Capture{.mode = mode, .origin = stream, .is_valid = true, .work = {}};
  runtime.captures.insert(stream->capture);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  CADRE_SIMT_CALL("cudaStreamEndCapture");
  simt::RuntimeState& runtime = simt::Runtime();
  if (!runtime.streams.contains(stream)) return call.Return(cudaErrorInvalidResourceHandle);
  if (stream->capture == nullptr) return call.Return(cudaErrorInvalidValue);
  if (stream->capture->origin != stream) return call.Return(cudaErrorStreamCaptureUnmatched);
  const std::unique_ptr<simt::Capture> capture(stream->capture);
  for (const cudaStream_t joined : runtime.streams) {
    if (joined->capture == capture.get()) joined->capture = nullptr;
  }
  runtime.captures.erase(capture.get());
  if (!capture->is_valid) return call.Return(cudaErrorStreamCaptureInvalidated);
  *graph = new CUgraph_st{.work = std::move(capture->work)};
  runtime.graphs.insert(*graph);
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  CADRE_SIMT_CALL("cudaStreamIsCapturing");
  const simt::Capture* const capture = simt::CaptureOf(stream);
  *status = capture == nullptr  ? cudaStreamCaptureStatusNone
            : capture->is_valid ? cudaStreamCaptureStatusActive
                                : cudaStreamCaptureStatusInvalidated;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long /*flags*/) {
  CADRE_SIMT_CALL("cudaGraphInstantiate");
  if (!simt::Runtime().graphs.contains(graph)) return call.Return(cudaErrorInvalidValue);
  *executable = new CUgraphExec_st{.work = graph->work};
  simt::Runtime().executables.insert(*executable);
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  CADRE_SIMT_CALL("cudaGraphLaunch");
  if (!simt::Runtime().executables.contains(executable)) return call.Return(cudaErrorInvalidValue);
  for (const simt::Work& work : executable->work) {
    if (!simt::Enqueue(stream, work)) return call.Return(cudaErrorInvalidResourceHandle);
  }
  return call.Return(simt::Runtime().sticky_error);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const simt::Call call("cudaGraphExecDestroy");
  if (simt::Runtime().executables.erase(executable) == 0) return call.Return(cudaErrorInvalidValue);
  delete executable;
  return call.error();
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const simt::Call call("cudaGraphDestroy");
  if (simt::Runtime().graphs.erase(graph) == 0) return call.Return(cudaErrorInvalidValue);
  delete graph;
  return call.error();
}
