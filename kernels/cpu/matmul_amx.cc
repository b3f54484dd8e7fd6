// Products with bfloat16 weights on the tile registers of AMX.
//
// The instructions are written as assembly with all their operands: gcc 12 declares only the first 8 bytes of the
// configuration as read by _tile_loadconfig, drops the stores to the rest, and the next tile load dies.
#include "kernels/cpu/amx_dots.h"
#include "kernels/cpu/amx_tile_config.h"
#include "kernels/cpu/cpu_kernels.h"

namespace cadre {
namespace {

struct AmxTiles {
  static void Configure() {
    static constexpr AmxTileConfig kConfig;
    __asm__ volatile("ldtilecfg %0" : : "m"(kConfig));
  }
  // Leaves the registers in their initial state, which context switches need not save.
  static void Release() { __asm__ volatile("tilerelease"); }

  template <int kTile>
  static void Zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  template <int kTile>
  static void Load(const void* from, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void Store(void* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
  }
  // sums[m][n] += sum over p of a[m][2p] b[p][2n] + a[m][2p + 1] b[p][2n + 1]
  template <int kSums, int kA, int kB>
  static void DotProduct() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
  }
};

}  // namespace

// Constant, so that nothing of this file runs before the machine is asked what it can.
constinit const MatmulKernels kAmxBf16Matmul = {AmxPackedRowBytes, AmxPack, AmxDots<AmxTiles>};

}  // namespace cadre
