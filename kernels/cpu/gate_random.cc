// AddGateNoise and HashLogits: logits that come, partly or all, from counter-based random numbers.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "kernels/check.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/op_checks.h"
#include "kernels/philox.h"

namespace cadre {
namespace {

constexpr int64_t kBlock = 4;  // experts that share a block of words
constexpr int64_t kBlockCost = 100;

// Two numbers of N(0, 1) from two words (Box and Muller 1958). The first is never 0, so that its logarithm is finite.
std::array<float, 2> NormalPair(uint32_t first, uint32_t second) {
  constexpr float kTwoPi = 6.28318530718f;
  const float radius = std::sqrt(-2.0f * std::log(UnitFloat(first) + 0x1p-24f));
  const float angle = kTwoPi * UnitFloat(second);
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

}  // namespace

void CpuOps::AddGateNoise(View logits, ConstView seeds, ConstView row_sequence, ConstView positions, int64_t layer,
                          float deviation) {
  CheckAddGateNoise(logits, seeds, row_sequence, positions, layer);
  const int64_t num_experts = logits.dim(1);
  const int64_t num_blocks = (num_experts + kBlock - 1) / kBlock;
  const int64_t num_sequences = seeds.dim(0);
  const int32_t* const words = seeds.data<int32_t>();
  const int32_t* const sequences = row_sequence.data<int32_t>();
  const int32_t* const position_data = positions.data<int32_t>();
  float* const z = logits.data<float>();
  ForRows(logits.dim(0), num_blocks * kBlockCost, [&](int64_t t) {
    const int32_t s = sequences[t];
    if (s == kPadding) return;
    CADRE_CHECK_GE(s, 0);
    CADRE_CHECK_LT(int64_t{s}, num_sequences);
    const PhiloxKey key = {static_cast<uint32_t>(words[2 * s]), static_cast<uint32_t>(words[2 * s + 1])};
    const auto position = static_cast<uint32_t>(position_data[t]);
    for (int64_t block = 0; block < num_blocks; ++block) {
      const PhiloxCounter draw =
          GateNoiseWords(position, static_cast<uint32_t>(block), static_cast<uint32_t>(layer), key);
      const std::array<float, 2> low = NormalPair(draw[0], draw[1]);
      const std::array<float, 2> high = NormalPair(draw[2], draw[3]);
      const std::array<float, kBlock> normals = {low[0], low[1], high[0], high[1]};
      const int64_t end = std::min(num_experts, (block + 1) * kBlock);
      for (int64_t e = block * kBlock; e < end; ++e) {
        z[t * num_experts + e] += deviation * normals[static_cast<size_t>(e % kBlock)];
      }
    }
  });
}

void CpuOps::HashLogits(View logits, ConstView token_ids, int64_t layer, uint64_t seed) {
  CheckHashLogits(logits, token_ids, layer);
  const int64_t num_experts = logits.dim(1);
  const int64_t num_blocks = (num_experts + kBlock - 1) / kBlock;
  const int32_t* const tokens = token_ids.data<int32_t>();
  float* const z = logits.data<float>();
  const PhiloxKey key = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  ForRows(logits.dim(0), num_blocks * kBlockCost, [&](int64_t t) {
    for (int64_t block = 0; block < num_blocks; ++block) {
      const PhiloxCounter words = ExpertHashWords(static_cast<uint32_t>(tokens[t]), static_cast<uint32_t>(block),
                                                  static_cast<uint32_t>(layer), key);
      const int64_t end = std::min(num_experts, (block + 1) * kBlock);
      for (int64_t e = block * kBlock; e < end; ++e) {
        z[t * num_experts + e] = UnitFloat(words[static_cast<size_t>(e % kBlock)]);
      }
    }
  });
}

}  // namespace cadre
