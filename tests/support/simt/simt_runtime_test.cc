// The runtime on the host: memory, streams, graphs, and faults.
#include "tests/support/simt/simt_runtime.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/cuda/simt.h"
#include "tests/support/simt/runtime_control.h"

namespace {

__global__ void AddOne(int* values, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) ++values[i];
}

template <int id>
__global__ void Trap() {
  __trap();
}

constexpr int kNumValues = 100;
constexpr size_t kBytes = kNumValues * sizeof(int);

class SimtRuntimeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    simt::ResetDevice({.memory_bytes = 1 << 20});
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    ASSERT_EQ(cudaMalloc(&device_, kBytes), cudaSuccess);
    ASSERT_EQ(cudaMallocHost(&pinned_, kBytes), cudaSuccess);
    std::iota(pinned_, pinned_ + kNumValues, 0);
  }
  void TearDown() override {
    static_cast<void>(cudaFree(device_));
    static_cast<void>(cudaFreeHost(pinned_));
    static_cast<void>(cudaStreamDestroy(stream_));
    EXPECT_EQ(simt::Resources(), simt::ResourcesInUse{});
    simt::ResetDevice();
  }

  cudaError_t LaunchAddOne(cudaStream_t stream) {
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(4);
    config.blockDim = dim3(32);
    config.stream = stream;
    return cudaLaunchKernelEx(&config, AddOne, device_, kNumValues);
  }
  int* device_ = nullptr;
  int* pinned_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

TEST_F(SimtRuntimeTest, CopiesAndKernelsRunInTheirOrder) {
  ASSERT_EQ(cudaMemcpyAsync(device_, pinned_, kBytes, cudaMemcpyHostToDevice, stream_), cudaSuccess);
  ASSERT_EQ(LaunchAddOne(stream_), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(pinned_, device_, kBytes, cudaMemcpyDeviceToHost, stream_), cudaSuccess);
  EXPECT_EQ(pinned_[5], 5) << "the result was there before anybody waited for it";
  EXPECT_EQ(simt::NumKernels(), 0u);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  for (int i = 0; i < kNumValues; ++i) ASSERT_EQ(pinned_[i], i + 1);
  EXPECT_EQ(simt::NumKernels(), 1u);
}

// As soon as what it waits for is done, and no sooner.
TEST_F(SimtRuntimeTest, EarlyCopiesAreDoneWhenNothingHoldsThemUp) {
  simt::SetCopyTime(simt::CopyTime::kEarly);
  cudaStream_t side = nullptr;
  cudaEvent_t event = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaEventCreate(&event), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(device_, pinned_, kBytes, cudaMemcpyHostToDevice, stream_), cudaSuccess);
  EXPECT_EQ(device_[7], 7) << "nothing is before it";
  ASSERT_EQ(LaunchAddOne(stream_), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event, stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(side, event), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(pinned_, device_, kBytes, cudaMemcpyDeviceToHost, side), cudaSuccess);
  EXPECT_EQ(pinned_[7], 7) << "a kernel is before it";
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(pinned_[7], 8) << "nobody waited for the stream of the copy";
  // Nor do they overtake the wait when somebody waits for them.
  ASSERT_EQ(LaunchAddOne(stream_), cudaSuccess);
  ASSERT_EQ(LaunchAddOne(stream_), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event, stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(side, event), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(pinned_, device_, kBytes, cudaMemcpyDeviceToHost, side), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(side), cudaSuccess);
  EXPECT_EQ(pinned_[7], 10);
  EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(side), cudaSuccess);
}

TEST_F(SimtRuntimeTest, PinnedMemoryIsReadLateAndPageableMemoryAtOnce) {
  ASSERT_EQ(cudaMemcpyAsync(device_, pinned_, kBytes, cudaMemcpyHostToDevice, stream_), cudaSuccess);
  pinned_[0] = 77;  // too early: the copy still reads it
  std::vector<int> pageable(kNumValues, 5);
  ASSERT_EQ(cudaMemcpyAsync(device_ + 1, pageable.data(), sizeof(int), cudaMemcpyHostToDevice, stream_), cudaSuccess);
  pageable[0] = 78;
  ASSERT_EQ(cudaMemcpyAsync(pageable.data(), device_, kBytes, cudaMemcpyDeviceToHost, stream_), cudaSuccess);
  EXPECT_EQ(pageable[0], 77);
  EXPECT_EQ(pageable[1], 5);
  EXPECT_EQ(pageable[2], 2);
}

