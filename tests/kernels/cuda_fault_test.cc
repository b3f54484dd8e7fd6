// What goes wrong with a GPU outside of us, in words. On the emulated runtime, which can be broken.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/ops.h"
#include "tests/support/simt/runtime_control.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

class CudaFaultTest : public testing::Test {
 protected:
  void SetUp() override { simt::ResetDevice({.memory_bytes = 1 << 20}); }
  void TearDown() override { simt::ResetDevice(); }
};

TEST_F(CudaFaultTest, TellsWhatItIs) {
  simt::ResetDevice({.name = "Some card", .major = 9, .minor = 0, .num_multiprocessors = 78});
  const auto device = CreateCudaDevice();
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ((*device)->name(), "cuda:0");
  EXPECT_EQ((*device)->kernels(), "Some card, sm_90, 78 SMs");
  EXPECT_TRUE(IsCudaBuilt());
}

TEST_F(CudaFaultTest, AllocatesZerosWithinItsShareOfTheMemory) {
  auto device = CreateCudaDevice({.memory_utilization = 0.5});
  ASSERT_TRUE(device.ok());
  const size_t available = (*device)->AvailableBytes();
  EXPECT_LE(available, size_t{1} << 19);
  EXPECT_GT(available, size_t{1} << 18);
  {
    const auto buffer = (*device)->Allocate(available);
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    std::vector<uint8_t> bytes(available, 1);
    (*device)->CopyToHost(bytes.data(), buffer->view(DType::kI32, {static_cast<int64_t>(available / 4)}));
    ASSERT_TRUE((*device)->Synchronize().ok());
    EXPECT_EQ(bytes[0] | bytes[available / 2], 0);
    EXPECT_EQ((*device)->AvailableBytes(), 0u);
    const auto more = (*device)->Allocate(1);
    EXPECT_EQ(more.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(MessageOf(more.status()), HasSubstr("--gpu-memory-utilization"));
  }
  EXPECT_EQ((*device)->AvailableBytes(), available) << "given back";
}

TEST_F(CudaFaultTest, MemoryThatOthersTookIsAnErrorOfThatAllocationAlone) {
  auto device = CreateCudaDevice();
  ASSERT_TRUE(device.ok());
  simt::FailNext("cudaMalloc", cudaErrorMemoryAllocation);
  EXPECT_EQ((*device)->Allocate(64).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE((*device)->Allocate(64).ok());
  EXPECT_TRUE((*device)->Synchronize().ok());
}

TEST_F(CudaFaultTest, SaysWhatIsMissing) {
  simt::ResetDevice({.num_devices = 0});
  EXPECT_THAT(MessageOf(CreateCudaDevice().status()), HasSubstr("no NVIDIA GPU is visible"));
  simt::ResetDevice();
  simt::FailNext("cudaGetDeviceCount", cudaErrorInsufficientDriver);
  EXPECT_THAT(MessageOf(CreateCudaDevice().status()), HasSubstr("driver is missing, or older"));
  simt::FailNext("kernel", cudaErrorNoKernelImageForDevice);
  EXPECT_THAT(MessageOf(CreateCudaDevice().status()), HasSubstr("no kernels for"));
  EXPECT_EQ(CreateCudaDevice({.memory_utilization = 1.5}).status().code(), absl::StatusCode::kInvalidArgument);
}

class CudaOpsErrorTest : public CudaFaultTest {
 protected:
  void SetUp() override {
    CudaFaultTest::SetUp();
    device_ = *CreateCudaDevice();
    buffer_ = *device_->Allocate(256);
  }
  void TearDown() override {
    buffer_ = {};
    device_.reset();
    CudaFaultTest::TearDown();
  }
  void Clamp() { device_->ops().Clamp(buffer_.view(DType::kF32, {8, 8}), 1.0f); }

  std::unique_ptr<Device> device_;
  DeviceBuffer buffer_;
};

TEST_F(CudaOpsErrorTest, ALaunchThatIsRefusedIsTheNextStatusAndThenOver) {
  simt::FailNext("kernel", cudaErrorInvalidConfiguration);
  Clamp();
  const absl::Status status = device_->Synchronize();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(status), HasSubstr("Clamp"));
  Clamp();
  EXPECT_TRUE(device_->Synchronize().ok());
}

TEST_F(CudaOpsErrorTest, ABrokenKernelLosesTheDevice) {
  simt::BreakNextKernel(cudaErrorIllegalAddress);
  Clamp();
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = device_->Synchronize();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(MessageOf(status), HasSubstr("cuda:0 is lost"));
    Clamp();
  }
}

