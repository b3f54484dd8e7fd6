#include "kernels/quantized.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/check.h"

namespace cadre {
namespace {

// Adding and subtracting it rounds a float of less than 2^22 to the nearest integer, ties to even: loops of it become
// vector code on every machine, which calls of a library do not.
constexpr float kRounder = 0x1.8p23f;
constexpr uint32_t kMagnitude = 0x7FFFFFFFu;
constexpr uint32_t kInfinity = 0x7F800000u;

struct Block {
  alignas(64) float weights[kQuantizedBlock];
  alignas(64) int32_t codes[kQuantizedBlock];
};

// The bits of the largest magnitude: floats without their sign are in the order of their bits, NaN above infinity.
uint32_t LargestMagnitude(const float* weights, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(weights[i]) & kMagnitude);
  return largest;
}

void RoundToCodes(const float* weights, int64_t count, float inverse, int zero, int least, int most, int32_t* codes) {
  for (int64_t i = 0; i < count; ++i) {
    const float rounded = weights[i] * inverse + kRounder;
    const int32_t value = std::bit_cast<int32_t>(rounded) - std::bit_cast<int32_t>(kRounder);
    codes[i] = std::min(std::max(value + zero, least), most);
  }
}

bool QuantizeQ8Block(Block* block, std::byte* codes, float* scale) {
  const uint32_t bits = LargestMagnitude(block->weights, kQuantizedBlock);
  if (bits >= kInfinity) return false;
  const auto largest = std::bit_cast<float>(bits);
  const bool is_zero = largest < kSmallestQuantized;
  *scale = is_zero ? 0.0f : largest / 127.0f;
  RoundToCodes(block->weights, kQuantizedBlock, is_zero ? 0.0f : 127.0f / largest, kQ8Zero, 1, 255, block->codes);
  for (int64_t i = 0; i < kQuantizedBlock; ++i) codes[i] = static_cast<std::byte>(block->codes[i]);
  return true;
}

// The scale that makes the weight of the largest magnitude, whatever its sign, -8 codes.
float Q4Scale(const float* weights, float largest) {
  if (largest < kSmallestQuantized) return 0.0f;
  const bool is_positive = std::any_of(weights, weights + kQ4Group, [&](float w) { return w == largest; });
  return ToFloat(ToBFloat16(largest / (is_positive ? -8.0f : 8.0f)));
}

bool QuantizeQ4Block(Block* block, std::byte* codes, BFloat16* scales) {
  for (int64_t group = 0; group < kQuantizedBlock; group += kQ4Group) {
    const float* const weights = block->weights + group;
    const uint32_t bits = LargestMagnitude(weights, kQ4Group);
    if (bits >= kInfinity) return false;
    const float scale = Q4Scale(weights, std::bit_cast<float>(bits));
    scales[group / kQ4Group] = ToBFloat16(scale);
    RoundToCodes(weights, kQ4Group, scale == 0.0f ? 0.0f : 1.0f / scale, kQ4Zero, 0, 15, block->codes + group);
  }
  for (int64_t i = 0; i < kQuantizedBlock / 2; ++i) {
    const int32_t* const low = block->codes + LowCodeOfByte(i);
    codes[i] = static_cast<std::byte>(low[0] | (low[kQ4Group / 2] << 4));
  }
  return true;
}

}  // namespace

bool QuantizeRow(DType dtype, const float* weights, int64_t k, std::byte* row) {
  CADRE_CHECK(IsQuantized(dtype));
  std::byte* const scales = row + QuantizedCodeBytes(dtype, k);
  Block block;
  for (int64_t first = 0; first < k; first += kQuantizedBlock) {
    const int64_t count = std::min(kQuantizedBlock, k - first);
    std::memcpy(block.weights, weights + first, static_cast<size_t>(count) * sizeof(float));
    std::fill(block.weights + count, block.weights + kQuantizedBlock, 0.0f);
    std::byte* const codes = row + QuantizedCodeBytes(dtype, first);
    const int64_t index = first / kQuantizedBlock;
    const bool is_finite = dtype == DType::kQ8
                               ? QuantizeQ8Block(&block, codes, reinterpret_cast<float*>(scales) + index)
                               : QuantizeQ4Block(&block, codes, reinterpret_cast<BFloat16*>(scales) + 4 * index);
    if (!is_finite) return false;
  }
  return true;
}

}  // namespace cadre
