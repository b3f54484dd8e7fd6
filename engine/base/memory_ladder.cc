#include "engine/base/memory_ladder.h"

#include <algorithm>

namespace cadre {
namespace {

struct Rung {
  int64_t divisor;  // of the headroom
  int64_t cap;      // bytes
};
constexpr int64_t kMiB = int64_t{1} << 20;
constexpr std::array<Rung, kNumMemoryPressures> kRungs = {
    {{.divisor = 1, .cap = 0}, {2, 1024 * kMiB}, {3, 512 * kMiB}, {5, 256 * kMiB}, {10, 128 * kMiB}}};

// The highest level whose threshold, raised by a `margin` of itself, is above the room.
MemoryPressure Needed(const MemoryReading& reading, double margin) {
  for (int i = kNumMemoryPressures - 1; i > 0; --i) {
    const auto level = static_cast<MemoryPressure>(i);
    const auto threshold = static_cast<double>(MemoryLadder::Threshold(level, reading.headroom));
    if (static_cast<double>(reading.room) < threshold * (1 + margin)) return level;
  }
  return MemoryPressure::kNone;
}

}  // namespace

const char* MemoryPressureName(MemoryPressure level) {
  constexpr std::array<const char*, kNumMemoryPressures> kNames = {"none", "shorten_queue", "refuse", "evict",
                                                                   "preempt"};
  return kNames[static_cast<size_t>(level)];
}

int64_t MemoryLadder::Threshold(MemoryPressure level, int64_t headroom) {
  const Rung& rung = kRungs[static_cast<size_t>(level)];
  return std::max<int64_t>(std::min(headroom / rung.divisor, rung.cap), 1);  // no room is always too little
}

MemoryPressure MemoryLadder::Observe(const MemoryReading& reading, absl::Time now) {
  constexpr double kExitMargin = 0.25;
  for (const MemoryPressure needed = Needed(reading, 0); level_ < needed;) {
    level_ = static_cast<MemoryPressure>(static_cast<int>(level_) + 1);
    ++num_entries_[static_cast<size_t>(level_)];
    last_needed_ = now;
  }
  const MemoryPressure held = std::min(Needed(reading, kExitMargin), level_);
  if (held == level_) {
    last_needed_ = now;
    highest_since_ = MemoryPressure::kNone;
    return level_;
  }
  highest_since_ = std::max(highest_since_, held);
  if (now - last_needed_ < kCalm) return level_;
  level_ = highest_since_;
  highest_since_ = MemoryPressure::kNone;
  last_needed_ = now;
  return level_;
}

}  // namespace cadre