// And those of which nobody knows more.
TEST(CudaStickyErrorTest, AreThoseAfterWhichNothingWorks) {
#define CADRE_EXPECT_STICKY(name, value, text, is_sticky) \
  EXPECT_EQ(cuda::IsSticky(name), (is_sticky) || (name) == cudaErrorUnknown) << #name;
  CADRE_SIMT_ERRORS(CADRE_EXPECT_STICKY)
#undef CADRE_EXPECT_STICKY
}

// Whatever fails, nothing is left behind, and the next recording works.
TEST_F(CudaOpsErrorTest, ARecordingThatFailsLeavesTheDeviceAsItWas) {
  const auto order = [&] { Clamp(); };
  const std::vector<std::tuple<const char*, cudaError_t, absl::StatusCode>> faults = {
      {"cudaStreamBeginCapture", cudaErrorInvalidValue, absl::StatusCode::kInternal},
      {"kernel", cudaErrorInvalidConfiguration, absl::StatusCode::kInternal},
      {"cudaGraphInstantiate", cudaErrorMemoryAllocation, absl::StatusCode::kResourceExhausted}};
  for (const auto& [call, error, code] : faults) {
    simt::FailNext(call, error);
    EXPECT_EQ(device_->Record(order).status().code(), code) << call;
    EXPECT_TRUE(device_->Synchronize().ok()) << call;
  }
  EXPECT_TRUE(device_->Record(order).ok());
}

TEST_F(CudaOpsErrorTest, AReplayFailsAsKernelsDo) {
  const auto work = device_->Record([&] { Clamp(); });
  ASSERT_TRUE(work.ok()) << work.status();
  simt::FailNext("cudaGraphLaunch", cudaErrorLaunchOutOfResources);
  device_->Replay(**work);
  const absl::Status refused = device_->Synchronize();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(refused), HasSubstr("replaying a recorded step"));
  device_->Replay(**work);
  EXPECT_TRUE(device_->Synchronize().ok());
  simt::BreakNextKernel(cudaErrorIllegalAddress);
  device_->Replay(**work);
  EXPECT_EQ(device_->Synchronize().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(device_->is_lost());
}

// Fails, and leaves nothing under way; the next one works.
TEST_F(CudaOpsErrorTest, ACopyInTheBackgroundThatFailsIsItsOwnError) {
  const DeviceBuffer mapped = *device_->AllocateMapped(256);
  std::memset(mapped.data(), 1, mapped.size_bytes());
  const View to = buffer_.view(DType::kI32, {64});
  for (const char* call : {"cudaStreamCreateWithFlags", "cudaEventCreateWithFlags", "cudaEventRecord",
                           "cudaStreamWaitEvent", "cudaMemcpyAsync"}) {
    simt::FailNext(call, cudaErrorInvalidValue);
    EXPECT_EQ(device_->CopyInBackground(to, mapped.data()).code(), absl::StatusCode::kInternal) << call;
    EXPECT_EQ(*device_->CountBackgroundCopies(), 0) << call;
    EXPECT_TRUE(device_->Synchronize().ok()) << call;
  }
  ASSERT_TRUE(device_->CopyInBackground(to, mapped.data()).ok());
  EXPECT_EQ(*device_->CountBackgroundCopies(), 0) << "nobody has waited for it";
  ASSERT_TRUE(device_->FinishBackgroundCopies().ok());
  EXPECT_EQ(*device_->CountBackgroundCopies(), 1);
  int32_t value = 0;
  device_->CopyToHost(&value, buffer_.view(DType::kI32, {1}));
  ASSERT_TRUE(device_->Synchronize().ok());
  EXPECT_EQ(value, 0x01010101);
}

