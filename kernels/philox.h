// Counter-based random numbers: a block of four words is a pure function of a key and a counter, so that a draw depends
// on what it is for and never on how many draws came before. Philox4x32-10 of Salmon et al. 2011, "Parallel random
// numbers: as easy as 1, 2, 3". For host and device.
#ifndef CADRE_KERNELS_PHILOX_H_
#define CADRE_KERNELS_PHILOX_H_

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

// The last word of a counter says what the draw is for. Sampling has 0: engine/sample/philox.h.
inline constexpr uint32_t kGateNoiseDraw = 1;
inline constexpr uint32_t kExpertHashDraw = 2;

// Four words for the experts [4 * block, 4 * block + 4) of a layer.
constexpr PhiloxCounter GateNoiseWords(uint32_t position, uint32_t block, uint32_t layer, PhiloxKey seed) {
  return Philox4x32({position, block, layer, kGateNoiseDraw}, seed);
}
constexpr PhiloxCounter ExpertHashWords(uint32_t token, uint32_t block, uint32_t layer, PhiloxKey seed) {
  return Philox4x32({token, block, layer, kExpertHashDraw}, seed);
}

// The upper 24 bits of a word, which a float holds exactly: in [0, 1).
constexpr float UnitFloat(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

}  // namespace cadre

#endif  // CADRE_KERNELS_PHILOX_H_
