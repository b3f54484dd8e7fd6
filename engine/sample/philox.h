// The uniform numbers of the sampler, from counters: kernels/philox.h.
#ifndef CADRE_ENGINE_SAMPLE_PHILOX_H_
#define CADRE_ENGINE_SAMPLE_PHILOX_H_

#include <cstdint>

#include "kernels/philox.h"

namespace cadre {

// A number below 2^53 for draw `index` of stream `stream` of `seed`.
constexpr uint64_t DrawBits(uint64_t seed, uint32_t stream, uint64_t index) {
  const PhiloxCounter words = Philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), stream, 0},
                                         {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t bits = (static_cast<uint64_t>(words[1]) << 32) | words[0];
  return bits >> 11;
}

// The same as a number in [0, 1).
constexpr double UniformDraw(uint64_t seed, uint32_t stream, uint64_t index) {
  return static_cast<double>(DrawBits(seed, stream, index)) * 0x1.0p-53;
}

}  // namespace cadre

#endif  // CADRE_ENGINE_SAMPLE_PHILOX_H_
