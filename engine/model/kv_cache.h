// Keys and values of every layer, in blocks that the scheduler hands to sequences.
#ifndef CADRE_ENGINE_MODEL_KV_CACHE_H_
#define CADRE_ENGINE_MODEL_KV_CACHE_H_

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "kernels/device.h"
#include "kernels/view.h"

namespace cadre {

struct KvCacheShape {
  int64_t num_layers = 0;
  int64_t num_blocks = 0;
  int64_t num_kv_heads = 0;  // G
  int64_t block_size = 0;    // B, tokens
  int64_t head_dim = 0;      // d
  DType dtype = DType::kBF16;

  // One block of every layer, keys and values: what one more block costs. Saturates.
  int64_t BytesPerBlock() const;
};

KvCacheShape MakeKvCacheShape(const ModelConfig& config, int64_t num_blocks, int64_t block_size, DType dtype);

// A block keeps its old contents when it changes hands: a reader never looks past the positions that its own sequence
// has written, so stale values (even NaN) are never seen. What a failed request wrote is cleared all the same.
class KvCache {
 public:
  static absl::StatusOr<KvCache> Create(const KvCacheShape& shape, Device& device);
  // Of shape.num_blocks, the first `num_present` have memory behind them. REQUIRES: at most all.
  static absl::StatusOr<KvCache> CreateReserved(const KvCacheShape& shape, int64_t num_present, Device& device);

  const KvCacheShape& shape() const { return shape_; }
  View keys(int64_t layer) const { return Plane(2 * layer); }        // [num_blocks, G, B, d]
  View values(int64_t layer) const { return Plane(2 * layer + 1); }  // [num_blocks, G, B, d]
  // Fills the blocks with zeros, in every layer; ordered with the ops.
  void Scrub(std::span<const int32_t> blocks, Device& device);
  // Device::ReleasePages of the blocks in every layer; neighbors go together, because a block may be less than a page.
  void ReleasePages(std::span<const int32_t> blocks, Device& device);
  // Of a reserved cache: gives the pages of the blocks [first, num_blocks) back, or takes those of [first, end).
  // RESOURCE_EXHAUSTED when there is no memory; some of them may have been taken then.
  void ReleaseFrom(int64_t first, Device& device);
  absl::Status Commit(int64_t first, int64_t end, Device& device);

 private:
  KvCache(const KvCacheShape& shape, DeviceBuffer buffer) : shape_(shape), buffer_(std::move(buffer)) {}
  View Plane(int64_t index) const;
  // Blocks [first, first + count) of a plane.
  View Part(int64_t plane, int64_t first, int64_t count) const;

  KvCacheShape shape_;
  DeviceBuffer buffer_;           // [num_layers, 2, num_blocks, G, B, d]
  std::vector<std::byte> zeros_;  // what Scrub copies, which a device may do in the background
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_KV_CACHE_H_
