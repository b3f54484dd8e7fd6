// Products with quantized weights in plain C++: the reference of the other instruction sets.
//
// A packed row of activations is blocks of 128 codes of a signed byte, then a float32 scale of each block. Sums within
// a group of weights are exact, in integers; what they stand for is added up in float32, group by group.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/quantized.h"

namespace cadre {
namespace {

static_assert(kQuantizedColumns == kQuantizedBlock);
constexpr int64_t kAlignment = 64;

int64_t NumBlocks(int64_t k) { return (k + kQuantizedBlock - 1) / kQuantizedBlock; }

int64_t PackedRowBytes(int64_t k) {
  const int64_t bytes = NumBlocks(k) * (kQuantizedBlock + static_cast<int64_t>(sizeof(float)));
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

float* ScalesOf(std::byte* row, int64_t k) { return reinterpret_cast<float*>(row + NumBlocks(k) * kQuantizedBlock); }
const float* ScalesOf(const std::byte* row, int64_t k) {
  return reinterpret_cast<const float*>(row + NumBlocks(k) * kQuantizedBlock);
}

// `count` <= 128 activations; zeros behind them. An infinity or a NaN makes the scale one, and thus every sum.
float PackBlock(const float* x, int64_t count, int8_t* codes) {
  uint32_t bits = 0;
  for (int64_t i = 0; i < count; ++i) bits = std::max(bits, std::bit_cast<uint32_t>(x[i]) & 0x7FFFFFFFu);
  const auto largest = std::bit_cast<float>(bits);
  const bool is_coded = largest >= kSmallestQuantized && std::isfinite(largest);
  const float inverse = is_coded ? 127.0f / largest : 0.0f;
  for (int64_t i = 0; i < kQuantizedBlock; ++i) {
    codes[i] = is_coded && i < count ? static_cast<int8_t>(std::nearbyint(x[i] * inverse)) : int8_t{0};
  }
  return largest < kSmallestQuantized ? 0.0f : largest / 127.0f;
}

int32_t DotOfCodes(const int8_t* x, const int8_t* w, int64_t count) {
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += int32_t{x[i]} * int32_t{w[i]};
  return sum;
}

// A block of weights: codes less their zero, and the scale of each group.
struct WeightBlock {
  int8_t codes[kQuantizedBlock];
  float scales[kQuantizedBlock / kQ4Group];
};

struct Q8 {
  static constexpr DType kType = DType::kQ8;
  static constexpr int64_t kGroup = kQuantizedBlock;

  static void Load(const std::byte* codes, const std::byte* scales, int64_t index, WeightBlock* block) {
    for (int64_t i = 0; i < kQuantizedBlock; ++i) {
      block->codes[i] = static_cast<int8_t>(std::to_integer<int>(codes[i]) - kQ8Zero);
    }
    block->scales[0] = reinterpret_cast<const float*>(scales)[index];
  }
};

struct Q4 {
  static constexpr DType kType = DType::kQ4;
  static constexpr int64_t kGroup = kQ4Group;

  static void Load(const std::byte* codes, const std::byte* scales, int64_t index, WeightBlock* block) {
    for (int64_t i = 0; i < kQuantizedBlock / 2; ++i) {
      const int64_t at = LowCodeOfByte(i);
      block->codes[at] = static_cast<int8_t>((std::to_integer<int>(codes[i]) & 15) - kQ4Zero);
      block->codes[at + kQ4Group / 2] = static_cast<int8_t>((std::to_integer<int>(codes[i]) >> 4) - kQ4Zero);
    }
    const auto* const groups = reinterpret_cast<const BFloat16*>(scales) + 4 * index;
    for (int64_t g = 0; g < 4; ++g) block->scales[g] = ToFloat(groups[g]);
  }
};

template <typename Format>
void Dots(float* out, const std::byte* weight, int64_t num_weight_rows, const std::byte* packed, int64_t first_row,
          int64_t num_rows, int64_t k) {
  const int64_t row_bytes = PackedRowBytes(k);
  const std::byte* const rows = packed + first_row * row_bytes;
  for (int64_t n = 0; n < num_weight_rows; ++n, weight += RowBytes(Format::kType, k)) {
    for (int64_t r = 0; r < num_rows; ++r) out[r * kPanelRows + n] = 0.0f;
    for (int64_t b = 0; b < NumBlocks(k); ++b) {
      WeightBlock block;
      Format::Load(weight + QuantizedCodeBytes(Format::kType, b * kQuantizedBlock),
                   weight + QuantizedCodeBytes(Format::kType, k), b, &block);
      for (int64_t r = 0; r < num_rows; ++r) {
        const std::byte* const row = rows + r * row_bytes;
        const auto* const x = reinterpret_cast<const int8_t*>(row) + b * kQuantizedBlock;
        float sum = 0.0f;
        for (int64_t g = 0; g < kQuantizedBlock; g += Format::kGroup) {
          const int32_t dot = DotOfCodes(x + g, block.codes + g, Format::kGroup);
          sum += static_cast<float>(dot) * block.scales[g / Format::kGroup];
        }
        out[r * kPanelRows + n] += sum * ScalesOf(row, k)[b];
      }
    }
  }
}

}  // namespace

int64_t PackedRowBytesQuantizedPortable(int64_t k) { return PackedRowBytes(k); }

void PackQuantizedPortable(std::byte* packed, int64_t k, int64_t first_row, int64_t num_rows, int64_t first_column,
                           int64_t num_columns, const float* const* rows) {
  std::byte* row = packed + first_row * PackedRowBytes(k);
  for (int64_t r = 0; r < num_rows; ++r, row += PackedRowBytes(k)) {
    for (int64_t c = 0; c < num_columns; c += kQuantizedBlock) {
      ScalesOf(row, k)[(first_column + c) / kQuantizedBlock] = PackBlock(
          rows[r] + c, std::min(kQuantizedBlock, num_columns - c), reinterpret_cast<int8_t*>(row) + first_column + c);
    }
  }
}

void DotsQ8Portable(float* out, const std::byte* weight, int64_t num_weight_rows, const std::byte* packed,
                    int64_t first_row, int64_t num_rows, int64_t k) {
  Dots<Q8>(out, weight, num_weight_rows, packed, first_row, num_rows, k);
}

void DotsQ4Portable(float* out, const std::byte* weight, int64_t num_weight_rows, const std::byte* packed,
                    int64_t first_row, int64_t num_rows, int64_t k) {
  Dots<Q4>(out, weight, num_weight_rows, packed, first_row, num_rows, k);
}

}  // namespace cadre
