#include "tests/support/random_model.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/model/expert_layout.h"

namespace cadre {
namespace {

// Makes tensors on a device and keeps their buffers.
class TensorFactory {
 public:
  TensorFactory(DType dtype, uint64_t seed, Device& device) : dtype_(dtype), rng_(seed), device_(device) {}

  // Values of mean `mean` and standard deviation `deviation`.
  ConstView Make(Shape shape, float mean, float deviation) {
    auto buffer = device_.Allocate(static_cast<size_t>(shape.num_elements()) * DTypeBytes(dtype_));
    CADRE_CHECK(buffer.ok());
    const View view = buffer->view(dtype_, shape);
    std::normal_distribution<float> normal(mean, deviation);
    std::vector<std::byte> host(view.size_bytes());
    for (int64_t i = 0; i < shape.num_elements(); ++i) Store(host.data(), i, normal(rng_));
    device_.CopyToDevice(view, host.data());
    buffers_.push_back(*std::move(buffer));
    return view;
  }

  // [outputs, inputs]; an output has variance gain^2 when the inputs have variance 1.
  ConstView Matrix(int64_t outputs, int64_t inputs, float gain = 1.0f) {
    return Make({outputs, inputs}, 0.0f, gain / std::sqrt(static_cast<float>(inputs)));
  }
  ConstView Norm(int64_t width) { return Make({width}, 1.0f, 0.1f); }
  MlpWeights Mlp(int64_t hidden, int64_t ffn) {
    return {.gate = Matrix(ffn, hidden), .up = Matrix(ffn, hidden), .down = Matrix(hidden, ffn)};
  }

  std::vector<DeviceBuffer> TakeBuffers() { return std::move(buffers_); }

 private:
  void Store(std::byte* to, int64_t i, float value) const {
    switch (dtype_) {
      case DType::kF32:
        std::memcpy(to + i * 4, &value, 4);
        return;
      case DType::kBF16: {
        const BFloat16 rounded = ToBFloat16(value);
        std::memcpy(to + i * 2, &rounded, 2);
        return;
      }
      default:
        CADRE_CHECK(false);
    }
  }

  const DType dtype_;
  std::mt19937_64 rng_;
  Device& device_;
  std::vector<DeviceBuffer> buffers_;
};

LayerWeights MakeLayer(const ModelConfig& config, bool is_moe, TensorFactory& make) {
  const int64_t hidden = config.hidden_size;
  const int64_t q_width = config.num_heads * config.head_dim;
  const int64_t kv_width = config.num_kv_heads * config.head_dim;
  LayerWeights layer;
  layer.attention_norm = make.Norm(hidden);
  layer.q = make.Matrix(q_width, hidden);
  layer.k = make.Matrix(kv_width, hidden);
  layer.v = make.Matrix(kv_width, hidden);
  if (config.qkv_bias) {
    layer.q_bias = make.Make({q_width}, 0.0f, 0.5f);
    layer.k_bias = make.Make({kv_width}, 0.0f, 0.5f);
    layer.v_bias = make.Make({kv_width}, 0.0f, 0.5f);
  }
  if (config.qk_norm != QkNorm::kNone) {
    const bool per_head = config.qk_norm == QkNorm::kPerHead;
    layer.q_norm = make.Norm(per_head ? config.head_dim : q_width);
    layer.k_norm = make.Norm(per_head ? config.head_dim : kv_width);
  }
  layer.o = make.Matrix(hidden, q_width);
  if (config.o_bias) layer.o_bias = make.Make({hidden}, 0.0f, 0.5f);
  layer.ffn_norm = make.Norm(hidden);
  if (!is_moe) {
    layer.dense = make.Mlp(hidden, config.dense_ffn_size);
    return layer;
  }
  layer.router = make.Matrix(config.num_experts, hidden, /*gain=*/2.0f);
  for (int64_t e = 0; e < config.num_experts; ++e) {
    layer.experts.push_back(make.Mlp(hidden, config.expert_ffn_size));
  }
  if (config.shared_expert_ffn_size > 0) {
    layer.shared_expert = make.Mlp(hidden, config.shared_expert_ffn_size);
    layer.shared_expert_gate = make.Matrix(1, hidden);
  }
  return layer;
}

// As Checkpoint::Load leaves them with ExpertPlace::kHost.
void MoveExpertsToHost(const ModelConfig& config, Device& device, Weights* weights) {
  const ExpertLayout layout(config, weights->expert_dtype);
  for (LayerWeights& layer : weights->layers) {
    if (layer.experts.empty()) continue;
    const int64_t bytes = layout.size_bytes() * static_cast<int64_t>(layer.experts.size());
    DeviceBuffer buffer = *device.AllocateMapped(static_cast<size_t>(bytes));
    std::byte* base = buffer.data();
    for (MlpWeights& expert : layer.experts) {
      const MlpWeights hosted = layout.At(base);
      device.CopyToHost(layout.Matrix(0, base).raw(), expert.gate);
      device.CopyToHost(layout.Matrix(1, base).raw(), expert.up);
      device.CopyToHost(layout.Matrix(2, base).raw(), expert.down);
      expert = hosted;
      base += layout.size_bytes();
    }
    weights->buffers.push_back(std::move(buffer));
  }
  CADRE_CHECK(device.Synchronize().ok());
}

}  // namespace

ModelConfig SmallConfig(ModelFamily family) {
  ModelConfig config;
  config.family = family;
  config.hidden_size = 40;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 10;
  config.vocab_size = 101;
  config.max_position_embeddings = 256;
  config.num_experts = 6;
  config.expert_ffn_size = 20;
  config.router.top_k = 2;
  config.is_moe_layer = {true, true};
  switch (family) {
    case ModelFamily::kOlmoe:
      config.num_kv_heads = 4;
      config.qk_norm = QkNorm::kFullWidth;
      config.clip_qkv = 1.5f;
      config.qkv_bias = true;
      config.o_bias = true;
      break;
    case ModelFamily::kQwen2Moe:
      config.qkv_bias = true;
      config.shared_expert_ffn_size = 28;
      config.dense_ffn_size = 36;
      config.is_moe_layer = {false, true};
      break;
    case ModelFamily::kQwen3Moe:
      config.head_dim = 16;
      config.qk_norm = QkNorm::kPerHead;
      config.router.norm = WeightNorm::kSum;
      config.router.top_k = 3;
      break;
    case ModelFamily::kMixtral:
      config.num_kv_heads = 1;
      config.router.norm = WeightNorm::kSum;
      config.sliding_window = 13;
      break;
  }
  for (int64_t i = 0; i < config.head_dim / 2; ++i) {
    config.rope.inverse_frequencies.push_back(
        std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(config.head_dim)));
  }
  return config;
}

