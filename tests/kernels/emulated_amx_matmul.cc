// The tile instructions as the Intel SDM describes them. Compiled for AVX-512, because amx_dots.h is; nothing here but
// the tiles themselves is emulated.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/check.h"
#include "kernels/cpu/amx_dots.h"
#include "kernels/cpu/amx_tile_config.h"
#include "tests/kernels/emulated_amx.h"

namespace cadre {
namespace {

constexpr int kNumTiles = 8;

struct TileRegisters {
  bool is_configured = false;
  AmxTileConfig config;
  uint8_t bytes[kNumTiles][16][64];
};
thread_local TileRegisters registers;

// Denormals count as zero, before and after.
float Flush(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

float Bf16At(int tile, int64_t row, int64_t index) {
  uint16_t half = 0;
  std::memcpy(&half, &registers.bytes[tile][row][index * 2], sizeof(half));
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float x = 0.0f;
  std::memcpy(&x, &bits, sizeof(x));
  return Flush(x);
}

struct EmulatedTiles {
  static void Configure() {
    registers.is_configured = true;
    registers.config = AmxTileConfig();
    std::memset(registers.bytes, 0, sizeof(registers.bytes));
  }
  static void Release() { registers.is_configured = false; }

  template <int kTile>
  static void Zero() {
    CADRE_CHECK(registers.is_configured);
    std::memset(registers.bytes[kTile], 0, sizeof(registers.bytes[kTile]));
  }
  template <int kTile>
  static void Load(const void* from, int64_t stride) {
    CADRE_CHECK(registers.is_configured);
    for (int64_t row = 0; row < registers.config.rows[kTile]; ++row) {
      std::memcpy(registers.bytes[kTile][row], static_cast<const std::byte*>(from) + row * stride,
                  registers.config.row_bytes[kTile]);
    }
  }
  template <int kTile>
  static void Store(void* to, int64_t stride) {
    CADRE_CHECK(registers.is_configured);
    for (int64_t row = 0; row < registers.config.rows[kTile]; ++row) {
      std::memcpy(static_cast<std::byte*>(to) + row * stride, registers.bytes[kTile][row],
                  registers.config.row_bytes[kTile]);
    }
  }
  // TDPBF16PS: the sums of even and of odd products are kept apart, added, and then added to the old value; fused
  // multiply-adds, rounding to nearest, denormals flushed.
  template <int kSums, int kA, int kB>
  static void DotProduct() {
    CADRE_CHECK(registers.is_configured);
    for (int64_t m = 0; m < 16; ++m) {
      for (int64_t n = 0; n < 16; ++n) {
        float even = 0.0f;
        float odd = 0.0f;
        for (int64_t p = 0; p < 16; ++p) {
          even = Flush(std::fma(Bf16At(kA, m, 2 * p), Bf16At(kB, p, 2 * n), even));
          odd = Flush(std::fma(Bf16At(kA, m, 2 * p + 1), Bf16At(kB, p, 2 * n + 1), odd));
        }
        float old = 0.0f;
        std::memcpy(&old, &registers.bytes[kSums][m][n * 4], sizeof(old));
        const float sum = Flush(Flush(old) + Flush(even + odd));
        std::memcpy(&registers.bytes[kSums][m][n * 4], &sum, sizeof(sum));
      }
    }
  }
};

}  // namespace

const MatmulKernels& EmulatedAmxMatmul() {
  static constexpr MatmulKernels kMatmul = {AmxPackedRowBytes, AmxPack, AmxDots<EmulatedTiles>};
  return kMatmul;
}

}  // namespace cadre
