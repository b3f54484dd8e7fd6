// The calls of the CUDA runtime that a device class makes, on the memory of the host: for code that would include
// <cuda_runtime_api.h>. Names, signatures and errors are the runtime's; what each call does is in NVIDIA's manual.
//
// A stream does its work as late as it may: when somebody waits for it or asks for its state. So a result that is read
// without waiting is not there yet, and memory that is reused too early is seen. Any host thread may call.
#ifndef CADRE_TESTS_SUPPORT_SIMT_SIMT_RUNTIME_H_
#define CADRE_TESTS_SUPPORT_SIMT_SIMT_RUNTIME_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "tests/support/simt/launch.h"
#include "tests/support/simt/runtime_types.h"

// ---- errors and devices ----
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaDeviceSynchronize();

// ---- memory ----
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes);
cudaError_t cudaMalloc(void** pointer, size_t size_bytes);
// Memory of the device that the host may read and write between waiting and the next work; here all of it is.
cudaError_t cudaMallocManaged(void** pointer, size_t size_bytes, unsigned flags = cudaMemAttachGlobal);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaMallocHost(void** pointer, size_t size_bytes);
cudaError_t cudaHostAlloc(void** pointer, size_t size_bytes, unsigned flags);
// The address at which kernels see it: the same.
cudaError_t cudaHostGetDevicePointer(void** on_device, void* on_host, unsigned flags);
cudaError_t cudaFreeHost(void* pointer);
cudaError_t cudaMemcpy(void* to, const void* from, size_t size_bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size_bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void* pointer, int value, size_t size_bytes);
cudaError_t cudaMemsetAsync(void* pointer, int value, size_t size_bytes, cudaStream_t stream = nullptr);

template <typename T>
cudaError_t cudaMalloc(T** pointer, size_t size_bytes) {
  return cudaMalloc(reinterpret_cast<void**>(pointer), size_bytes);
}
template <typename T>
cudaError_t cudaMallocManaged(T** pointer, size_t size_bytes, unsigned flags = cudaMemAttachGlobal) {
  return cudaMallocManaged(reinterpret_cast<void**>(pointer), size_bytes, flags);
}
template <typename T>
cudaError_t cudaMallocHost(T** pointer, size_t size_bytes) {
  return cudaMallocHost(reinterpret_cast<void**>(pointer), size_bytes);
}
template <typename T>
cudaError_t cudaHostAlloc(T** pointer, size_t size_bytes, unsigned flags) {
  return cudaHostAlloc(reinterpret_cast<void**>(pointer), size_bytes, flags);
}

// ---- streams and events ----
cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);
cudaError_t cudaEventDestroy(cudaEvent_t event);

// ---- graphs: copies, fills and launches are recorded while a stream is captured, and read memory at every replay ----
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

// ---- launches ----
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
template <typename... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}

namespace simt {

// The launch behind all others. With `kernel`, its limit of dynamic shared memory (cudaFuncSetAttribute) is checked.
cudaError_t EnqueueKernel(cudaStream_t stream, const LaunchShape& shape, const void* kernel,
                          std::function<void()> body);

// Orders a launch on `stream`. `kernel` is the function that `body` calls, if known: it names the launch in messages.
template <typename Body>
cudaError_t LaunchOnStream(cudaStream_t stream, dim3 grid, dim3 block, size_t dynamic_shared_bytes, Body body,
                           const void* kernel = nullptr) {
  return EnqueueKernel(stream, {grid, block, dynamic_shared_bytes}, kernel, std::function<void()>(std::move(body)));
}

}  // namespace simt

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  return [&](Parameters... parameters) {
    return simt::LaunchOnStream(
        config->stream, config->gridDim, config->blockDim, config->dynamicSmemBytes, [=] { kernel(parameters...); },
        reinterpret_cast<const void*>(kernel));
  }(std::forward<Arguments>(arguments)...);
}

#endif  // CADRE_TESTS_SUPPORT_SIMT_SIMT_RUNTIME_H_
