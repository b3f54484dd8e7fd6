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

// A page is 4 KiB and a block here 1 KiB: only neighbors fill whole pages.
TEST(KvCacheTest, ReleasingPagesTakesNothingFromOtherBlocks) {
  auto device = CreateCpuDevice({.num_threads = 1});
  ASSERT_TRUE(device.ok()) << device.status();
  const KvCacheShape shape{
      .num_layers = 2, .num_blocks = 24, .num_kv_heads = 1, .block_size = 8, .head_dim = 32, .dtype = DType::kF32};
  constexpr size_t kBlockBytes = 1024;
  auto cache = KvCache::Create(shape, **device);
  ASSERT_TRUE(cache.ok()) << cache.status();
  const std::vector<std::byte> ones(kBlockBytes * 24, std::byte{0xFF});
  std::vector<int32_t> released = {23, 2};
  for (int32_t block = 18; block > 4; --block) released.push_back(block);
  for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
    (*device)->CopyToDevice(cache->keys(layer), ones.data());
    (*device)->CopyToDevice(cache->values(layer), ones.data());
  }
  cache->ReleasePages(released, **device);
  for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
    for (const View plane : {cache->keys(layer), cache->values(layer)}) {
      std::vector<std::byte> bytes(ones.size());
      (*device)->CopyToHost(bytes.data(), plane);
      size_t num_zeros = 0;
      for (size_t i = 0; i < bytes.size(); ++i) {
        const auto block = static_cast<int32_t>(i / kBlockBytes);
        if (std::ranges::find(released, block) == released.end()) {
          ASSERT_EQ(bytes[i], std::byte{0xFF}) << "block " << block;
        }
        num_zeros += bytes[i] == std::byte{0};
      }
      EXPECT_GE(num_zeros, 2 * 4096u) << "14 neighbors hold at least two whole pages";
    }
  }
}

}  // namespace
}  // namespace cadre
