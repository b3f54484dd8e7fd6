#include "engine/model/kv_cache.h"

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

void KvCache::Scrub(std::span<const int32_t> blocks, Device& device) {
  const Shape block_shape = {shape_.num_kv_heads, shape_.block_size, shape_.head_dim};
  const size_t block_bytes = static_cast<size_t>(block_shape.num_elements()) * DTypeBytes(shape_.dtype);
  const size_t plane_bytes = static_cast<size_t>(shape_.num_blocks) * block_bytes;
  zeros_.resize(block_bytes);
  for (int64_t plane = 0; plane < 2 * shape_.num_layers; ++plane) {
    for (int32_t block : blocks) {
      const size_t offset = static_cast<size_t>(plane) * plane_bytes + static_cast<size_t>(block) * block_bytes;
      device.CopyToDevice(buffer_.view(shape_.dtype, block_shape, offset), zeros_.data());
    }
  }
}

View KvCache::Plane(int64_t index) const {
  const Shape plane = {shape_.num_blocks, shape_.num_kv_heads, shape_.block_size, shape_.head_dim};
  const size_t plane_bytes = static_cast<size_t>(plane.num_elements()) * DTypeBytes(shape_.dtype);
  return buffer_.view(shape_.dtype, plane, static_cast<size_t>(index) * plane_bytes);
}

}  // namespace cadre
