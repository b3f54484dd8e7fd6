// A device of plain host memory, for tests that move weights and compute nothing.
#ifndef CADRE_TESTS_SUPPORT_FAKE_DEVICE_H_
#define CADRE_TESTS_SUPPORT_FAKE_DEVICE_H_

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/device.h"

namespace cadre {

class FakeDevice final : public Device {
 public:
  explicit FakeDevice(size_t capacity_bytes = size_t{1} << 32) : capacity_bytes_(capacity_bytes) {}

  // What Synchronize says from its `calls_before`-th call on.
  void FailSynchronize(absl::Status status, int calls_before = 0) {
    sync_status_ = std::move(status);
    calls_before_failure_ = calls_before;
  }
  size_t allocated_bytes() const { return allocated_bytes_; }

  std::string name() const override { return "fake"; }
  std::string kernels() const override { return "none"; }
  absl::StatusOr<DeviceBuffer> Allocate(size_t size_bytes) override {
    if (size_bytes > AvailableBytes()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("fake device: ", size_bytes, " bytes asked for, ", AvailableBytes(), " available"));
    }
    allocated_bytes_ += size_bytes;
    return DeviceBuffer(Zeros(size_bytes), size_bytes, [this, size_bytes](std::byte* freed) {
      allocated_bytes_ -= size_bytes;
      std::free(freed);
    });
  }
  // Not the device's memory, and not counted.
  absl::StatusOr<DeviceBuffer> AllocateStaging(size_t size_bytes) override {
    return DeviceBuffer(Zeros(size_bytes), size_bytes, [](std::byte* freed) { std::free(freed); });
  }
  size_t AvailableBytes() const override { return capacity_bytes_ - allocated_bytes_; }
  void CopyToDevice(View to, const void* from) override { std::memcpy(to.raw(), from, to.size_bytes()); }
  void CopyToHost(void* to, ConstView from) override { std::memcpy(to, from.raw(), from.size_bytes()); }
  absl::Status Synchronize() override { return calls_before_failure_-- > 0 ? absl::OkStatus() : sync_status_; }
  Ops& ops() override {
    CADRE_CHECK(false);
    std::abort();
  }

 private:
  static std::byte* Zeros(size_t size_bytes) {
    auto* data = static_cast<std::byte*>(std::aligned_alloc(64, (size_bytes + 63) / 64 * 64));
    CADRE_CHECK(data != nullptr);
    std::memset(data, 0, size_bytes);
    return data;
  }

  const size_t capacity_bytes_;
  std::atomic<size_t> allocated_bytes_ = 0;
  absl::Status sync_status_;
  std::atomic<int> calls_before_failure_ = 0;
};

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_FAKE_DEVICE_H_
