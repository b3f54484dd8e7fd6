// Writes small checkpoints as Hugging Face tools would: config.json and safetensors files with random weights. The
// tensor names are written out here a second time, independently of the loader, so that a test sees a wrong one.
#ifndef CADRE_TESTS_SUPPORT_CHECKPOINT_WRITER_H_
#define CADRE_TESTS_SUPPORT_CHECKPOINT_WRITER_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "kernels/dtype.h"
#include "nlohmann/json.hpp"

namespace cadre {

// The defaults are a valid model of a few hundred kilobytes in any family.
struct CheckpointSpec {
  ModelFamily family = ModelFamily::kOlmoe;
  uint64_t seed = 1;

  int64_t hidden_size = 32;
  int64_t num_layers = 2;
  int64_t num_heads = 4;
  int64_t num_kv_heads = 2;
  int64_t head_dim = 0;  // 0: hidden_size / num_heads, and no key in config.json
  int64_t vocab_size = 64;
  int64_t max_position_embeddings = 128;
  int64_t num_experts = 8;
  int64_t top_k = 2;
  int64_t expert_ffn_size = 16;
  int64_t shared_expert_ffn_size = 24;        // qwen2_moe
  int64_t dense_ffn_size = 48;                // layers of mlp_only_layers
  std::vector<int64_t> mlp_only_layers = {};  // qwen2_moe, qwen3_moe
  bool tie_word_embeddings = false;
  // Added to config.json last, over what the fields above say: rope, clip_qkv, sliding_window, norm_topk_prob, ...
  nlohmann::json extra_config = nlohmann::json::object();

  DType dtype = DType::kF32;              // of the matrices: float32, bfloat16, float16 or float64
  std::optional<DType> small_dtype = {};  // of norms, biases, routers and gates; absent: dtype
  bool fused_experts = false;             // experts.gate_up_proj and experts.down_proj
  bool renamed_moe = false;               // mixtral: `mlp` in place of `block_sparse_moe`
  bool stored_tied_head = false;          // with tie_word_embeddings: lm_head.weight is in the file all the same
  int num_shards = 1;                     // > 1: model-0000i-of-0000n.safetensors and an index
};

// One tensor of a file.
struct FileTensor {
  std::string name;
  std::string dtype;  // "F32"
  std::vector<int64_t> shape;
  std::string bytes;
};

nlohmann::json MakeConfigJson(const CheckpointSpec& spec);

// The tensors in the order of the model.
std::vector<FileTensor> MakeTensors(const CheckpointSpec& spec);

// Values that MakeTensors gives the tensor that is called `name` when experts are stored one by one: they depend on the
// name, the size and the seed alone, so all layouts of one model hold the same weights. Before rounding to the dtype.
// Weights of rank one are around 1 (norms) or 0 (biases); a matrix keeps the variance of its input.
std::vector<float> MakeValues(const CheckpointSpec& spec, const std::string& name, const std::vector<int64_t>& shape);

// A safetensors file: length, header, data.
std::string MakeSafetensors(const std::vector<FileTensor>& tensors);
// The same with a header of one's own.
std::string MakeSafetensors(const std::string& header, const std::string& data);
// The JSON header of `tensors`.
std::string MakeSafetensorsHeader(const std::vector<FileTensor>& tensors);

// Writes model.safetensors, or shards with about equally many tensors and their index.
void WriteTensors(const std::filesystem::path& dir, const std::vector<FileTensor>& tensors, int num_shards);

// config.json and the tensors into an existing folder.
void WriteCheckpoint(const std::filesystem::path& dir, const CheckpointSpec& spec);

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_CHECKPOINT_WRITER_H_
