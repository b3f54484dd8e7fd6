// Products in plain C++: the reference of the other instruction sets, and what runs where none of them is present.
//
// Packed rows are float32 (rounded to bfloat16 first for bfloat16 weights). An output is accumulated in kLanes partial
// sums, one for each index modulo kLanes, added up pairwise at the end: fixed, and what SIMD registers of any width
// (up to kLanes) compute when the compiler vectorizes the loop.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu_kernels.h"

namespace cadre {
namespace {

constexpr int64_t kLanes = 16;
// Weights converted to float32 at a time: 2 KiB stay in L1 beside the activations.
constexpr int64_t kBlock = 512;

int64_t PackedRowBytes(int64_t k) { return k * static_cast<int64_t>(sizeof(float)); }

template <typename Weight>
void Pack(std::byte* packed, int64_t k, int64_t first_row, int64_t num_rows, int64_t first_column, int64_t num_columns,
          const float* const* rows) {
  float* out = reinterpret_cast<float*>(packed) + first_row * k + first_column;
  for (int64_t r = 0; r < num_rows; ++r, out += k) {
    for (int64_t c = 0; c < num_columns; ++c) {
      out[c] = std::is_same_v<Weight, BFloat16> ? ToFloat(ToBFloat16(rows[r][c])) : rows[r][c];
    }
  }
}

void AddProducts(float* lanes, const float* x, const float* w, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] += x[i + l] * w[i + l];
  }
  for (int64_t l = 0; i + l < n; ++l) lanes[l] += x[i + l] * w[i + l];
}

float SumOfLanes(float* lanes) {
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

template <typename Weight>
void Dots(float* out, const std::byte* weight, int64_t num_weight_rows, const std::byte* packed, int64_t first_row,
          int64_t num_rows, int64_t k) {
  const float* x = reinterpret_cast<const float*>(packed) + first_row * k;
  const Weight* w = reinterpret_cast<const Weight*>(weight);
  float lanes[kChunkRows][kLanes];
  float block[kBlock];
  for (int64_t n = 0; n < num_weight_rows; ++n, w += k) {
    std::memset(lanes, 0, sizeof(lanes));
    for (int64_t begin = 0; begin < k; begin += kBlock) {
      const int64_t size = std::min(kBlock, k - begin);
      for (int64_t i = 0; i < size; ++i) block[i] = ToFloat(w[begin + i]);
      for (int64_t r = 0; r < num_rows; ++r) AddProducts(lanes[r], x + r * k + begin, block, size);
    }
    for (int64_t r = 0; r < num_rows; ++r) out[r * kPanelRows + n] = SumOfLanes(lanes[r]);
  }
}

template <typename Weight>
constexpr MatmulKernels kMatmul = {PackedRowBytes, Pack<Weight>, Dots<Weight>};

void SiluMul(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

}  // namespace

const CpuKernels kPortableKernels = {
    .name = "portable",
    .f32 = kMatmul<float>,
    .bf16 = kMatmul<BFloat16>,
    .f16 = kMatmul<Float16>,
    .silu_mul = SiluMul,
    .attention_scratch = AttentionScratchPortable,
    .attention = AttentionPortable,
};

}  // namespace cadre
