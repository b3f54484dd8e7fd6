// How many missing experts of a layer are read at a time.
#ifndef CADRE_ENGINE_EXPERTS_LOAD_WINDOW_H_
#define CADRE_ENGINE_EXPERTS_LOAD_WINDOW_H_

#include <algorithm>
#include <cstdint>

namespace cadre {

// Enough to keep the disk busy while a wave computes: two for each thread that reads, and a sixteenth of the slots.
// Where a layer misses more, the others take the slots of those that were computed meanwhile, whose next turn is the
// farthest, and not those of the layers that are next.
inline int64_t MaxMissesInFlight(int num_threads, int64_t num_slots) {
  return std::max<int64_t>(int64_t{2} * num_threads, num_slots / 16);
}

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_LOAD_WINDOW_H_
