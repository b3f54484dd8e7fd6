#include "engine/model/resident_experts.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

// What its threads share: who is next, and the first error.
struct Progress {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  absl::Status error;
  std::atomic<bool> has_failed = false;

  void Fail(const absl::Status& status) {
    const std::lock_guard lock(mutex);
    if (error.ok()) error = status;
    has_failed = true;
  }
};

absl::Status LoadOne(const ExpertSource& source, ExpertId expert, const DeviceBuffer& staging, View to,
                     Device& device) {
  const auto pace = [] { return absl::OkStatus(); };
  CADRE_RETURN_IF_ERROR(source.Read(expert, {staging.data(), to.size_bytes()}, pace));
  device.CopyToDevice(to, staging.data());
  return device.Synchronize();  // the staging memory is used again at once
}

}  // namespace

absl::StatusOr<ResidentExperts> ResidentExperts::Load(const ExpertLayout& layout, int64_t num_experts,
                                                      std::span<const ExpertId> experts, const ExpertSource& source,
                                                      int num_threads, Device* device) {
  if (experts.empty()) return ResidentExperts();
  const auto slot_bytes = static_cast<size_t>(layout.size_bytes());
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer arena, device->Allocate(experts.size() * slot_bytes));
  ResidentExperts resident(slot_bytes, num_experts, experts, std::move(arena));
  Progress progress;
  const auto load = [&](const DeviceBuffer& staging) {
    while (!progress.has_failed) {
      const size_t slot = progress.next.fetch_add(1);
      if (slot >= experts.size()) return;
      const View to(resident.SlotData(slot), DType::kI32, {layout.size_bytes() / int64_t{sizeof(int32_t)}});
      const absl::Status status = LoadOne(source, experts[slot], staging, to, *device);
      if (!status.ok()) progress.Fail(status);
    }
  };
  CADRE_ASSIGN_OR_RETURN(const DeviceBuffer staging, device->AllocateStaging(slot_bytes));
  std::vector<std::thread> helpers;
  const size_t most = std::min(static_cast<size_t>(std::max(num_threads, 1)), experts.size());
  helpers.reserve(most);
  try {
    while (helpers.size() + 1 < most) {
      helpers.emplace_back([&] {
        // Without staging memory of its own, a helper leaves the work to others.
        const absl::StatusOr<DeviceBuffer> own = device->AllocateStaging(slot_bytes);
        if (own.ok()) load(*own);
      });
    }
  } catch (const std::system_error&) {  // no more threads are allowed: those that there are do it
  }
  load(staging);
  for (std::thread& helper : helpers) helper.join();
  if (!progress.error.ok()) return progress.error;
  return resident;
}

ResidentExperts::ResidentExperts(size_t slot_bytes, int64_t num_experts, std::span<const ExpertId> experts,
                                 DeviceBuffer arena)
    : slot_bytes_(slot_bytes),
      experts_(experts.begin(), experts.end()),
      slots_(static_cast<size_t>(num_experts), -1),
      arena_(std::move(arena)) {
  for (size_t slot = 0; slot < experts.size(); ++slot) {
    int64_t& at = slots_[static_cast<size_t>(experts[slot])];
    CADRE_CHECK_EQ(at, int64_t{-1});
    at = static_cast<int64_t>(slot);
  }
}

}  // namespace cadre
