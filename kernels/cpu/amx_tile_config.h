// The configuration of tile registers (LDTILECFG, Intel SDM): eight tiles of 16 rows x 64 bytes.
#ifndef CADRE_KERNELS_CPU_AMX_TILE_CONFIG_H_
#define CADRE_KERNELS_CPU_AMX_TILE_CONFIG_H_

#include <cstdint>

namespace cadre {

struct alignas(64) AmxTileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(AmxTileConfig) == 64);

}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_AMX_TILE_CONFIG_H_
