#include "tests/support/checkpoint_writer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "kernels/check.h"
#include "tests/support/temp_dir.h"

namespace cadre {
namespace {

using nlohmann::json;

std::string DTypeCode(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kBF16:
      return "BF16";
    case DType::kF16:
      return "F16";
    case DType::kF64:
      return "F64";
    default:
      CADRE_CHECK(false);
  }
  return "";
}

template <typename T>
void Append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::string Encode(const std::vector<float>& values, DType dtype) {
  std::string bytes;
  bytes.reserve(values.size() * DTypeBytes(dtype));
  for (const float value : values) {
    switch (dtype) {
      case DType::kBF16:
        Append(bytes, ToBFloat16(value).bits);
        break;
      case DType::kF16:
        Append(bytes, ToFloat16(value).bits);
        break;
      case DType::kF64:
        Append(bytes, static_cast<double>(value));
        break;
      default:
        Append(bytes, value);
    }
  }
  return bytes;
}

int64_t ElementCount(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

class TensorMaker {
 public:
  explicit TensorMaker(const CheckpointSpec& spec) : spec_(spec) {}

  std::vector<FileTensor> MakeAll() {
    const int64_t hidden = spec_.hidden_size;
    Matrix("model.embed_tokens.weight", {spec_.vocab_size, hidden});
    for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
      const std::string prefix = absl::StrCat("model.layers.", layer, ".");
      MakeAttention(prefix);
      Small(prefix + "post_attention_layernorm.weight", {hidden});
      const bool is_dense = std::count(spec_.mlp_only_layers.begin(), spec_.mlp_only_layers.end(), layer) > 0;
      is_dense ? MakeMlp(prefix + "mlp.", spec_.dense_ffn_size) : MakeMoe(prefix);
    }
    Small("model.norm.weight", {hidden});
    if (!spec_.tie_word_embeddings) Matrix("lm_head.weight", {spec_.vocab_size, hidden});
    if (spec_.tie_word_embeddings && spec_.stored_tied_head) {
      FileTensor head = tensors_.front();
      head.name = "lm_head.weight";
      tensors_.push_back(std::move(head));
    }
    return std::move(tensors_);
  }

 private:
  void MakeAttention(const std::string& prefix) {
    const int64_t hidden = spec_.hidden_size;
    const int64_t head_dim = spec_.head_dim > 0 ? spec_.head_dim : hidden / spec_.num_heads;
    const int64_t q_width = spec_.num_heads * head_dim;
    const int64_t kv_width = spec_.num_kv_heads * head_dim;
    Small(prefix + "input_layernorm.weight", {hidden});
    const std::string attention = prefix + "self_attn.";
    Matrix(attention + "q_proj.weight", {q_width, hidden});
    Matrix(attention + "k_proj.weight", {kv_width, hidden});
    Matrix(attention + "v_proj.weight", {kv_width, hidden});
    Matrix(attention + "o_proj.weight", {hidden, q_width});
    const bool is_qwen2 = spec_.family == ModelFamily::kQwen2Moe;
    const bool has_output_bias = !is_qwen2 && spec_.extra_config.value("attention_bias", false);
    if (has_output_bias) Small(attention + "o_proj.bias", {hidden});
    if (has_output_bias || (is_qwen2 && spec_.extra_config.value("qkv_bias", true))) {
      Small(attention + "q_proj.bias", {q_width});
      Small(attention + "k_proj.bias", {kv_width});
      Small(attention + "v_proj.bias", {kv_width});
    }
    if (spec_.family == ModelFamily::kOlmoe || spec_.family == ModelFamily::kQwen3Moe) {
      const bool per_head = spec_.family == ModelFamily::kQwen3Moe;
      Small(attention + "q_norm.weight", {per_head ? head_dim : q_width});
      Small(attention + "k_norm.weight", {per_head ? head_dim : kv_width});
    }
  }

  void MakeMlp(const std::string& prefix, int64_t ffn_size) {
    Matrix(prefix + "gate_proj.weight", {ffn_size, spec_.hidden_size});
    Matrix(prefix + "up_proj.weight", {ffn_size, spec_.hidden_size});
    Matrix(prefix + "down_proj.weight", {spec_.hidden_size, ffn_size});
  }

  void MakeMoe(const std::string& layer_prefix) {
    const bool is_mixtral = spec_.family == ModelFamily::kMixtral;
    const std::string moe = layer_prefix + (is_mixtral && !spec_.renamed_moe ? "block_sparse_moe." : "mlp.");
    Small(moe + "gate.weight", {spec_.num_experts, spec_.hidden_size});
    MakeExperts(moe + "experts.", is_mixtral ? "w1" : "gate_proj", is_mixtral ? "w3" : "up_proj",
                is_mixtral ? "w2" : "down_proj");
    if (spec_.family == ModelFamily::kQwen2Moe && spec_.shared_expert_ffn_size > 0) {
      MakeMlp(moe + "shared_expert.", spec_.shared_expert_ffn_size);
      Small(moe + "shared_expert_gate.weight", {1, spec_.hidden_size});
    }
  }

  void MakeExperts(const std::string& prefix, const std::string& gate, const std::string& up, const std::string& down) {
    const int64_t hidden = spec_.hidden_size;
    const int64_t ffn_size = spec_.expert_ffn_size;
    FileTensor gate_up{prefix + "gate_up_proj", DTypeCode(spec_.dtype), {spec_.num_experts, 2 * ffn_size, hidden}, ""};
    FileTensor downs{prefix + "down_proj", DTypeCode(spec_.dtype), {spec_.num_experts, hidden, ffn_size}, ""};
    for (int64_t e = 0; e < spec_.num_experts; ++e) {
      const std::string expert = absl::StrCat(prefix, e, ".");
      const FileTensor gate_tensor = Make(expert + gate + ".weight", {ffn_size, hidden}, spec_.dtype);
      const FileTensor up_tensor = Make(expert + up + ".weight", {ffn_size, hidden}, spec_.dtype);
      const FileTensor down_tensor = Make(expert + down + ".weight", {hidden, ffn_size}, spec_.dtype);
      if (!spec_.fused_experts) {
        for (const FileTensor* tensor : {&gate_tensor, &up_tensor, &down_tensor}) tensors_.push_back(*tensor);
        continue;
      }
      gate_up.bytes += gate_tensor.bytes + up_tensor.bytes;
      downs.bytes += down_tensor.bytes;
    }
    if (!spec_.fused_experts) return;
    tensors_.push_back(std::move(gate_up));
    tensors_.push_back(std::move(downs));
  }

  FileTensor Make(const std::string& name, const std::vector<int64_t>& shape, DType dtype) const {
    return {name, DTypeCode(dtype), shape, Encode(MakeValues(spec_, name, shape), dtype)};
  }
  void Matrix(const std::string& name, const std::vector<int64_t>& shape) {
    tensors_.push_back(Make(name, shape, spec_.dtype));
  }
  void Small(const std::string& name, const std::vector<int64_t>& shape) {
    tensors_.push_back(Make(name, shape, spec_.small_dtype.value_or(spec_.dtype)));
  }

  const CheckpointSpec& spec_;
  std::vector<FileTensor> tensors_;
};

// FNV-1a: the same on every platform, unlike std::hash.
uint64_t Hash(uint64_t seed, const std::string& text) {
  uint64_t hash = 14695981039346656037u ^ seed;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return hash;
}

std::string ShardName(int shard, int num_shards) {
  return absl::StrFormat("model-%05d-of-%05d.safetensors", shard + 1, num_shards);
}

}  // namespace

