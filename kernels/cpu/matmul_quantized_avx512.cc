// Products with quantized weights (kernels/quantized.h) and AVX-512 VNNI: register tiles of weight rows x activation
// rows, with lanes along k, as in matmul_avx512.cc.
//
// `vpdpbusd` multiplies unsigned codes of weights with signed codes of activations and adds four neighbors into a lane.
// That codes stand for code - zero is made up for at the start of a sum, which is -zero times the lane's activations:
// it is packed beside them. Integer sums are exact; each block of 128 inputs adds to 16 lanes of float32, in rising
// order, and the lanes are added by one fixed tree, so the shape of a tile never changes a bit.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/avx512_math.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/dots_avx512.h"
#include "kernels/quantized.h"

namespace cadre {
namespace {

static_assert(kQuantizedColumns == kQuantizedBlock);
// Activations: 128 codes, in the order in which weights meet them, and where the sums of the block begin.
struct alignas(64) ActivationBlock {
  int8_t codes[kQuantizedBlock];
  int32_t starts[16];
};

int64_t NumBlocks(int64_t k) { return (k + kQuantizedBlock - 1) / kQuantizedBlock; }

// The blocks, then a scale of each.
int64_t PackedRowBytes(int64_t k) {
  return RoundUp(NumBlocks(k) * static_cast<int64_t>(sizeof(ActivationBlock) + sizeof(float)), 64);
}

const ActivationBlock* BlocksOf(const std::byte* row) { return reinterpret_cast<const ActivationBlock*>(row); }
const float* ScalesOf(const std::byte* row, int64_t k) {
  return reinterpret_cast<const float*>(row + NumBlocks(k) * static_cast<int64_t>(sizeof(ActivationBlock)));
}

// -zero times the sums of what each lane meets.
void SetStarts(ActivationBlock* block, int zero) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, _mm512_load_si512(block->codes));
  sums = _mm512_dpbusd_epi32(sums, ones, _mm512_load_si512(block->codes + 64));
  _mm512_store_si512(block->starts, _mm512_mullo_epi32(sums, _mm512_set1_epi32(-zero)));
}

// `count` <= 128 activations; zeros behind them. An infinity or a NaN makes the scale one, and thus every sum.
template <typename Format>
float PackCodes(const float* x, int64_t count, int8_t* codes) {
  constexpr int64_t kVectors = kQuantizedBlock / 16;
  __m512 values[kVectors];
  __m512i bits = _mm512_setzero_si512();
  for (int64_t i = 0; i < kVectors; ++i) {
    values[i] = count > 16 * i ? _mm512_maskz_loadu_ps(FirstLanes16(count - 16 * i), x + 16 * i) : _mm512_setzero_ps();
    bits = _mm512_max_epu32(bits, _mm512_castps_si512(_mm512_abs_ps(values[i])));
  }
  const uint32_t largest_bits = _mm512_reduce_max_epu32(bits);
  const float largest = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(largest_bits))));
  const bool is_coded = largest >= kSmallestQuantized && largest_bits < 0x7F800000u;
  const __m512 inverse = _mm512_set1_ps(is_coded ? 127.0f / largest : 0.0f);
  for (int64_t i = 0; i < kVectors; ++i) {
    const __m512i rounded = is_coded ? _mm512_cvtps_epi32(_mm512_mul_ps(values[i], inverse)) : _mm512_setzero_si512();
    _mm_store_si128(reinterpret_cast<__m128i*>(codes) + Format::PlaceOf(i), _mm512_cvtsepi32_epi8(rounded));
  }
  return largest < kSmallestQuantized ? 0.0f : largest / 127.0f;
}

template <typename Format>
void Pack(std::byte* packed, int64_t k, int64_t first_row, int64_t num_rows, int64_t first_column, int64_t num_columns,
          const float* const* rows) {
  std::byte* row = packed + first_row * PackedRowBytes(k);
  for (int64_t r = 0; r < num_rows; ++r, row += PackedRowBytes(k)) {
    auto* block = reinterpret_cast<ActivationBlock*>(row) + first_column / kQuantizedBlock;
    auto* scale = const_cast<float*>(ScalesOf(row, k)) + first_column / kQuantizedBlock;
    for (int64_t c = 0; c < num_columns; c += kQuantizedBlock, ++block) {
      const int64_t left = num_columns - c;
      *scale++ = PackCodes<Format>(rows[r] + c, left < kQuantizedBlock ? left : kQuantizedBlock, block->codes);
      SetStarts(block, Format::kZero);
    }
  }
}

struct Q8 {
  static constexpr int kZero = kQ8Zero;
  static constexpr int64_t kCodeBytes = kQuantizedBlock;  // of a block
  static constexpr int64_t kScaleBytes = 4;
  static_assert(kCodeBytes + kScaleBytes == kQ8BlockBytes);

