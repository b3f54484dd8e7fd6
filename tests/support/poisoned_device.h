// A device whose fresh memory is full of NaN instead of zeros: whoever reads what nobody wrote shows it in the result.
#ifndef CADRE_TESTS_SUPPORT_POISONED_DEVICE_H_
#define CADRE_TESTS_SUPPORT_POISONED_DEVICE_H_

#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "kernels/device.h"

namespace cadre {

// Wraps a device with host memory. All bits set is a NaN in every floating-point type, and -1 in every integer.
class PoisonedDevice final : public Device {
 public:
  explicit PoisonedDevice(std::unique_ptr<Device> device) : device_(std::move(device)) {}

  std::string name() const override { return device_->name(); }
  std::string kernels() const override { return device_->kernels(); }
  absl::StatusOr<DeviceBuffer> Allocate(size_t size_bytes) override {
    absl::StatusOr<DeviceBuffer> buffer = device_->Allocate(size_bytes);
    if (buffer.ok()) std::memset(buffer->data(), 0xFF, buffer->size_bytes());
    return buffer;
  }
  size_t AvailableBytes() const override { return device_->AvailableBytes(); }
  void CopyToDevice(View to, const void* from) override { device_->CopyToDevice(to, from); }
  void CopyToHost(void* to, ConstView from) override { device_->CopyToHost(to, from); }
  absl::Status Synchronize() override { return device_->Synchronize(); }
  Ops& ops() override { return device_->ops(); }

 private:
  std::unique_ptr<Device> device_;
};

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_POISONED_DEVICE_H_
