// Reads what make_checkpoints.py wrote beside a checkpoint; README.md has the format.
#ifndef CADRE_TESTS_GOLDEN_GOLDEN_DATA_H_
#define CADRE_TESTS_GOLDEN_GOLDEN_DATA_H_

#include <cstdint>
#include <filesystem>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"

namespace cadre {

struct GoldenPrompt {
  std::vector<int32_t> tokens;           // [n]
  std::vector<int32_t> logit_positions;  // [r] positions whose logits are known, rising
  std::vector<float> logits;             // [r, V]
  std::vector<int32_t> expert_ids;       // [MoE layers, n, K], rising in each row
};

struct Golden {
  DType reference_dtype = DType::kF32;  // what the reference computed in
  int64_t vocab_size = 0;
  int64_t num_moe_layers = 0;
  int64_t top_k = 0;
  std::vector<GoldenPrompt> prompts;
};

// INVALID_ARGUMENT says what is wrong with which file.
absl::StatusOr<Golden> ReadGolden(const std::filesystem::path& dir);

// The folders with a golden.json among the folders in `dir`, by name; `dir` itself when it has one.
std::vector<std::filesystem::path> FindGoldenDirs(const std::filesystem::path& dir);

}  // namespace cadre

#endif  // CADRE_TESTS_GOLDEN_GOLDEN_DATA_H_
