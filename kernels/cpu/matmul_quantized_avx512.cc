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
#include "kernels/quantized.h"

namespace cadre {
namespace {

static_assert(kQuantizedColumns == kQuantizedBlock);
// Activation rows of the largest tile.
constexpr int64_t kTileRows = 4;
static_assert(kChunkRows % kTileRows == 0);

// Activations: 128 codes, and where the sums of the block begin.
struct alignas(64) ActivationBlock {
  int8_t codes[kQuantizedBlock];
  int32_t starts[2][16];  // [0] of all 128 inputs for kQ8; of either half for kQ4
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

// -zero times the sums of four neighbors.
__m512i Start(const int8_t* codes, int zero) {
  const __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), _mm512_load_si512(codes));
  return _mm512_mullo_epi32(sums, _mm512_set1_epi32(-zero));
}

// `count` <= 128 activations; zeros behind them. An infinity or a NaN makes the scale one, and thus every sum.
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
    _mm_store_si128(reinterpret_cast<__m128i*>(codes) + i, _mm512_cvtsepi32_epi8(rounded));
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
      *scale++ = PackCodes(rows[r] + c, left < kQuantizedBlock ? left : kQuantizedBlock, block->codes);
      Format::SetStarts(block);
    }
  }
}

struct Q8 {
  static constexpr int64_t kCodeBytes = kQuantizedBlock;  // of a block
  static constexpr int64_t kScaleBytes = 4;
  static_assert(kCodeBytes + kScaleBytes == kQ8BlockBytes);

  struct Weights {
    __m512i low, high;
  };

  static void SetStarts(ActivationBlock* block) {
    const __m512i low = Start(block->codes, kQ8Zero);
    _mm512_store_si512(block->starts[0], _mm512_add_epi32(low, Start(block->codes + 64, kQ8Zero)));
  }
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
    __m512i dot = _mm512_load_si512(x.starts[0]);
    dot = _mm512_dpbusd_epi32(dot, w.low, _mm512_load_si512(x.codes));
    dot = _mm512_dpbusd_epi32(dot, w.high, _mm512_load_si512(x.codes + 64));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(scale), sum);
  }
};

struct Q4 {
  static constexpr int64_t kCodeBytes = kQuantizedBlock / 2;
  static constexpr int64_t kScaleBytes = 8;
  static_assert(kCodeBytes + kScaleBytes == kQ4BlockBytes);

  struct Weights {
    __m512i low, high;
    __m512 low_scales, high_scales;  // of two groups each, 8 lanes of a group
  };

  static void SetStarts(ActivationBlock* block) {
    _mm512_store_si512(block->starts[0], Start(block->codes, kQ4Zero));
    _mm512_store_si512(block->starts[1], Start(block->codes + 64, kQ4Zero));
  }
  template <int M, int N>
  static void MultiplyScales(const std::byte* const* /*scales*/, int64_t index, const float* const* x_scales,
                             float* out) {
    for (int n = 0; n < N; ++n) {
      for (int m = 0; m < M; ++m) out[n * M + m] = x_scales[n][index];
    }
  }
  // Eight lanes of bfloat16 number `group` of four, as float32, and eight of the next.
  static __m512 Spread(__m512i four, int group) {
    const int first = 0x00008080 | (2 * group) << 16 | (2 * group + 1) << 24;
    const int second = first + 0x02020000;
    const __m512i places = _mm512_setr_epi32(first, first, first, first, first, first, first, first, second, second,
                                             second, second, second, second, second, second);
    return _mm512_castsi512_ps(_mm512_shuffle_epi8(four, places));
  }
  static Weights Load(const std::byte* codes, const std::byte* scales, int64_t index) {
    const __m512i both = _mm512_loadu_si512(codes);
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i four = _mm512_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + 8 * index)));
    return {_mm512_and_si512(both, mask), _mm512_and_si512(_mm512_srli_epi16(both, 4), mask), Spread(four, 0),
            Spread(four, 2)};
  }
  static __m512 MultiplyAdd(__m512 sum, const Weights& w, const ActivationBlock& x, float scale) {
    const __m512i low = _mm512_dpbusd_epi32(_mm512_load_si512(x.starts[0]), w.low, _mm512_load_si512(x.codes));
    const __m512i high = _mm512_dpbusd_epi32(_mm512_load_si512(x.starts[1]), w.high, _mm512_load_si512(x.codes + 64));
    const __m512 block =
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(low), w.low_scales, _mm512_mul_ps(_mm512_cvtepi32_ps(high), w.high_scales));
    return _mm512_fmadd_ps(block, _mm512_set1_ps(scale), sum);
  }
};