json MakeConfigJson(const CheckpointSpec& spec) {
  json config = {{"model_type", ModelFamilyName(spec.family)},
                 {"hidden_act", "silu"},
                 {"hidden_size", spec.hidden_size},
                 {"num_hidden_layers", spec.num_layers},
                 {"num_attention_heads", spec.num_heads},
                 {"num_key_value_heads", spec.num_kv_heads},
                 {"vocab_size", spec.vocab_size},
                 {"max_position_embeddings", spec.max_position_embeddings},
                 {"num_experts_per_tok", spec.top_k},
                 {"rope_theta", 10000.0},
                 {"rms_norm_eps", 1e-5},
                 {"tie_word_embeddings", spec.tie_word_embeddings},
                 {"torch_dtype", DTypeName(spec.dtype)}};
  if (spec.head_dim > 0) config["head_dim"] = spec.head_dim;
  const bool is_qwen = spec.family == ModelFamily::kQwen2Moe || spec.family == ModelFamily::kQwen3Moe;
  config[spec.family == ModelFamily::kMixtral ? "num_local_experts" : "num_experts"] = spec.num_experts;
  config["intermediate_size"] = is_qwen ? spec.dense_ffn_size : spec.expert_ffn_size;
  if (is_qwen) {
    config["moe_intermediate_size"] = spec.expert_ffn_size;
    config["mlp_only_layers"] = spec.mlp_only_layers;
  }
  if (spec.family == ModelFamily::kQwen2Moe) {
    config["shared_expert_intermediate_size"] = spec.shared_expert_ffn_size;
  }
  config.update(spec.extra_config);
  return config;
}

