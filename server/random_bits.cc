#include "server/random_bits.h"

#include "absl/random/random.h"

namespace cadre {

std::uint64_t RandomBits() {
  thread_local absl::BitGen generator;
  return generator();
}

}  // namespace cadre