// RowBytes, which is not for this file: a copy of it that is compiled for AVX-512 could be linked into other files.
template <typename Format>
int64_t WeightRowBytes(int64_t k) {
  return NumBlocks(k) * (Format::kCodeBytes + Format::kScaleBytes);
}

// out[n * kPanelRows + m] = dot(x row n, w[m]) for M weight rows and N activation rows. kFetch asks for the next M rows
// of the panel as well.
template <typename Format, int M, int N, bool kFetch>
void Tile(float* out, const std::byte* const* w, const std::byte* x, int64_t k) {
  const int64_t next_rows = M * WeightRowBytes<Format>(k);
  const std::byte* scales[M];
  const ActivationBlock* x_blocks[N];
  const float* x_scales[N];
  for (int m = 0; m < M; ++m) scales[m] = w[m] + NumBlocks(k) * Format::kCodeBytes;
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
      const std::byte* const codes = w[m] + b * Format::kCodeBytes;
      if constexpr (kFetch) {
        for (int64_t line = 0; line < Format::kCodeBytes; line += 64) {
          _mm_prefetch(reinterpret_cast<const char*>(codes + next_rows + line), _MM_HINT_T1);
        }
      }
      const typename Format::Weights weights = Format::Load(codes, scales[m], b);
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

// All weight rows against N activation rows. Few activation rows leave registers for eight streams of weights. Rows
// often end before the hardware follows them: weights that are not in the cache yet (`kCold`) are fetched ahead.
template <typename Format, int N, bool kCold>
void TileColumn(float* out, const std::byte* weight, int64_t num_weight_rows, const std::byte* x, int64_t k) {
  constexpr int kStreams = N <= 2 ? 8 : 4;
  static_assert(kPanelRows % kStreams == 0);
  const int64_t row_bytes = WeightRowBytes<Format>(k);
  for (int64_t first = 0; first < num_weight_rows; first += kStreams) {
    const std::byte* w[kStreams];
    for (int m = 0; m < kStreams; ++m) {
      // Rows after the last are computed as copies of it, into columns of `out` that nobody reads.
      w[m] = weight + (first + m < num_weight_rows ? first + m : num_weight_rows - 1) * row_bytes;
    }
    Tile<Format, kStreams, N, kCold>(out + first, w, x, k);
  }
}

// TileColumn for 1 to kTileRows activation rows.
template <typename Format, bool kCold>
constexpr decltype(&TileColumn<Format, 1, kCold>) kTileColumns[kTileRows] = {
    TileColumn<Format, 1, kCold>, TileColumn<Format, 2, kCold>, TileColumn<Format, 3, kCold>,
    TileColumn<Format, 4, kCold>};

template <typename Format>
void Dots(float* out, const std::byte* weight, int64_t num_weight_rows, const std::byte* packed, int64_t first_row,
          int64_t num_rows, int64_t k) {
  const int64_t row_bytes = PackedRowBytes(k);
  const std::byte* const x = packed + first_row * row_bytes;
  for (int64_t r = 0; r < num_rows; r += kTileRows) {
    const int64_t tile_rows = num_rows - r < kTileRows ? num_rows - r : kTileRows;
    const auto& columns = first_row + r == 0 ? kTileColumns<Format, true> : kTileColumns<Format, false>;
    columns[tile_rows - 1](out + r * kPanelRows, weight, num_weight_rows, x + r * row_bytes, k);
  }
}

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
  Dots<Q8>(out, weight, num_weight_rows, packed, first_row, num_rows, k);
}

void DotsQ4Avx512(float* out, const std::byte* weight, int64_t num_weight_rows, const std::byte* packed,
                  int64_t first_row, int64_t num_rows, int64_t k) {
  Dots<Q4>(out, weight, num_weight_rows, packed, first_row, num_rows, k);
}

}  // namespace cadre
