// Products with bfloat16 weights on tile registers (AMX), over a policy `Tiles` that holds the few tile instructions:
// the real ones in matmul_amx.cc, and in tests an emulation of the same semantics, so that everything here is tested on
// machines without AMX as well. Like avx512_math.h only for files compiled for AVX-512.
//
// Weights stand on the M side: 16 weight rows x 32 inputs are a tile as they lie in memory. Activations are packed as
// the other operand, 32 inputs x 16 rows with neighboring inputs in pairs. A tile of sums is 16 weight rows x 16
// activation rows; two by two of them share the loads. One path serves every number of rows: a tile padded with empty
// rows costs nothing while memory is the limit, and sums of one activation row never meet those of another.
#ifndef CADRE_KERNELS_CPU_AMX_DOTS_H_
#define CADRE_KERNELS_CPU_AMX_DOTS_H_

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/avx512_math.h"
#include "kernels/cpu/cpu_kernels.h"

namespace cadre {
namespace {  // NOLINT(google-build-namespaces)

constexpr int64_t kTileRows = 16;                          // rows of every tile, and columns of 4 bytes
constexpr int64_t kTileDepth = 32;                         // inputs of one step
constexpr int64_t kTileElements = kTileRows * kTileDepth;  // bfloat16 of a tile
constexpr int64_t kTileStride = 64;                        // bytes between the rows of a packed tile
static_assert(kPackRows == kTileRows && kPanelRows == 2 * kTileRows && kPanelRows % kTileDepth == 0);

inline int64_t AmxPackedRowBytes(int64_t k) { return RoundUp(k, kTileDepth) * 2; }

// Tile s of a block of 16 rows holds inputs [32 s, 32 s + 32): pair p of row r is its 32-bit word 16 p + r.
inline void AmxPack(std::byte* packed, int64_t k, int64_t first_row, int64_t num_rows, int64_t first_column,
                    int64_t num_columns, const float* const* rows) {
  const int64_t row_bytes = AmxPackedRowBytes(k);
  for (int64_t block = 0; block < num_rows; block += kTileRows) {
    std::byte* to = packed + (first_row + block) * row_bytes + first_column / kTileDepth * kTileElements * 2;
    for (int64_t c = 0; c < num_columns; c += kTileDepth, to += kTileElements * 2) {
      const __mmask16 low_lanes = FirstLanes16(num_columns - c);
      const __mmask16 high_lanes = num_columns - c > 16 ? FirstLanes16(num_columns - c - 16) : __mmask16{0};
      __m512 words[kTileRows];
      for (int64_t r = 0; r < kTileRows; ++r) {
        words[r] = _mm512_setzero_ps();
        if (block + r >= num_rows) continue;
        const float* const from = rows[block + r] + c;
        words[r] = (__m512)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high_lanes, from + 16),
                                               _mm512_maskz_loadu_ps(low_lanes, from));
      }
      Transpose(words);
      for (int64_t p = 0; p < kTileRows; ++p) _mm512_store_ps(reinterpret_cast<float*>(to) + p * kTileRows, words[p]);
    }
  }
}

// Sixteen weight rows, step by step. Where rows or inputs end inside a tile it is completed with zeros in a buffer.
class WeightTiles {
 public:
  WeightTiles(const uint16_t* weight, int64_t num_rows, int64_t k) : weight_(weight), num_rows_(num_rows), k_(k) {}

  // Asks for the inputs from i + kFetchAhead on: 32 rows at once are more streams than the hardware follows by itself.
  void Fetch(int64_t i) const {
    constexpr int64_t kFetchAhead = 16 * kTileDepth;  // 1 KiB
    for (int64_t r = 0; r < kTileRows && r < num_rows_; ++r) {
      _mm_prefetch(reinterpret_cast<const char*>(weight_ + r * k_ + i + kFetchAhead), _MM_HINT_T1);
    }
  }

  // The tile of inputs [i, i + 32), and the bytes between its rows.
  const void* At(int64_t i, int64_t* stride) {
    if (num_rows_ >= kTileRows && k_ - i >= kTileDepth) {
      *stride = k_ * 2;
      return weight_ + i;
    }
    for (int64_t r = 0; r < kTileRows; ++r) {
      const __mmask32 lanes = r < num_rows_ ? FirstLanes32(k_ - i) : __mmask32{0};
      _mm512_store_si512(buffer_ + r * kTileDepth, _mm512_maskz_loadu_epi16(lanes, weight_ + r * k_ + i));
    }
    *stride = kTileStride;
    return buffer_;
  }

