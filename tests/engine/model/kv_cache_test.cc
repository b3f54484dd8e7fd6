// Clearing blocks clears those, in every layer, and no other byte.
#include "engine/model/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/cpu/cpu_device.h"

namespace cadre {
namespace {

TEST(KvCacheTest, ScrubbingClearsWholeBlocksAndNothingElse) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    auto device = CreateCpuDevice({.num_threads = 1});
    ASSERT_TRUE(device.ok()) << device.status();
    const KvCacheShape shape{
        .num_layers = 3, .num_blocks = 5, .num_kv_heads = 2, .block_size = 4, .head_dim = 10, .dtype = dtype};
    auto cache = KvCache::Create(shape, **device);
    ASSERT_TRUE(cache.ok()) << cache.status();
    const size_t block_bytes =
        static_cast<size_t>(shape.num_kv_heads * shape.block_size * shape.head_dim) * DTypeBytes(dtype);
    const size_t plane_bytes = block_bytes * static_cast<size_t>(shape.num_blocks);
    const std::vector<std::byte> nan_bits(plane_bytes, std::byte{0xFF});
    for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
      (*device)->CopyToDevice(cache->keys(layer), nan_bits.data());
      (*device)->CopyToDevice(cache->values(layer), nan_bits.data());
    }
    cache->Scrub(std::vector<int32_t>{4, 1}, **device);
    ASSERT_TRUE((*device)->Synchronize().ok());
    for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
      for (const View plane : {cache->keys(layer), cache->values(layer)}) {
        std::vector<std::byte> bytes(plane_bytes);
        (*device)->CopyToHost(bytes.data(), plane);
        for (size_t i = 0; i < plane_bytes; ++i) {
          const size_t block = i / block_bytes;
          const std::byte expected = block == 1 || block == 4 ? std::byte{0} : std::byte{0xFF};
          ASSERT_EQ(bytes[i], expected) << "layer " << layer << ", block " << block;
        }
      }
    }
  }
}

}  // namespace
}  // namespace cadre
