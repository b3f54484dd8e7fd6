// Keeps the process within the memory that the machine, or its container, has left: what is read of it ten times a
// second decides how much is given up (engine/base/memory_ladder.h), and what requests take while they are read is
// charged beforehand, because a burst of large ones is faster than any reading.
#ifndef CADRE_SERVER_MEMORY_GUARD_H_
#define CADRE_SERVER_MEMORY_GUARD_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/base/clock.h"
#include "engine/base/memory_ladder.h"

namespace cadre {

// What the kernel says, in bytes.
struct HostMemoryUse {
  int64_t room = 0;      // until this process, or another, is ended for it
  int64_t resident = 0;  // anonymous memory of this process
};

// After so long, one who was refused for memory may find it.
inline constexpr absl::Duration kMemoryRetryDelay = absl::Seconds(5);

struct MemoryFigures {
  MemoryPressure level = MemoryPressure::kNone;
  MemoryReading reading;
  MemoryEntries num_entries = {};
};

// Any thread.
class MemoryGuard {
 public:
  // Held while a request is read; gives back what it took when it goes.
  class Charge {
   public:
    Charge(std::shared_ptr<std::atomic<int64_t>> charged, int64_t bytes)
        : charged_(std::move(charged)), bytes_(bytes) {}
    ~Charge() { charged_->fetch_sub(bytes_); }
    Charge(const Charge&) = delete;
    Charge& operator=(const Charge&) = delete;

   private:
    const std::shared_ptr<std::atomic<int64_t>> charged_;
    const int64_t bytes_;
  };

  // Reading, parsing and tokenizing a request takes at most so many bytes for each of its own (measured: 21, of a
  // prompt of 1 MB).
  static constexpr int64_t kBytesPerMessageByte = 24;
  static constexpr int64_t kBytesPerMessage = 64 << 10;
  // With less room than this, a reading is out of date after kMaxAge, and TryCharge takes another.
  static constexpr int64_t kLittleRoom = int64_t{1} << 30;
  static constexpr absl::Duration kMaxAge = absl::Milliseconds(10);

  // `clock` outlives this.
  MemoryGuard(std::function<HostMemoryUse()> read, const Clock* clock) : read_(std::move(read)), clock_(clock) {}

  // What is resident now belongs to the server, not to requests. Before this, nothing is refused.
  void Arm();
  // Reads the memory, and says what is known from now on. Logs a level that changes. Under pressure it trims the heap,
  // too, at most once a second.
  MemoryFigures Observe();

  // Room for reading a request of `message_bytes`. RESOURCE_EXHAUSTED (MEMORY_PRESSURE) when the server is at kRefuse
  // or above, or when requests that are being read would take more than half of what was left at the last reading.
  absl::StatusOr<std::shared_ptr<Charge>> TryCharge(size_t message_bytes);

 private:
  MemoryFigures FreshFigures();
  void ObserveLocked(absl::Time now);

  const std::function<HostMemoryUse()> read_;
  const Clock* const clock_;
  const std::shared_ptr<std::atomic<int64_t>> charged_ = std::make_shared<std::atomic<int64_t>>(0);
  std::mutex mutex_;
  // Guarded by mutex_:
  MemoryLadder ladder_;
  MemoryFigures figures_;
  int64_t base_resident_ = 0;
  bool is_armed_ = false;
  absl::Time last_reading_ = absl::InfinitePast();
  absl::Time last_trim_ = absl::InfinitePast();
};

}  // namespace cadre

#endif  // CADRE_SERVER_MEMORY_GUARD_H_