 private:
  const uint16_t* weight_;
  int64_t num_rows_;
  int64_t k_;
  alignas(64) uint16_t buffer_[kTileElements];
};

// Stores tile register kTile of sums [16 weight rows, 16 activation rows], transposed, into `out`.
template <typename Tiles, int kTile>
void StoreSums(float* out, int64_t num_rows) {
  alignas(64) float sums[kTileRows * kTileRows];
  Tiles::template Store<kTile>(sums, kTileStride);
  __m512 columns[kTileRows];
  for (int64_t m = 0; m < kTileRows; ++m) columns[m] = _mm512_load_ps(sums + m * kTileRows);
  Transpose(columns);
  for (int64_t r = 0; r < kTileRows && r < num_rows; ++r) _mm512_storeu_ps(out + r * kPanelRows, columns[r]);
}

// Up to 32 weight rows against up to 32 activation rows: registers 0-3 are sums, 4-5 weights, 6-7 activations.
// `is_cold`: the weights have not been read yet.
template <typename Tiles, bool kTwoWeights, bool kTwoBlocks>
void TileSquare(float* out, const uint16_t* weight, int64_t num_weight_rows, const std::byte* packed, int64_t num_rows,
                int64_t k, bool is_cold) {
  WeightTiles first(weight, num_weight_rows, k);
  WeightTiles second(weight + (kTwoWeights ? kTileRows * k : 0), num_weight_rows - kTileRows, k);
  const int64_t block_bytes = kTileRows * AmxPackedRowBytes(k);
  Tiles::template Zero<0>();
  if constexpr (kTwoBlocks) Tiles::template Zero<1>();
  if constexpr (kTwoWeights) Tiles::template Zero<2>();
  if constexpr (kTwoWeights && kTwoBlocks) Tiles::template Zero<3>();
  for (int64_t i = 0; i < k; i += kTileDepth, packed += kTileElements * 2) {
    if (is_cold) {
      first.Fetch(i);
      if constexpr (kTwoWeights) second.Fetch(i);
    }
    int64_t stride = 0;
    const void* const first_tile = first.At(i, &stride);
    Tiles::template Load<4>(first_tile, stride);
    Tiles::template Load<6>(packed, kTileStride);
    Tiles::template DotProduct<0, 4, 6>();
    if constexpr (kTwoBlocks) {
      Tiles::template Load<7>(packed + block_bytes, kTileStride);
      Tiles::template DotProduct<1, 4, 7>();
    }
    if constexpr (kTwoWeights) {
      const void* const second_tile = second.At(i, &stride);
      Tiles::template Load<5>(second_tile, stride);
      Tiles::template DotProduct<2, 5, 6>();
      if constexpr (kTwoBlocks) Tiles::template DotProduct<3, 5, 7>();
    }
  }
  StoreSums<Tiles, 0>(out, num_rows);
  if constexpr (kTwoBlocks) StoreSums<Tiles, 1>(out + kTileRows * kPanelRows, num_rows - kTileRows);
  if constexpr (kTwoWeights) StoreSums<Tiles, 2>(out + kTileRows, num_rows);
  if constexpr (kTwoWeights && kTwoBlocks) {
    StoreSums<Tiles, 3>(out + kTileRows * kPanelRows + kTileRows, num_rows - kTileRows);
  }
}

template <typename Tiles>
void AmxDots(float* out, const std::byte* weight, int64_t num_weight_rows, const std::byte* packed, int64_t first_row,
             int64_t num_rows, int64_t k) {
  constexpr decltype(&TileSquare<Tiles, false, false>) kSquares[2][2] = {
      {TileSquare<Tiles, false, false>, TileSquare<Tiles, false, true>},
      {TileSquare<Tiles, true, false>, TileSquare<Tiles, true, true>}};
  const auto* const w = reinterpret_cast<const uint16_t*>(weight);
  const int64_t row_bytes = AmxPackedRowBytes(k);
  Tiles::Configure();
  for (int64_t r = 0; r < num_rows; r += 2 * kTileRows) {
    const bool two_weights = num_weight_rows > kTileRows;
    const bool two_blocks = num_rows - r > kTileRows;
    kSquares[two_weights][two_blocks](out + r * kPanelRows, w, num_weight_rows, packed + (first_row + r) * row_bytes,
                                      num_rows - r, k, first_row + r == 0);
  }
  Tiles::Release();
}

}  // namespace
}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_AMX_DOTS_H_
