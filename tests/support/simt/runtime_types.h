// Types and constants of the CUDA runtime, with its names and values.
#ifndef CADRE_TESTS_SUPPORT_SIMT_RUNTIME_TYPES_H_
#define CADRE_TESTS_SUPPORT_SIMT_RUNTIME_TYPES_H_

#include <cstddef>

#include "tests/support/simt/vector_types.h"

// CADRE_SIMT_ERRORS(X) calls X(name, value, text, is_sticky) for every code. After a sticky one the device is lost to
// the process.
#define CADRE_SIMT_ERRORS(X)                                                              \
  X(cudaSuccess, 0, "no error", false)                                                    \
  X(cudaErrorInvalidValue, 1, "invalid argument", false)                                  \
  X(cudaErrorMemoryAllocation, 2, "out of memory", false)                                 \
  X(cudaErrorInitializationError, 3, "initialization error", false)                       \
  X(cudaErrorInvalidConfiguration, 9, "invalid configuration argument", false)            \
  X(cudaErrorInvalidMemcpyDirection, 21, "invalid copy direction for memcpy", false)      \
  X(cudaErrorStubLibrary, 34, "CUDA driver is a stub library", false)                     \
  X(cudaErrorInsufficientDriver, 35, "driver older than the runtime", false)              \
  X(cudaErrorDevicesUnavailable, 46, "devices are busy or unavailable", false)            \
  X(cudaErrorInvalidDeviceFunction, 98, "invalid device function", false)                 \
  X(cudaErrorNoDevice, 100, "no CUDA-capable device is detected", false)                  \
  X(cudaErrorInvalidDevice, 101, "invalid device ordinal", false)                         \
  X(cudaErrorNoKernelImageForDevice, 209, "no kernel image for the device", false)        \
  X(cudaErrorECCUncorrectable, 214, "uncorrectable ECC error", true)                      \
  X(cudaErrorNvlinkUncorrectable, 220, "uncorrectable NVLink error", true)                \
  X(cudaErrorUnsupportedPtxVersion, 222, "PTX of an unsupported toolchain", false)        \
  X(cudaErrorOperatingSystem, 304, "a call of the operating system failed", false)        \
  X(cudaErrorInvalidResourceHandle, 400, "invalid resource handle", false)                \
  X(cudaErrorNotReady, 600, "device not ready", false)                                    \
  X(cudaErrorIllegalAddress, 700, "an illegal memory access was encountered", true)       \
  X(cudaErrorLaunchOutOfResources, 701, "too many resources requested for launch", false) \
  X(cudaErrorLaunchTimeout, 702, "the launch timed out and was terminated", true)         \
  X(cudaErrorContextIsDestroyed, 709, "context is destroyed", true)                       \
  X(cudaErrorAssert, 710, "device-side assert triggered", true)                           \
  X(cudaErrorHardwareStackError, 714, "hardware stack error", true)                       \
  X(cudaErrorIllegalInstruction, 715, "an illegal instruction was encountered", true)     \
  X(cudaErrorMisalignedAddress, 716, "misaligned address", true)                          \
  X(cudaErrorInvalidAddressSpace, 717, "operation not supported on this space", true)     \
  X(cudaErrorInvalidPc, 718, "invalid program counter", true)                             \
  X(cudaErrorLaunchFailure, 719, "unspecified launch failure", true)                      \
  X(cudaErrorNotPermitted, 800, "operation not permitted", false)                         \
  X(cudaErrorNotSupported, 801, "operation not supported", false)                         \
  X(cudaErrorSystemNotReady, 802, "system not yet initialized", false)                    \
  X(cudaErrorSystemDriverMismatch, 803, "driver and library disagree", false)             \
  X(cudaErrorMpsRpcFailure, 806, "the MPS server stopped answering", true)                \
  X(cudaErrorMpsClientTerminated, 810, "the MPS client was terminated", true)             \
  X(cudaErrorStreamCaptureUnsupported, 900, "not permitted when capturing", false)        \
  X(cudaErrorStreamCaptureInvalidated, 901, "capture failed by an error before", false)   \
  X(cudaErrorStreamCaptureUnmatched, 903, "capture was not begun in this stream", false)  \
  X(cudaErrorUnknown, 999, "unknown error", false)

enum cudaError {
#define CADRE_SIMT_ENUMERATOR(name, value, text, is_sticky) name = (value),
  CADRE_SIMT_ERRORS(CADRE_SIMT_ENUMERATOR)
#undef CADRE_SIMT_ENUMERATOR
};
using cudaError_t = cudaError;

enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};

enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrWarpSize = 10,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrL2CacheSize = 38,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};

enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal = 0,
  cudaStreamCaptureModeThreadLocal = 1,
  cudaStreamCaptureModeRelaxed = 2,
};
enum cudaStreamCaptureStatus {
  cudaStreamCaptureStatusNone = 0,
  cudaStreamCaptureStatusActive = 1,
  cudaStreamCaptureStatusInvalidated = 2,
};

inline constexpr unsigned cudaStreamDefault = 0x00;
inline constexpr unsigned cudaStreamNonBlocking = 0x01;
inline constexpr unsigned cudaEventDefault = 0x00;
inline constexpr unsigned cudaEventBlockingSync = 0x01;
inline constexpr unsigned cudaEventDisableTiming = 0x02;
inline constexpr unsigned cudaMemAttachGlobal = 0x01;
inline constexpr unsigned cudaMemAttachHost = 0x02;
inline constexpr unsigned cudaHostAllocDefault = 0x00;
inline constexpr unsigned cudaHostAllocPortable = 0x01;
inline constexpr unsigned cudaHostAllocMapped = 0x02;
inline constexpr unsigned cudaHostAllocWriteCombined = 0x04;

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;

// Of the properties of a device, those that matter here.
struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  size_t sharedMemPerBlock;
  int regsPerBlock;
  int warpSize;
  int maxThreadsPerBlock;
  int maxThreadsDim[3];
  int maxGridSize[3];
  int major;
  int minor;
  int multiProcessorCount;
  int integrated;
  int pciBusID;
  int pciDeviceID;
  int pciDomainID;
  int memoryBusWidth;
  int l2CacheSize;
  int maxThreadsPerMultiProcessor;
  size_t sharedMemPerMultiprocessor;
  size_t sharedMemPerBlockOptin;
  size_t reservedSharedMemPerBlock;
};

enum cudaLaunchAttributeID {
  cudaLaunchAttributeIgnore = 0,
  cudaLaunchAttributeProgrammaticStreamSerialization = 6,
};
union cudaLaunchAttributeValue {
  char pad[64];
  int programmaticStreamSerializationAllowed;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

#endif  // CADRE_TESTS_SUPPORT_SIMT_RUNTIME_TYPES_H_
