#include "engine/base/clock.h"

#include <chrono>

#include "absl/time/clock.h"

namespace cadre {

absl::Time MonotonicClock::Now() const {
  struct Origin {
    absl::Time wall;
    std::chrono::steady_clock::time_point steady;
  };
  static const Origin origin{absl::Now(), std::chrono::steady_clock::now()};
  return origin.wall + absl::FromChrono(std::chrono::steady_clock::now() - origin.steady);
}

}  // namespace cadre
