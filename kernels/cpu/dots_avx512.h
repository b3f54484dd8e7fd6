// How AVX-512 kernels go over a panel of weight rows, whatever the weights are. Only for *_avx512.cc, see
// avx512_math.h.
#ifndef CADRE_KERNELS_CPU_DOTS_AVX512_H_
#define CADRE_KERNELS_CPU_DOTS_AVX512_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/cpu/cpu_kernels.h"

namespace cadre {
namespace {  // NOLINT(google-build-namespaces)

// What a `Kernel` has:
//
//   kTileRows          activation rows of the largest tile; kChunkRows is a multiple
//   kManyStreamRows    tiles of up to so many leave registers for eight streams of weights, others take four
//   WeightRowBytes(k)  of a row of k inputs, and PackedRowBytes(k) of an activation row
//   Tile<M, N, kFetch>(out, w, x, k)
//     out[n * kPanelRows + m] = dot(activation row n of x, weight row w[m]) for m < M, n < N. With kFetch it asks for
//     the M rows behind each of the weight rows as well.

// All weight rows against N activation rows. Rows often end before the hardware follows them: weights that are not in
// the cache yet (`kCold`) are fetched ahead, those of the panel that follows in memory too.
template <typename Kernel, int N, bool kCold>
void TileColumn(float* out, const std::byte* weight, int64_t num_weight_rows, const std::byte* x, int64_t k) {
  constexpr int kStreams = N <= Kernel::kManyStreamRows ? 8 : 4;
  static_assert(kPanelRows % kStreams == 0);
  const int64_t row_bytes = Kernel::WeightRowBytes(k);
  for (int64_t first = 0; first < num_weight_rows; first += kStreams) {
    const std::byte* w[kStreams];
    for (int m = 0; m < kStreams; ++m) {
      // Rows after the last are computed as copies of it, into columns of `out` that nobody reads.
      w[m] = weight + (first + m < num_weight_rows ? first + m : num_weight_rows - 1) * row_bytes;
    }
    Kernel::template Tile<kStreams, N, kCold>(out + first, w, x, k);
  }
}

template <typename Kernel, bool kCold, int... kRowsLessOne>
void RunColumn(std::integer_sequence<int, kRowsLessOne...> /*rows*/, int64_t num_rows, float* out,
               const std::byte* weight, int64_t num_weight_rows, const std::byte* x, int64_t k) {
  constexpr decltype(&TileColumn<Kernel, 1, kCold>) kColumns[] = {TileColumn<Kernel, kRowsLessOne + 1, kCold>...};
  kColumns[num_rows - 1](out, weight, num_weight_rows, x, k);
}

// MatmulKernels::dots.
template <typename Kernel>
void Dots(float* out, const std::byte* weight, int64_t num_weight_rows, const std::byte* packed, int64_t first_row,
          int64_t num_rows, int64_t k) {
  static_assert(kChunkRows % Kernel::kTileRows == 0);
  constexpr std::make_integer_sequence<int, Kernel::kTileRows> kRows;
  const int64_t row_bytes = Kernel::PackedRowBytes(k);
  const std::byte* const x = packed + first_row * row_bytes;
  for (int64_t r = 0; r < num_rows; r += Kernel::kTileRows) {
    const int64_t tile_rows = num_rows - r < Kernel::kTileRows ? num_rows - r : Kernel::kTileRows;
    float* const to = out + r * kPanelRows;
    if (first_row + r == 0) {
      RunColumn<Kernel, true>(kRows, tile_rows, to, weight, num_weight_rows, x, k);
    } else {
      RunColumn<Kernel, false>(kRows, tile_rows, to, weight, num_weight_rows, x + r * row_bytes, k);
    }
  }
}

}  // namespace
}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_DOTS_AVX512_H_
