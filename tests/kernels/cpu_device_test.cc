// The CPU as a device: memory, limits of the machine and of containers, the choice of kernels.
#include "kernels/cpu/cpu_device.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/host_limits.h"
#include "tests/kernels/cpu_test_device.h"
#include "tests/kernels/op_test.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

TEST(CpuDeviceTest, NamesItself) {
  const std::unique_ptr<Device> device = MakeCpuTestDevice(CpuIsa::kPortable, 1);
  EXPECT_EQ(device->name(), "cpu");
  EXPECT_EQ(device->kernels(), "portable, 1 thread");
  for (const CpuIsa isa : SupportedCpuIsas()) {
    EXPECT_EQ(MakeCpuTestDevice(isa, 3)->kernels(), std::string(CpuIsaName(isa)) + ", 3 threads");
  }
}

TEST(CpuDeviceTest, RefusesWhatTheMachineLacks) {
  for (const CpuIsa isa : {CpuIsa::kAvx512Bf16, CpuIsa::kAmxBf16}) {
    if (IsSupported(isa)) continue;
    const auto device = CreateCpuDevice({.num_threads = 1, .isa = isa});
    EXPECT_EQ(device.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(device.status().message()), HasSubstr(std::string(CpuIsaName(isa))));
  }
  EXPECT_EQ(SupportedCpuIsas().front(), CpuIsa::kPortable);
  EXPECT_EQ(CreateCpuDevice({.num_threads = -1}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateCpuDevice({.num_threads = 1 << 20}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CpuDeviceTest, AllocatesAlignedZeros) {
  const std::unique_ptr<Device> device = MakeCpuTestDevice(CpuIsa::kPortable, 1);
  for (int round = 0; round < 2; ++round) {
    for (const size_t size : {size_t{0}, size_t{1}, size_t{63}, size_t{65}, size_t{100000}, (size_t{2} << 20) - 1,
                              size_t{2} << 20, (size_t{5} << 20) + 3}) {
      const auto buffer = device->Allocate(size);
      ASSERT_TRUE(buffer.ok());
      EXPECT_EQ(buffer->size_bytes(), size);
      const size_t alignment = size >= (size_t{2} << 20) ? size_t{2} << 20 : 64;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % alignment, 0u);
      for (size_t i = 0; i < size; i += 61) ASSERT_EQ(buffer->data()[i], std::byte{0});
      // Dirty for the next round: memory that is used again must be zeroed again.
      if (size > 0) std::memset(buffer->data(), 0xAB, size);
    }
  }
}

TEST(CpuDeviceTest, ReportsWhatDoesNotFit) {
  const std::unique_ptr<Device> device = MakeCpuTestDevice(CpuIsa::kPortable, 1);
  const auto buffer = device->Allocate(size_t{1} << 50);
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(buffer.status().message()), HasSubstr("1125899906842624"));
  EXPECT_THAT(std::string(buffer.status().message()), HasSubstr("available"));
  const OpsLimits huge = {.max_tokens = 1 << 20, .hidden_size = 1 << 20, .max_linear_inputs = 1 << 20};
  EXPECT_EQ(device->ops().Reserve(huge).code(), absl::StatusCode::kResourceExhausted);
}

// Memory that was promised but not touched yet is no longer available.
TEST(CpuDeviceTest, UntouchedMemoryCounts) {
  const std::unique_ptr<Device> device = MakeCpuTestDevice(CpuIsa::kPortable, 1);
  const size_t before = device->AvailableBytes();
  const size_t size = before / 2;
  const auto buffer = device->Allocate(size);
  ASSERT_TRUE(buffer.ok());
  // Other processes move the figure as well, by less than a quarter of it.
  EXPECT_LT(device->AvailableBytes(), before - size + before / 4);
}

TEST(CpuDeviceTest, CommittedMemoryIsThereAndReleasedPagesAreGone) {
  const std::unique_ptr<Device> device = MakeCpuTestDevice(CpuIsa::kPortable, 1);
  constexpr size_t kSize = size_t{64} << 20;
  const auto buffer = device->Allocate(kSize);
  ASSERT_TRUE(buffer.ok());
  buffer->data()[5] = std::byte{7};
  const size_t before = ResidentAnonymousBytes();
  ASSERT_TRUE(device->CommitMemory().ok());
  EXPECT_GT(ResidentAnonymousBytes(), before + kSize / 2);
  EXPECT_EQ(buffer->data()[5], std::byte{7}) << "nothing is changed";
  device->ReleasePages(buffer->view(DType::kF32, {kSize / 4}));
  EXPECT_LT(ResidentAnonymousBytes(), before + kSize / 2);
  EXPECT_EQ(buffer->data()[5], std::byte{0});
  buffer->data()[kSize - 1] = std::byte{1};  // and can be used again
}

TEST(CpuDeviceTest, ReservedMemoryIsThereWhereItIsCommitted) {
  const std::unique_ptr<Device> device = MakeCpuTestDevice(CpuIsa::kPortable, 1);
  constexpr size_t kSize = size_t{64} << 20;
  const auto buffer = device->Reserve(kSize, kSize / 2);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  const size_t before = ResidentAnonymousBytes();
  ASSERT_TRUE(device->CommitMemory().ok());
  EXPECT_LT(ResidentAnonymousBytes(), before + kSize / 4) << "only what is asked for";
  const View half = buffer->view(DType::kF32, {kSize / 8}, kSize / 2);
  ASSERT_TRUE(device->CommitPages(half).ok());
  EXPECT_GT(ResidentAnonymousBytes(), before + kSize / 4);
  EXPECT_LT(ResidentAnonymousBytes(), before + kSize * 3 / 4);
  buffer->data()[kSize - 1] = std::byte{1};
  device->ReleasePages(half);
  EXPECT_LT(ResidentAnonymousBytes(), before + kSize / 4);
  EXPECT_EQ(buffer->data()[kSize - 1], std::byte{0});
}

// More address space than memory, of which some is counted.
TEST(CpuDeviceTest, ReservingCountsWhatIsToBeUsed) {
  const std::unique_ptr<Device> device = MakeCpuTestDevice(CpuIsa::kPortable, 1);
  const size_t before = device->AvailableBytes();
  const auto buffer = device->Reserve(before * 2, before / 2);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_LT(device->AvailableBytes(), before - before / 2 + before / 4);
  const auto more = device->Reserve(before * 2, before);
  EXPECT_EQ(more.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(more.status().message()), HasSubstr("address space"));
}

TEST(CpuDeviceTest, CopiesBothWays) {
  const std::unique_ptr<Device> device = MakeCpuTestDevice(CpuIsa::kPortable, 1);
  const auto buffer = device->Allocate(16);
  ASSERT_TRUE(buffer.ok());
  const View view = buffer->view(DType::kI32, {4});
  const std::vector<int32_t> from = {1, -2, 3, -4};
  std::vector<int32_t> to(4);
  device->CopyToDevice(view, from.data());
  device->CopyToHost(to.data(), view);
  EXPECT_EQ(to, from);
  EXPECT_TRUE(device->Synchronize().ok());
}

TEST(CpuDeviceTest, ScratchIsPlannedAsItIsTaken) {
  const std::unique_ptr<Device> device = MakeCpuTestDevice(SupportedCpuIsas().back(), 2);
  OpsLimits limits = TestLimits();
  const size_t bytes = device->ops().ScratchBytes(limits);
  limits.max_tokens *= 2;
  EXPECT_GT(device->ops().ScratchBytes(limits), bytes);
  EXPECT_TRUE(device->ops().Reserve(limits).ok());
}

// A machine made of files.
class HostLimitsTest : public ::testing::Test {
 protected:
  HostLimitsTest()
      : root_(std::filesystem::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(root_);
    Write("proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n");
  }
  ~HostLimitsTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& name, const std::string& text) {
    const std::filesystem::path path = root_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  HostFiles files() const { return {.proc = root_ / "proc", .cgroup = root_ / "cgroup"}; }

 private:
  const std::filesystem::path root_;
};

TEST_F(HostLimitsTest, WithoutCgroup) {
  EXPECT_EQ(AvailableMemoryBytes(files()), size_t{8000000} * 1024);
  EXPECT_FALSE(CgroupCpuQuota(files()).has_value());
  EXPECT_GE(UsableCpus(files()), 1);
}

TEST_F(HostLimitsTest, CgroupV2TakesTheTightestOnTheWay) {
  Write("proc/self/cgroup", "0::/pod/container\n");
  Write("cgroup/cpu.max", "max 100000\n");
  Write("cgroup/pod/cpu.max", "50000 100000\n");
  Write("cgroup/pod/container/cpu.max", "150000 100000\n");
  Write("cgroup/pod/container/memory.max", "max\n");
  Write("cgroup/pod/container/memory.current", "5000\n");
  Write("cgroup/pod/memory.max", "1000000\n");
  Write("cgroup/pod/memory.current", "600000\n");
  Write("cgroup/pod/memory.stat", "anon 1\ninactive_file 100000\nactive_file 20000\n");
  EXPECT_DOUBLE_EQ(CgroupCpuQuota(files()).value(), 0.5);
  EXPECT_EQ(UsableCpus(files()), 1);
  EXPECT_EQ(AvailableMemoryBytes(files()), 520000u);
}

TEST_F(HostLimitsTest, CgroupV1) {
  Write("proc/self/cgroup", "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/c\n0::/\n");
  Write("cgroup/cpu/c/cpu.cfs_quota_us", "90000\n");
  Write("cgroup/cpu/c/cpu.cfs_period_us", "100000\n");
  Write("cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  Write("cgroup/cpu/cpu.cfs_period_us", "100000\n");
  Write("cgroup/memory/a/memory.limit_in_bytes", "700\n");
  Write("cgroup/memory/a/memory.usage_in_bytes", "900\n");
  EXPECT_DOUBLE_EQ(CgroupCpuQuota(files()).value(), 0.9);
  EXPECT_EQ(AvailableMemoryBytes(files()), 0u);
  Write("cgroup/memory/a/memory.stat", "active_file 5000\ntotal_inactive_file 100\ntotal_active_file 200\n");
  EXPECT_EQ(AvailableMemoryBytes(files()), 100u);
}

// In a container /proc/self/cgroup may name a path that exists only outside; the mount is then the container's own.
TEST_F(HostLimitsTest, PathOutsideTheContainer) {
  Write("proc/self/cgroup", "0::/kubepods/burstable/pod7\n");
  Write("cgroup/cpu.max", "250000 100000\n");
  Write("cgroup/memory.max", "4096\n");
  Write("cgroup/memory.current", "96\n");
  EXPECT_DOUBLE_EQ(CgroupCpuQuota(files()).value(), 2.5);
  EXPECT_EQ(AvailableMemoryBytes(files()), 4000u);
}

}  // namespace
}  // namespace cadre
