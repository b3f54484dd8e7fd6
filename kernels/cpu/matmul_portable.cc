// Products in plain C++: the reference of the other instruction sets, and what runs where none of them is present.
//
// Packed rows are float32 (rounded to bfloat16 first for bfloat16 weights); an output is a sum over lanes (lanes.h).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/lanes.h"

namespace cadre {
namespace {

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

void SiluMul(float* out, const float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

}  // namespace

const CpuKernels kPortableKernels = {
    .name = "portable",
    .f32 = kMatmul<float>,
    .bf16 = kMatmul<BFloat16>,
    .f16 = kMatmul<Float16>,
    .q8 = {PackedRowBytesQuantizedPortable, PackQuantizedPortable, DotsQ8Portable, kQuantizedColumns},
    .q4 = {PackedRowBytesQuantizedPortable, PackQuantizedPortable, DotsQ4Portable, kQuantizedColumns},
    .silu_mul = SiluMul,
    .attention_scratch = AttentionScratchPortable,
    .attention = AttentionPortable,
};

}  // namespace cadre
