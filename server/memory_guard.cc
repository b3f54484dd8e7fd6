#include "server/memory_guard.h"

#include <malloc.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/errors.h"

namespace cadre {
namespace {

constexpr absl::Duration kTrimInterval = absl::Seconds(1);

absl::Status Refused(const std::string& message) {
  return MakeError({.code = absl::StatusCode::kResourceExhausted,
                    .reason = reason::kMemoryPressure,
                    .message = message,
                    .retry_delay = kMemoryRetryDelay});
}

int64_t MiB(int64_t bytes) { return bytes >> 20; }

}  // namespace

void MemoryGuard::Arm() {
  const std::lock_guard lock(mutex_);
  base_resident_ = read_().resident;
  is_armed_ = true;
}

MemoryFigures MemoryGuard::Observe() {
  MemoryFigures figures;
  bool must_trim = false;
  {
    const std::lock_guard lock(mutex_);
    const absl::Time now = clock_->Now();
    if (is_armed_) ObserveLocked(now);
    figures = figures_;
    must_trim = figures.level > MemoryPressure::kNone && now - last_trim_ >= kTrimInterval;
    if (must_trim) last_trim_ = now;
  }
#ifdef __GLIBC__
  // What bursts left in the heap is the first thing to give back. It takes long: whoever reads a request, and only
  // wants to know the level, does not wait for it.
  if (must_trim) malloc_trim(0);
#endif
  return figures;
}

void MemoryGuard::ObserveLocked(absl::Time now) {
  const HostMemoryUse use = read_();
  const MemoryReading reading{.room = use.room,
                              .headroom = use.room + std::max<int64_t>(use.resident - base_resident_, 0)};
  const MemoryPressure before = ladder_.level();
  const MemoryPressure level = ladder_.Observe(reading, now);
  if (level != before) {
    spdlog::log(level > before ? spdlog::level::warn : spdlog::level::info,
                "memory: {} MiB of {} MiB are left for requests: {} (was {})", MiB(reading.room), MiB(reading.headroom),
                MemoryPressureName(level), MemoryPressureName(before));
  }
  figures_ = {.level = level, .reading = reading, .num_entries = ladder_.num_entries()};
  last_reading_ = now;
}

MemoryFigures MemoryGuard::FreshFigures() {
  const std::lock_guard lock(mutex_);
  const absl::Time now = clock_->Now();
  if (is_armed_ && figures_.reading.room < kLittleRoom && now - last_reading_ >= kMaxAge) ObserveLocked(now);
  return figures_;
}

absl::StatusOr<std::shared_ptr<MemoryGuard::Charge>> MemoryGuard::TryCharge(size_t message_bytes) {
  const int64_t bytes = kBytesPerMessage + kBytesPerMessageByte * static_cast<int64_t>(message_bytes);
  const int64_t charged = charged_->fetch_add(bytes);
  auto charge = std::make_shared<Charge>(charged_, bytes);
  const MemoryFigures figures = FreshFigures();
  if (figures.level >= MemoryPressure::kRefuse) {
    return Refused("the server is short of memory and takes no new requests");
  }
  const bool is_known = figures.reading.headroom > 0;
  if (const int64_t budget = figures.reading.room / 2; is_known && bytes > budget - charged) {
    return Refused(absl::StrCat("reading the request may take ", bytes, " bytes of memory, and ",
                                std::max<int64_t>(budget - charged, 0), " are left for it"));
  }
  return charge;
}

}  // namespace cadre
