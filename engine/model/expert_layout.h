// How the three matrices of a routed expert lie in one piece of memory.
#ifndef CADRE_ENGINE_MODEL_EXPERT_LAYOUT_H_
#define CADRE_ENGINE_MODEL_EXPERT_LAYOUT_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "engine/model/arena_layout.h"
#include "engine/model/model_config.h"
#include "kernels/ops.h"

namespace cadre {

// Gate, up and down, one behind the other, each aligned as kernels want it. The same for all experts of a model.
class ExpertLayout {
 public:
  ExpertLayout(const ModelConfig& config, DType dtype)
      : dtype_(dtype), hidden_size_(config.hidden_size), ffn_size_(config.expert_ffn_size) {
    ArenaLayout layout(nullptr);
    for (size_t i = 0; i < begins_.size(); ++i) {
      begins_[i] = layout.offset();
      layout.Take(dtype, ShapeOf(i));
    }
    size_bytes_ = layout.size_bytes();
  }

  static constexpr size_t kNumMatrices = 3;

  int64_t size_bytes() const { return size_bytes_; }
  // Of matrix number i, in bytes.
  int64_t offset(size_t i) const { return begins_[i]; }
  // Matrix number i: [F, D] for gate and up, [D, F] for down. REQUIRES: `base` is aligned to ArenaLayout::kAlignment.
  View Matrix(size_t i, std::byte* base) const { return View(base + begins_[i], dtype_, ShapeOf(i)); }
  MlpWeights At(std::byte* base) const { return {Matrix(0, base), Matrix(1, base), Matrix(2, base)}; }

 private:
  Shape ShapeOf(size_t i) const {
    return i == kNumMatrices - 1 ? Shape{hidden_size_, ffn_size_} : Shape{ffn_size_, hidden_size_};
  }

  DType dtype_;
  int64_t hidden_size_;
  int64_t ffn_size_;
  std::array<int64_t, kNumMatrices> begins_{};  // bytes
  int64_t size_bytes_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_EXPERT_LAYOUT_H_