ModelConfig WideConfig() {
  ModelConfig config = SmallConfig(ModelFamily::kQwen3Moe);
  config.hidden_size = 64;
  config.expert_ffn_size = 32;
  return config;
}

Weights MakeRandomWeights(const ModelConfig& config, DType dtype, uint64_t seed, Device& device) {
  TensorFactory make(dtype, seed, device);
  Weights weights;
  weights.expert_dtype = dtype;
  weights.embedding = make.Make({config.vocab_size, config.hidden_size}, 0.0f, 1.0f);
  weights.final_norm = make.Norm(config.hidden_size);
  weights.head =
      config.tie_word_embeddings ? weights.embedding : make.Matrix(config.vocab_size, config.hidden_size, 2.0f);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    weights.layers.push_back(MakeLayer(config, config.is_moe_layer[static_cast<size_t>(layer)], make));
  }
  weights.buffers = make.TakeBuffers();
  return weights;
}

CheckpointSummary SummaryOf(const ModelConfig& config, DType dtype) {
  const auto element = static_cast<int64_t>(DTypeBytes(dtype));
  CheckpointSummary summary;
  summary.dtype = summary.matrix_dtype = summary.head_dtype = summary.expert_dtype = dtype;
  summary.expert_bytes =
      config.num_moe_layers() * config.num_experts * 3 * config.hidden_size * config.expert_ffn_size * element;
  summary.one_expert_bytes = ExpertLayout(config, dtype).size_bytes();
  summary.dense_bytes = 2 * config.vocab_size * config.hidden_size * element;
  summary.file_bytes = summary.expert_bytes + summary.dense_bytes;
  return summary;
}

std::unique_ptr<ModelRunner> MakeRandomRunner(const ModelConfig& config, DType dtype, uint64_t seed,
                                              const RunnerOptions& options, Device* device, MemoryExperts** experts) {
  const auto plan = PlanMemory(config, SummaryOf(config, dtype), options, *device, device->ops());
  CADRE_CHECK(plan.ok());
  Weights weights = MakeRandomWeights(config, dtype, seed, *device);
  const bool is_all_on_device = plan->expert_place() == ExpertPlace::kDevice;
  if (!is_all_on_device && !device->shares_host_memory()) MoveExpertsToHost(config, *device, &weights);
  if (plan->expert_place() == ExpertPlace::kCheckpoint) {
    auto source = std::make_unique<MemoryExperts>(TakeExperts(config, &weights));
    if (experts != nullptr) *experts = source.get();
    weights.expert_source = std::move(source);
  }
  auto runner = CreateTransformerRunner(config, std::move(weights), *plan, options, device);
  CADRE_CHECK(runner.ok());
  return *std::move(runner);
}

}  // namespace cadre
