// What the host has to know of tiles.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mma_tile.cuh"

namespace cadre::cuda {

bool HasRoomForStages(int num_stages) {
  int device = 0;
  int shared_bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess) {
    return false;
  }
  return static_cast<size_t>(shared_bytes) >= TileSharedBytes(num_stages);
}

}  // namespace cadre::cuda