TEST_F(SimtRuntimeTest, NewMemoryIsNan) {
  std::vector<float> values(kNumValues, 0.0f);
  ASSERT_EQ(cudaMemcpy(values.data(), device_, kBytes, cudaMemcpyDeviceToHost), cudaSuccess);
  for (const float value : values) ASSERT_TRUE(std::isnan(value));
  ASSERT_EQ(cudaMemset(device_, 0, kBytes), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(values.data(), device_, kBytes, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(values[99], 0.0f);
}

TEST_F(SimtRuntimeTest, MemoryIsCountedAndLimited) {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  ASSERT_EQ(cudaMemGetInfo(&free_bytes, &total_bytes), cudaSuccess);
  EXPECT_EQ(total_bytes, size_t{1} << 20);
  EXPECT_EQ(free_bytes, total_bytes - kBytes);
  void* pointer = &free_bytes;
  EXPECT_EQ(cudaMalloc(&pointer, free_bytes + 1), cudaErrorMemoryAllocation);
  EXPECT_EQ(pointer, nullptr);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&pointer, free_bytes), cudaSuccess);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(pointer) % 256, 0u);
  EXPECT_EQ(cudaFree(pointer), cudaSuccess);
  EXPECT_EQ(cudaFree(pointer), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(nullptr), cudaSuccess);
  EXPECT_EQ(cudaMallocManaged(&pointer, free_bytes + 1), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMallocManaged(&pointer, 0), cudaErrorInvalidValue);
}

TEST_F(SimtRuntimeTest, CopiesThatTheAddressesContradictAreRefused) {
  std::vector<int> host(kNumValues + 1);
  EXPECT_EQ(cudaMemcpy(device_, host.data(), kBytes + 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(device_ + 1, host.data(), kBytes, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(host.data(), device_, kBytes, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(host.data(), device_, kBytes, cudaMemcpyDefault), cudaSuccess);
  EXPECT_EQ(cudaMemsetAsync(host.data(), 0, 4, stream_), cudaErrorInvalidValue);
}

TEST_F(SimtRuntimeTest, EventsOrderStreams) {
  cudaStream_t other = nullptr;
  cudaEvent_t event = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(device_, pinned_, kBytes, cudaMemcpyHostToDevice, stream_), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event, stream_), cudaSuccess);
  ASSERT_EQ(LaunchAddOne(stream_), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(event), cudaErrorNotReady);
  ASSERT_EQ(cudaStreamWaitEvent(other, event), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(pinned_, device_ + 50, sizeof(int), cudaMemcpyDeviceToHost, other), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(other), cudaSuccess);
  EXPECT_EQ(pinned_[0], 50) << "the copy must come after the event and need not come after the kernel";
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
  EXPECT_EQ(cudaStreamQuery(stream_), cudaErrorNotReady);
  EXPECT_EQ(cudaStreamQuery(stream_), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(other), cudaSuccess);
}

TEST_F(SimtRuntimeTest, LaunchesBeyondTheLimitsAreRefused) {
  const auto launch = [&](dim3 grid, dim3 block, size_t shared_bytes) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream_;
    return cudaLaunchKernelEx(&config, AddOne, device_, 0);
  };
  EXPECT_EQ(launch(dim3(1), dim3(1025), 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(dim3(0), dim3(32), 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(dim3(1, 65536), dim3(32), 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(dim3(1), dim3(32), 48 << 10), cudaSuccess);
  EXPECT_EQ(launch(dim3(1), dim3(32), (48 << 10) + 1), cudaErrorInvalidValue);
  ASSERT_EQ(cudaFuncSetAttribute(AddOne, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 << 10), cudaSuccess);
  EXPECT_EQ(launch(dim3(1), dim3(32), 100 << 10), cudaSuccess);
  EXPECT_EQ(cudaFuncSetAttribute(AddOne, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 << 10),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
}

TEST_F(SimtRuntimeTest, AGraphRepeatsWhatWasCaptured) {
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(device_, pinned_, kBytes, cudaMemcpyHostToDevice, stream_), cudaSuccess);
  ASSERT_EQ(LaunchAddOne(stream_), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(pinned_, device_, kBytes, cudaMemcpyDeviceToHost, stream_), cudaSuccess);
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph), cudaSuccess);
  ASSERT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(pinned_[9], 9) << "what is captured does not run";
  for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaGraphLaunch(executable, stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(pinned_[9], 12);
  EXPECT_EQ(simt::NumKernels(), 3u);
  EXPECT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
}

TEST_F(SimtRuntimeTest, ACaptureForbidsToWaitAndToAllocate) {
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorStreamCaptureInvalidated);
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal), cudaSuccess);
  void* pointer = nullptr;
  EXPECT_EQ(cudaMalloc(&pointer, 1), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(graph, nullptr);
}

