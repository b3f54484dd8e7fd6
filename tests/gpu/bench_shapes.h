// The sizes of the models that kernels are measured with.
#ifndef CADRE_TESTS_GPU_BENCH_SHAPES_H_
#define CADRE_TESTS_GPU_BENCH_SHAPES_H_

#include <cstdint>
#include <string>

#include "kernels/ops.h"

namespace cadre::gpu {

// In the letters of kernels/ops.h.
struct BenchShape {
  std::string name;
  int64_t hidden = 0;    // D
  int64_t heads = 0;     // H
  int64_t kv_heads = 0;  // G
  int64_t head_dim = 0;  // d
  int64_t experts = 0;   // E
  int64_t top_k = 0;     // K
  int64_t ffn = 0;       // F
  int64_t vocab = 0;     // V
  WeightNorm norm = WeightNorm::kNone;
};

inline const BenchShape kBenchShapes[] = {
    {"olmoe-1b-7b", 2048, 16, 16, 128, 64, 8, 1024, 50304, WeightNorm::kNone},
    {"qwen3-30b-a3b", 2048, 32, 4, 128, 128, 8, 768, 151936, WeightNorm::kSum},
    {"mixtral-8x7b", 4096, 32, 8, 128, 8, 2, 14336, 32000, WeightNorm::kSum},
    // Of no model: for the emulator, where the others would take hours.
    {"tiny", 64, 4, 2, 32, 4, 2, 32, 96, WeightNorm::kSum},
};

}  // namespace cadre::gpu

#endif  // CADRE_TESTS_GPU_BENCH_SHAPES_H_
