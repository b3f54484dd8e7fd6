#include "engine/model/kv_cache.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "engine/base/status_macros.h"
#include "engine/model/byte_count.h"

namespace cadre {

int64_t KvCacheShape::BytesPerBlock() const {
  int64_t bytes = SaturatingMultiply(2 * num_layers, static_cast<int64_t>(DTypeBytes(dtype)));
  bytes = SaturatingMultiply(bytes, num_kv_heads);
  bytes = SaturatingMultiply(bytes, block_size);
  return SaturatingMultiply(bytes, head_dim);
}

KvCacheShape MakeKvCacheShape(const ModelConfig& config, int64_t num_blocks, int64_t block_size, DType dtype) {
  return {.num_layers = config.num_layers,
          .num_blocks = num_blocks,
          .num_kv_heads = config.num_kv_heads,
          .block_size = block_size,
          .head_dim = config.head_dim,
          .dtype = dtype};
}

absl::StatusOr<KvCache> KvCache::Create(const KvCacheShape& shape, Device& device) {
  const int64_t bytes = SaturatingMultiply(shape.num_blocks, shape.BytesPerBlock());
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer buffer, device.Allocate(static_cast<size_t>(bytes)));
  return KvCache(shape, std::move(buffer));
}

absl::StatusOr<KvCache> KvCache::CreateReserved(const KvCacheShape& shape, int64_t num_present, Device& device) {
  const int64_t block_bytes = shape.BytesPerBlock();
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer buffer,
                         device.Reserve(static_cast<size_t>(SaturatingMultiply(shape.num_blocks, block_bytes)),
                                        static_cast<size_t>(SaturatingMultiply(num_present, block_bytes))));
  KvCache cache(shape, std::move(buffer));
  CADRE_RETURN_IF_ERROR(cache.Commit(0, num_present, device));
  return cache;
}

void KvCache::ReleaseFrom(int64_t first, Device& device) {
  for (int64_t plane = 0; plane < 2 * shape_.num_layers; ++plane) {
    device.ReleasePages(Part(plane, first, shape_.num_blocks - first));
  }
}

absl::Status KvCache::Commit(int64_t first, int64_t end, Device& device) {
  for (int64_t plane = 0; plane < 2 * shape_.num_layers; ++plane) {
    CADRE_RETURN_IF_ERROR(device.CommitPages(Part(plane, first, end - first)));
  }
  return absl::OkStatus();
}

void KvCache::Scrub(std::span<const int32_t> blocks, Device& device) {
  zeros_.resize(Part(/*plane=*/0, /*first=*/0, /*count=*/1).size_bytes());
  for (int64_t plane = 0; plane < 2 * shape_.num_layers; ++plane) {
    for (int32_t block : blocks) device.CopyToDevice(Part(plane, block, /*count=*/1), zeros_.data());
  }
}

void KvCache::ReleasePages(std::span<const int32_t> blocks, Device& device) {
  std::vector<int32_t> sorted(blocks.begin(), blocks.end());
  std::ranges::sort(sorted);
  for (size_t begin = 0; begin < sorted.size();) {
    size_t end = begin + 1;
    while (end < sorted.size() && sorted[end] == sorted[end - 1] + 1) ++end;
    for (int64_t plane = 0; plane < 2 * shape_.num_layers; ++plane) {
      device.ReleasePages(Part(plane, sorted[begin], static_cast<int64_t>(end - begin)));
    }
    begin = end;
  }
}

View KvCache::Part(int64_t plane, int64_t first, int64_t count) const {
  const Shape shape = {count, shape_.num_kv_heads, shape_.block_size, shape_.head_dim};
  const size_t block_bytes = static_cast<size_t>(shape_.BytesPerBlock() / (2 * shape_.num_layers));
  const size_t offset = static_cast<size_t>(plane * shape_.num_blocks + first) * block_bytes;
  return buffer_.view(shape_.dtype, shape, offset);
}

View KvCache::Plane(int64_t index) const { return Part(index, /*first=*/0, shape_.num_blocks); }

}  // namespace cadre