  struct Weights {
    __m512i low, high;
  };

  // Of 16 activations, number i of 8, among those of a block.
  static int64_t PlaceOf(int64_t i) { return i; }
  // out[n * M + m]: products of scales, made for four weight rows at once.
  template <int M, int N>
  static void MultiplyScales(const std::byte* const* scales, int64_t index, const float* const* x_scales, float* out) {
    for (int m = 0; m < M; m += 4) {
      const auto scale = [&](int row) { return reinterpret_cast<const float*>(scales[m + row])[index]; };
      const __m128 rows = _mm_setr_ps(scale(0), scale(1), scale(2), scale(3));
      for (int n = 0; n < N; ++n) _mm_store_ps(out + n * M + m, _mm_mul_ps(rows, _mm_set1_ps(x_scales[n][index])));
    }
  }
  static Weights Load(const std::byte* codes, const std::byte* /*scales*/, int64_t /*index*/) {
    return {_mm512_loadu_si512(codes), _mm512_loadu_si512(codes + 64)};
  }
  static __m512 MultiplyAdd(__m512 sum, const Weights& w, const ActivationBlock& x, float scale) {
    __m512i dot = _mm512_load_si512(x.starts);
    dot = _mm512_dpbusd_epi32(dot, w.low, _mm512_load_si512(x.codes));
    dot = _mm512_dpbusd_epi32(dot, w.high, _mm512_load_si512(x.codes + 64));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(scale), sum);
  }
};

struct Q4 {
  static constexpr int kZero = kQ4Zero;
  static constexpr int64_t kCodeBytes = kQuantizedBlock / 2;
  static constexpr int64_t kScaleBytes = 8;
  static_assert(kCodeBytes + kScaleBytes == kQ4BlockBytes);

  struct Weights {
    __m512i low, high;
    __m512 scales;  // 4 lanes of each group
  };

  // The first 16 of a group meet the low halves of its bytes, the others the high halves.
  static int64_t PlaceOf(int64_t i) { return i % 2 * 4 + i / 2; }
  template <int M, int N>
  static void MultiplyScales(const std::byte* const* /*scales*/, int64_t index, const float* const* x_scales,
                             float* out) {
    for (int n = 0; n < N; ++n) {
      for (int m = 0; m < M; ++m) out[n * M + m] = x_scales[n][index];
    }
  }
  static Weights Load(const std::byte* codes, const std::byte* scales, int64_t index) {
    const __m512i both = _mm512_loadu_si512(codes);
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i four = _mm512_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + 8 * index)));
    // bfloat16 number g becomes the upper half of the lanes of quarter g.
    constexpr int64_t kFirst = 0x0100808001008080;
    constexpr int64_t kNext = 0x0202000002020000;
    const __m512i places = _mm512_setr_epi64(kFirst, kFirst, kFirst + kNext, kFirst + kNext, kFirst + 2 * kNext,
                                             kFirst + 2 * kNext, kFirst + 3 * kNext, kFirst + 3 * kNext);
    return {_mm512_and_si512(both, mask), _mm512_and_si512(_mm512_srli_epi16(both, 4), mask),
            _mm512_castsi512_ps(_mm512_shuffle_epi8(four, places))};
  }
  static __m512 MultiplyAdd(__m512 sum, const Weights& w, const ActivationBlock& x, float scale) {
    __m512i dot = _mm512_load_si512(x.starts);
    dot = _mm512_dpbusd_epi32(dot, w.low, _mm512_load_si512(x.codes));
    dot = _mm512_dpbusd_epi32(dot, w.high, _mm512_load_si512(x.codes + 64));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(w.scales, _mm512_set1_ps(scale)), sum);
  }
};

// A kernel for Dots.
template <typename Format>
struct QuantizedKernel {
  static constexpr int kTileRows = 4;
  static constexpr int kManyStreamRows = 2;

  // RowBytes, which is not for this file: a copy of it that is compiled for AVX-512 could be linked into other files.
  static int64_t WeightRowBytes(int64_t k) { return NumBlocks(k) * (Format::kCodeBytes + Format::kScaleBytes); }
  static int64_t PackedRowBytes(int64_t k) { return cadre::PackedRowBytes(k); }

