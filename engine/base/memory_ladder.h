// What the server gives up as the host's memory runs short, one thing after the other.
#ifndef CADRE_ENGINE_BASE_MEMORY_LADDER_H_
#define CADRE_ENGINE_BASE_MEMORY_LADDER_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace cadre {

// Each level does what those below it do, too.
enum class MemoryPressure {
  kNone,
  kShortenQueue,  // a quarter of the requests and tokens may wait
  kRefuse,        // new requests are refused
  kEvict,         // nothing is kept that can be computed again: cached prompts, compiled constraints
  kPreempt,       // sequences are put back to waiting, the least senior first, until one runs
};
inline constexpr int kNumMemoryPressures = 5;

// The action of a level, for metrics and logs: "shorten_queue", "refuse", "evict", "preempt"; "none".
const char* MemoryPressureName(MemoryPressure level);

// Bytes of the host's memory.
struct MemoryReading {
  int64_t room = 0;      // can be taken before the kernel ends a process for it
  int64_t headroom = 0;  // the room there would be without any request
};

// A number for each level.
using MemoryEntries = std::array<int64_t, kNumMemoryPressures>;

// A level is entered as soon as the room falls below the lesser of its share of the headroom and its cap:
//
//   kShortenQueue  1/2 or 1 GiB      kRefuse   1/3 or 512 MiB
//   kEvict         1/5 or 256 MiB    kPreempt  1/10 or 128 MiB
//
// and left when the room has been a quarter above that for kCalm. So a level is entered at most once in kCalm, however
// the readings jump. A pure state machine; not thread-safe.
class MemoryLadder {
 public:
  static constexpr absl::Duration kCalm = absl::Seconds(10);

  // The level from now on. `now` never goes back.
  MemoryPressure Observe(const MemoryReading& reading, absl::Time now);

  MemoryPressure level() const { return level_; }
  // How often each level was entered from below.
  const MemoryEntries& num_entries() const { return num_entries_; }

  // The room below which `level` is entered.
  static int64_t Threshold(MemoryPressure level, int64_t headroom);

 private:
  MemoryPressure level_ = MemoryPressure::kNone;
  absl::Time last_needed_ = absl::InfinitePast();  // the last reading that asked for level_
  // Since then, the highest level that any reading has asked for: where the ladder goes after kCalm.
  MemoryPressure highest_since_ = MemoryPressure::kNone;
  MemoryEntries num_entries_ = {};
};

}  // namespace cadre

#endif  // CADRE_ENGINE_BASE_MEMORY_LADDER_H_