TEST_F(CudaOpsErrorTest, MemoryThatCannotBeMappedIsSaidToBe) {
  simt::FailNext("cudaHostAlloc", cudaErrorMemoryAllocation);
  const absl::Status status = device_->AllocateMapped(5 << 20).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), HasSubstr("cannot pin 5 MiB of the host's memory for experts"));
  EXPECT_TRUE(device_->AllocateMapped(64).ok());
}

// What is behind the mark goes on, and its errors are told to whoever waits for it.
TEST_F(CudaOpsErrorTest, AMarkWaitsForNothingBehindIt) {
  const DeviceBuffer staging = *device_->AllocateStaging(2 * sizeof(float));
  auto* const values = reinterpret_cast<float*>(staging.data());
  values[0] = values[1] = 5.0f;
  const View first = buffer_.view(DType::kF32, {1});
  const auto mark = device_->CreateMark();
  ASSERT_TRUE(mark.ok());
  device_->CopyToHost(values, first);
  device_->Mark(mark->get());
  simt::BreakNextKernel(cudaErrorIllegalAddress);
  Clamp();
  device_->CopyToHost(values + 1, first);
  EXPECT_TRUE(device_->Await(**mark).ok());
  EXPECT_EQ(values[0], 0.0f);
  EXPECT_EQ(values[1], 5.0f) << "nobody has waited for it";
  device_->Mark(mark->get());
  EXPECT_EQ(device_->Await(**mark).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(device_->is_lost());
}

TEST_F(CudaOpsErrorTest, AMarkThatCannotBeSetWaitsForEverything) {
  const DeviceBuffer staging = *device_->AllocateStaging(sizeof(float));
  auto* const value = reinterpret_cast<float*>(staging.data());
  *value = 5.0f;
  simt::FailNext("cudaEventCreateWithFlags", cudaErrorMemoryAllocation);
  EXPECT_FALSE(device_->CreateMark().ok());
  const auto mark = device_->CreateMark();
  ASSERT_TRUE(mark.ok());
  device_->CopyToHost(value, buffer_.view(DType::kF32, {1}));
  simt::FailNext("cudaEventRecord", cudaErrorInvalidValue);
  device_->Mark(mark->get());
  const absl::Status status = device_->Await(**mark);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(status), HasSubstr("marking the end of a step"));
  EXPECT_EQ(*value, 0.0f);
  EXPECT_TRUE(device_->Await(**mark).ok());
}

// The copy goes where kernels that were ordered before still write: it must not overtake them, however early it is.
TEST_F(CudaOpsErrorTest, ACopyInTheBackgroundWaitsForWhatWasOrderedBefore) {
  simt::SetCopyTime(simt::CopyTime::kEarly);
  const DeviceBuffer mapped = *device_->AllocateMapped(256);
  for (int i = 0; i < 64; ++i) reinterpret_cast<float*>(mapped.data())[i] = 5.0f;
  Clamp();  // to 1
  ASSERT_TRUE(device_->CopyInBackground(buffer_.view(DType::kF32, {64}), mapped.data()).ok());
  ASSERT_TRUE(device_->Synchronize().ok());
  ASSERT_TRUE(device_->FinishBackgroundCopies().ok());
  float value = 0.0f;
  device_->CopyToHost(&value, buffer_.view(DType::kF32, {1}));
  ASSERT_TRUE(device_->Synchronize().ok());
  EXPECT_EQ(value, 5.0f);
}

TEST_F(CudaOpsErrorTest, MemoryThatCannotBePinnedIsSaidToBe) {
  simt::FailNext("cudaMallocHost", cudaErrorMemoryAllocation);
  const absl::Status status = device_->AllocateStaging(3 << 20).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), HasSubstr("cannot pin 3 MiB"));
  EXPECT_TRUE(device_->AllocateStaging(64).ok());
}

}  // namespace
}  // namespace cadre