  // Bytes between what a tile of M rows computes with and what it asks for: whole tiles. Eight short rows are read too
  // soon for one tile to be enough.
  template <int M>
  static int64_t FetchDistance(int64_t k) {
    constexpr int64_t kLeast = M == 8 ? 8192 : 0;
    const int64_t tile_bytes = M * WeightRowBytes(k);
    return tile_bytes * (kLeast / (tile_bytes + 1) + 1);
  }
  // Asks for what is `distance` behind the scales of all rows, which the loop over blocks leaves out.
  template <int M>
  static void FetchScales(const std::byte* const* scales, int64_t distance, int64_t k) {
    if constexpr (kIsFetchedInOrder<M>) return;
    for (int m = 0; m < M; ++m) {
      for (int64_t at = 0; at < NumBlocks(k) * Format::kScaleBytes; at += 64) Fetch(scales[m] + distance + at);
    }
  }
  // The part of a tile that block b of row m asks for. Eight rows of 8 bits are fetched in the order in which they lie,
  // which is faster, others in the order in which they are read.
  template <int M>
  static void FetchPart(const std::byte* const* w, int m, int64_t b, int64_t distance) {
    if constexpr (kIsFetchedInOrder<M>) {
      constexpr int64_t kBytes = M * (Format::kCodeBytes + Format::kScaleBytes);
      constexpr int64_t kLines = (kBytes + 63) / 64;
      for (int64_t line = m * kLines / M; line < (m + 1) * kLines / M; ++line) {
        Fetch(w[0] + distance + b * kBytes + line * 64);
      }
    } else {
      for (int64_t at = 0; at < Format::kCodeBytes; at += 64) Fetch(w[m] + distance + b * Format::kCodeBytes + at);
    }
  }
  static void Fetch(const std::byte* line) { _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T1); }
  template <int M>
  static constexpr bool kIsFetchedInOrder = M == 8 && Format::kCodeBytes == kQuantizedBlock;

  template <int M, int N, bool kFetch>
  static void Tile(float* out, const std::byte* const* w, const std::byte* x, int64_t k) {
    const std::byte* scales[M];
    const ActivationBlock* x_blocks[N];
    const float* x_scales[N];
    for (int m = 0; m < M; ++m) scales[m] = w[m] + NumBlocks(k) * Format::kCodeBytes;
    const int64_t distance = FetchDistance<M>(k);
    if constexpr (kFetch) FetchScales<M>(scales, distance, k);
    for (int n = 0; n < N; ++n) {
      x_blocks[n] = BlocksOf(x + n * PackedRowBytes(k));
      x_scales[n] = ScalesOf(x + n * PackedRowBytes(k), k);
    }
    __m512 sums[M][N];
    for (int m = 0; m < M; ++m) {
      for (int n = 0; n < N; ++n) sums[m][n] = _mm512_setzero_ps();
    }
    const int64_t num_blocks = NumBlocks(k);
    for (int64_t b = 0; b < num_blocks; ++b) {
      alignas(16) float products[M * N];
      Format::template MultiplyScales<M, N>(scales, b, x_scales, products);
      for (int m = 0; m < M; ++m) {
        if constexpr (kFetch) FetchPart<M>(w, m, b, distance);
        const typename Format::Weights weights = Format::Load(w[m] + b * Format::kCodeBytes, scales[m], b);
        for (int n = 0; n < N; ++n) {
          sums[m][n] = Format::MultiplyAdd(sums[m][n], weights, x_blocks[n][b], products[n * M + m]);
        }
      }
    }
    for (int n = 0; n < N; ++n) {
      for (int m = 0; m < M; m += 4) {
        _mm_storeu_ps(out + n * kPanelRows + m, SumLanes(sums[m][n], sums[m + 1][n], sums[m + 2][n], sums[m + 3][n]));
      }
    }
  }
};

}  // namespace

int64_t PackedRowBytesQuantizedAvx512(int64_t k) { return PackedRowBytes(k); }

void PackQ8Avx512(std::byte* packed, int64_t k, int64_t first_row, int64_t num_rows, int64_t first_column,
                  int64_t num_columns, const float* const* rows) {
  Pack<Q8>(packed, k, first_row, num_rows, first_column, num_columns, rows);
}

void PackQ4Avx512(std::byte* packed, int64_t k, int64_t first_row, int64_t num_rows, int64_t first_column,
                  int64_t num_columns, const float* const* rows) {
  Pack<Q4>(packed, k, first_row, num_rows, first_column, num_columns, rows);
}

void DotsQ8Avx512(float* out, const std::byte* weight, int64_t num_weight_rows, const std::byte* packed,
                  int64_t first_row, int64_t num_rows, int64_t k) {
  Dots<QuantizedKernel<Q8>>(out, weight, num_weight_rows, packed, first_row, num_rows, k);
}

void DotsQ4Avx512(float* out, const std::byte* weight, int64_t num_weight_rows, const std::byte* packed,
                  int64_t first_row, int64_t num_rows, int64_t k) {
  Dots<QuantizedKernel<Q4>>(out, weight, num_weight_rows, packed, first_row, num_rows, k);
}

}  // namespace cadre