std::vector<FileTensor> MakeTensors(const CheckpointSpec& spec) { return TensorMaker(spec).MakeAll(); }

std::vector<float> MakeValues(const CheckpointSpec& spec, const std::string& name, const std::vector<int64_t>& shape) {
  // Mixtral's two names of one module mean the same tensor.
  std::mt19937_64 rng(Hash(spec.seed, absl::StrReplaceAll(name, {{".block_sparse_moe.", ".mlp."}})));
  const bool is_norm = shape.size() == 1 && absl::EndsWith(name, ".weight");
  const float mean = is_norm ? 1.0f : 0.0f;
  const float deviation = shape.size() == 1 ? 0.1f : 1.0f / std::sqrt(static_cast<float>(shape.back()));
  std::normal_distribution<float> normal(mean, deviation);
  std::vector<float> values(static_cast<size_t>(ElementCount(shape)));
  for (float& value : values) value = normal(rng);
  return values;
}

std::string MakeSafetensorsHeader(const std::vector<FileTensor>& tensors) {
  json header = json::object();
  size_t offset = 0;
  for (const FileTensor& tensor : tensors) {
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // as the format's own writer aligns the data
  return text;
}

std::string MakeSafetensors(const std::string& header, const std::string& data) {
  std::string file;
  const uint64_t length = header.size();
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(length >> (8 * i)));
  return file + header + data;
}

std::string MakeSafetensors(const std::vector<FileTensor>& tensors) {
  std::string data;
  for (const FileTensor& tensor : tensors) data += tensor.bytes;
  return MakeSafetensors(MakeSafetensorsHeader(tensors), data);
}

void WriteTensors(const std::filesystem::path& dir, const std::vector<FileTensor>& tensors, int num_shards) {
  if (num_shards <= 1) {
    WriteFile(dir / "model.safetensors", MakeSafetensors(tensors));
    return;
  }
  json index = {{"metadata", {{"total_size", 0}}}, {"weight_map", json::object()}};
  for (int shard = 0; shard < num_shards; ++shard) {
    std::vector<FileTensor> part;
    for (size_t i = static_cast<size_t>(shard); i < tensors.size(); i += static_cast<size_t>(num_shards)) {
      part.push_back(tensors[i]);
      index["weight_map"][tensors[i].name] = ShardName(shard, num_shards);
    }
    WriteFile(dir / ShardName(shard, num_shards), MakeSafetensors(part));
  }
  WriteFile(dir / "model.safetensors.index.json", index.dump(2));
}

void WriteCheckpoint(const std::filesystem::path& dir, const CheckpointSpec& spec) {
  WriteFile(dir / "config.json", MakeConfigJson(spec).dump(2));
  WriteTensors(dir, MakeTensors(spec), spec.num_shards);
}

}  // namespace cadre
