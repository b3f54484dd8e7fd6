// Lays tensors out in one allocation. The same code measures (null base) and hands out views, so that what was planned
// and what is used cannot drift apart.
#ifndef CADRE_ENGINE_MODEL_ARENA_LAYOUT_H_
#define CADRE_ENGINE_MODEL_ARENA_LAYOUT_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/model/byte_count.h"
#include "kernels/view.h"

namespace cadre {

class ArenaLayout {
 public:
  // Vector loads of every kernel, and a cache line.
  static constexpr int64_t kAlignment = 64;

  // `base` may be null: then views are empty and only offsets count.
  explicit ArenaLayout(std::byte* base) : base_(base) {}

  // The next piece of the arena.
  View Take(DType dtype, Shape shape) {
    CADRE_CHECK_GE(shape.rank(), 1);
    const int last = shape.rank() - 1;
    int64_t bytes = IsQuantized(dtype) ? RowBytes(dtype, shape[last])
                                       : SaturatingMultiply(shape[last], static_cast<int64_t>(DTypeBytes(dtype)));
    for (int i = 0; i < last; ++i) bytes = SaturatingMultiply(bytes, shape[i]);
    const int64_t begin = offset_;
    offset_ = SaturatingAdd(offset_, bytes);
    // Rounds up without wrapping a saturated offset.
    if (const int64_t rest = offset_ % kAlignment; rest != 0) offset_ = SaturatingAdd(offset_, kAlignment - rest);
    size_bytes_ = std::max(size_bytes_, offset_);
    return base_ == nullptr ? View() : View(base_ + begin, dtype, shape);
  }

  // Where the next piece begins.
  int64_t offset() const { return offset_; }
  // Starts again at an earlier `offset`: what is taken next shares memory with what was taken there before.
  void Rewind(int64_t offset) { offset_ = offset; }
  // Bytes needed for everything taken so far.
  int64_t size_bytes() const { return size_bytes_; }

 private:
  std::byte* base_;
  int64_t offset_ = 0;
  int64_t size_bytes_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_ARENA_LAYOUT_H_
