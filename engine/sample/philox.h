// Counter-based random numbers: a block of four words is a pure function of a key and a counter, so that a draw depends
// on what it is for and never on how many draws came before. Philox4x32-10 of Salmon et al. 2011, "Parallel random
// numbers: as easy as 1, 2, 3".
#ifndef CADRE_ENGINE_SAMPLE_PHILOX_H_
#define CADRE_ENGINE_SAMPLE_PHILOX_H_

#include <array>
#include <cstdint>

namespace cadre {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

constexpr PhiloxCounter Philox4x32(PhiloxCounter counter, PhiloxKey key) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;  // golden ratio, sqrt(3) - 1
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = static_cast<uint64_t>(kMultiplier0) * counter[0];
    const uint64_t product1 = static_cast<uint64_t>(kMultiplier1) * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

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
