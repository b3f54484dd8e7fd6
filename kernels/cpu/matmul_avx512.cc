// Products with AVX-512: register tiles of weight rows x activation rows, with lanes along K.
//
// An output has one accumulator of 16 lanes: lane l adds up the products of its own indices in rising order (pairs of
// neighbors for bfloat16, `vdpbf16ps`), and the lanes are added by one fixed tree. A tile only says how many outputs
// are computed side by side, so its shape never changes a bit. Weights are read where they lie, 4 to 8 rows at once:
// one sequential stream per core leaves a third of the memory bandwidth unused.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/avx512_math.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/dots_avx512.h"

namespace cadre {
namespace {

struct Bf16Weights {
  using Weight = uint16_t;
  using Packed = uint16_t;
  using Vector = __m512bh;
  static constexpr int64_t kStep = 32;

  static Vector LoadPacked(const Packed* x) { return (__m512bh)_mm512_load_si512(x); }
  static Vector Load(const Weight* w) { return (__m512bh)_mm512_loadu_si512(w); }
  static Vector LoadFirst(const Weight* w, int64_t count) {
    return (__m512bh)_mm512_maskz_loadu_epi16(FirstLanes32(count), w);
  }
  static __m512 MultiplyAdd(__m512 sum, Vector w, Vector x) { return _mm512_dpbf16_ps(sum, w, x); }
  static void StorePacked(Packed* to, const float* x, int64_t count) {
    const __m512 low = _mm512_maskz_loadu_ps(FirstLanes16(count), x);
    const __m512 high = count > 16 ? _mm512_maskz_loadu_ps(FirstLanes16(count - 16), x + 16) : _mm512_setzero_ps();
    _mm512_store_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
};

struct F32Weights {
  using Weight = float;
  using Packed = float;
  using Vector = __m512;
  static constexpr int64_t kStep = 16;

  static Vector LoadPacked(const Packed* x) { return _mm512_load_ps(x); }
  static Vector Load(const Weight* w) { return _mm512_loadu_ps(w); }
  static Vector LoadFirst(const Weight* w, int64_t count) { return _mm512_maskz_loadu_ps(FirstLanes16(count), w); }
  static __m512 MultiplyAdd(__m512 sum, Vector w, Vector x) { return _mm512_fmadd_ps(w, x, sum); }
  static void StorePacked(Packed* to, const float* x, int64_t count) { _mm512_store_ps(to, LoadFirst(x, count)); }
};

struct F16Weights : F32Weights {
  using Weight = uint16_t;

  static Vector Load(const Weight* w) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)));
  }
  static Vector LoadFirst(const Weight* w, int64_t count) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(FirstLanes16(count), w));
  }
};

template <typename Format>
int64_t PackedStride(int64_t k) {
  return RoundUp(k, Format::kStep);
}

template <typename Format>
int64_t PackedRowBytes(int64_t k) {
  return PackedStride<Format>(k) * static_cast<int64_t>(sizeof(typename Format::Packed));
}

template <typename Format>
void Pack(std::byte* packed, int64_t k, int64_t first_row, int64_t num_rows, int64_t first_column, int64_t num_columns,
          const float* const* rows) {
  const int64_t stride = PackedStride<Format>(k);
  auto* to = reinterpret_cast<typename Format::Packed*>(packed) + first_row * stride + first_column;
  for (int64_t r = 0; r < num_rows; ++r, to += stride) {
    for (int64_t c = 0; c < num_columns; c += Format::kStep) {
      const int64_t left = num_columns - c;
      Format::StorePacked(to + c, rows[r] + c, left < Format::kStep ? left : Format::kStep);
    }
  }
}

// A kernel for Dots: a step of weights of one row meets the same step of each activation row.
template <typename Format>
struct MatmulKernel {
  // 4 x 6 accumulators, 6 activations and a weight are 31 of 32 registers.
  static constexpr int kTileRows = 6;
  static constexpr int kManyStreamRows = 3;

  static int64_t WeightRowBytes(int64_t k) { return k * static_cast<int64_t>(sizeof(typename Format::Weight)); }
  static int64_t PackedRowBytes(int64_t k) { return cadre::PackedRowBytes<Format>(k); }

  template <int M, int N, bool kFetch>
  static void Tile(float* out, const std::byte* const* weights, const std::byte* packed, int64_t k) {
    const typename Format::Weight* w[M];
    for (int m = 0; m < M; ++m) w[m] = reinterpret_cast<const typename Format::Weight*>(weights[m]);
    const auto* const x = reinterpret_cast<const typename Format::Packed*>(packed);
    const int64_t stride = PackedStride<Format>(k);
    __m512 sums[M][N];
    for (int m = 0; m < M; ++m) {
      for (int n = 0; n < N; ++n) sums[m][n] = _mm512_setzero_ps();
    }
    const auto step = [&](int64_t i, auto&& load_weights) __attribute__((always_inline)) {
      typename Format::Vector xs[N];
      for (int n = 0; n < N; ++n) xs[n] = Format::LoadPacked(x + n * stride + i);
      for (int m = 0; m < M; ++m) {
        if constexpr (kFetch) _mm_prefetch(reinterpret_cast<const char*>(w[m] + M * k + i), _MM_HINT_T1);
        const typename Format::Vector ws = load_weights(w[m] + i);
        for (int n = 0; n < N; ++n) sums[m][n] = Format::MultiplyAdd(sums[m][n], ws, xs[n]);
      }
    };
    int64_t i = 0;
    for (; i + Format::kStep <= k; i += Format::kStep) {
      step(
          i, [](const auto* p) __attribute__((always_inline)) { return Format::Load(p); });
    }
    if (i < k)
      step(
          i, [&](const auto* p) __attribute__((always_inline)) { return Format::LoadFirst(p, k - i); });
    for (int n = 0; n < N; ++n) {
      for (int m = 0; m < M; m += 4) {
        _mm_storeu_ps(out + n * kPanelRows + m, SumLanes(sums[m][n], sums[m + 1][n], sums[m + 2][n], sums[m + 3][n]));
      }
    }
  }
};

template <typename Format>
constexpr MatmulKernels kMatmul = {PackedRowBytes<Format>, Pack<Format>, Dots<MatmulKernel<Format>>};

void SiluMul(float* out, const float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = FirstLanes16(n - i);
    const __m512 g = _mm512_maskz_loadu_ps(lanes, gate + i);
    const __m512 u = _mm512_maskz_loadu_ps(lanes, up + i);
    const __m512 denominator = _mm512_add_ps(_mm512_set1_ps(1.0f), Exp(_mm512_sub_ps(_mm512_setzero_ps(), g)));
    _mm512_mask_storeu_ps(out + i, lanes, _mm512_mul_ps(_mm512_div_ps(g, denominator), u));
  }
}

}  // namespace

// Constant, so that nothing of this file runs before the machine is asked what it can.
constinit const CpuKernels kAvx512Kernels = {
    .name = "avx512-bf16",
    .f32 = kMatmul<F32Weights>,
    .bf16 = kMatmul<Bf16Weights>,
    .f16 = kMatmul<F16Weights>,
    .q8 = {PackedRowBytesQuantizedAvx512, PackQ8Avx512, DotsQ8Avx512, kQuantizedColumns},
    .q4 = {PackedRowBytesQuantizedAvx512, PackQ4Avx512, DotsQ4Avx512, kQuantizedColumns},
    .silu_mul = SiluMul,
    .attention_scratch = AttentionScratchAvx512,
    .attention = AttentionAvx512,
};

}  // namespace cadre