TEST_F(SimtRuntimeTest, AStreamMayBeDestroyedWhileItIsCaptured) {
  cudaStream_t other = nullptr;
  ASSERT_EQ(cudaStreamCreate(&other), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(other, cudaStreamCaptureModeGlobal), cudaSuccess);
  ASSERT_EQ(LaunchAddOne(other), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(other), cudaSuccess);
  void* pointer = nullptr;
  EXPECT_EQ(cudaMalloc(&pointer, 1), cudaSuccess) << "the capture still forbids it";
  EXPECT_EQ(cudaFree(pointer), cudaSuccess);
  EXPECT_EQ(simt::NumKernels(), 0u);
}

TEST_F(SimtRuntimeTest, InjectedFaultsComeOnceAndInTheirTurn) {
  simt::FailNext("cudaMalloc", cudaErrorMemoryAllocation, 1);
  simt::FailNext("kernel", cudaErrorLaunchOutOfResources);
  void* first = nullptr;
  void* second = nullptr;
  EXPECT_EQ(cudaMalloc(&first, 4), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&second, 4), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMalloc(&second, 4), cudaSuccess);
  EXPECT_EQ(LaunchAddOne(stream_), cudaErrorLaunchOutOfResources);
  EXPECT_EQ(LaunchAddOne(stream_), cudaSuccess);
  EXPECT_EQ(cudaFree(first), cudaSuccess);
  EXPECT_EQ(cudaFree(second), cudaSuccess);
}

TEST_F(SimtRuntimeTest, AStickyErrorIsReturnedByEveryLaterCall) {
  simt::FailNext("cudaStreamSynchronize", cudaErrorIllegalAddress);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorIllegalAddress);
  void* pointer = nullptr;
  EXPECT_EQ(cudaMalloc(&pointer, 4), cudaErrorIllegalAddress);
  EXPECT_EQ(LaunchAddOne(stream_), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
}

TEST_F(SimtRuntimeTest, ABrokenKernelIsToldByWhoeverWaits) {
  simt::BreakNextKernel(cudaErrorLaunchFailure);
  EXPECT_EQ(LaunchAddOne(stream_), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(pinned_, device_, kBytes, cudaMemcpyDeviceToHost, stream_), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorLaunchFailure);
  EXPECT_EQ(pinned_[3], 3) << "what comes after a broken kernel is not done";
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorLaunchFailure);
}

TEST_F(SimtRuntimeTest, DevicesAreAsTheTestSaysThem) {
  cudaDeviceProp properties;
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  EXPECT_EQ(properties.totalGlobalMem, size_t{1} << 20);
  EXPECT_EQ(properties.major, 9);
  EXPECT_EQ(cudaGetDeviceProperties(&properties, 1), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaSetDevice(1), cudaErrorInvalidDevice);
  int value = 0;
  EXPECT_EQ(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), cudaSuccess);
  EXPECT_EQ(value, 232448);
  EXPECT_STREQ(cudaGetErrorName(cudaErrorIllegalAddress), "cudaErrorIllegalAddress");
  EXPECT_EQ(cudaErrorIllegalAddress, 700);
}

TEST(SimtRuntimeDeathTest, AKernelIsCalledByItsName) {
  cudaLaunchConfig_t config = {};
  EXPECT_DEATH(static_cast<void>(cudaLaunchKernelEx(&config, Trap<7>)), "kernel .*Trap<.*, block .*__trap\\(\\)");
}

TEST(SimtRuntimeDeathTest, NoDeviceLeaksAndGuards) {
  simt::ResetDevice({.num_devices = 0});
  int count = 3;
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  EXPECT_EQ(count, 0);
  simt::ResetDevice();
  char* pointer = nullptr;
  ASSERT_EQ(cudaMalloc(&pointer, 10), cudaSuccess);
  EXPECT_DEATH(simt::ResetDevice(), "1 allocations of the device \\(10 bytes\\)");
  EXPECT_DEATH((pointer[10] = 1, cudaFree(pointer)), "somebody wrote byte 10 of an allocation of 10 bytes");
  EXPECT_DEATH((pointer[-1] = 1, cudaDeviceSynchronize()), "wrote 1 bytes before an allocation of 10 bytes");
  EXPECT_EQ(cudaFree(pointer), cudaSuccess);
}

}  // namespace
