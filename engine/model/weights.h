// The tensors of one model on a device, under names of our own, whatever the checkpoint called them.
#ifndef CADRE_ENGINE_MODEL_WEIGHTS_H_
#define CADRE_ENGINE_MODEL_WEIGHTS_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/experts/expert_source.h"
#include "engine/model/model_config.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace cadre {

// Views into Weights::buffers; empty where the model has no such tensor.
struct LayerWeights {
  ConstView attention_norm;  // [D]
  ConstView q, k, v;         // [H*d, D], [G*d, D], [G*d, D]
  ConstView q_bias, k_bias, v_bias;
  ConstView q_norm, k_norm;  // [d] per head, or [H*d] and [G*d] over the full width
  ConstView o;               // [D, H*d]
  ConstView o_bias;          // [D]
  ConstView ffn_norm;        // [D]
  // MoE layers
  ConstView router;                 // [E, D]
  std::vector<MlpWeights> experts;  // [E]; empty ones where experts are read when they are needed
  MlpWeights shared_expert;
  ConstView shared_expert_gate;  // [1, D]
  // Dense layers
  MlpWeights dense;
};

struct Weights {
  ConstView embedding;   // [V, D]
  ConstView final_norm;  // [D]
  ConstView head;        // [V, D]; the embedding's view when tied
  std::vector<LayerWeights> layers;
  DType expert_dtype = DType::kBF16;  // of the matrices of routed experts
  std::vector<DeviceBuffer> buffers;  // own what the views show
  // Where routed experts are read from when they are needed; null where the layers have them.
  std::unique_ptr<ExpertSource> expert_source = nullptr;
};

// Which matrices are quantized.
enum class QuantizedParts {
  kExperts,   // of routed experts
  kAll,       // and of attention, of shared experts and dense layers, and a head of its own: these with 8 bits
  kAllAlike,  // the same, with as many bits as the experts, but for the head: that with 8
};

struct WeightsOptions {
  // Convert every tensor to this type while loading; absent: keep what the checkpoint stores.
  std::optional<DType> dtype = std::nullopt;
  // kQ8 or kQ4: quantize matrices while loading, whatever they are stored as.
  std::optional<DType> quantized = std::nullopt;
  QuantizedParts quantized_parts = QuantizedParts::kExperts;
  // Threads that read and copy tensor data, each with a few MiB of staging memory. 0: one for each CPU of the machine,
  // up to 8 where nothing is quantized.
  int num_threads = 0;
  // Routed experts that are not loaded are read past the page cache.
  bool reads_experts_directly = false;
  // Called from one of these threads at a time, now and then, with bytes read and bytes in all.
  std::function<void(int64_t done_bytes, int64_t total_bytes)> on_progress = nullptr;
};

// Where routed experts are when a model has been loaded.
enum class ExpertPlace {
  kDevice,
  kHost,        // in memory of the host that the device reads (Device::AllocateMapped)
  kCheckpoint,  // nowhere yet: they are read one by one, some at the start, others when they are needed
};

// What loading will need, from the headers alone: no tensor data is read.
struct CheckpointSummary {
  DType dtype = DType::kBF16;         // of what is not quantized: of all matrices, if nothing is
  DType matrix_dtype = DType::kBF16;  // of the matrices as they will be held, but for those below and the embedding
  DType head_dtype = DType::kBF16;    // of the head: the embedding's, where it is one
  DType expert_dtype = DType::kBF16;  // of those of routed experts
  int64_t num_tensors = 0;
  int64_t file_bytes = 0;    // tensor data in the checkpoint
  int64_t dense_bytes = 0;   // on the device: everything but routed experts
  int64_t expert_bytes = 0;  // on the device: all routed experts
  int64_t one_expert_bytes = 0;
};

// Opens model_dir (model.safetensors, or model.safetensors.index.json with its shards), checks every header, and that
// each tensor the config asks for is there with its shape, and that no tensor is left over. Errors name file, tensor
// and reason. Nothing is allocated beyond the headers.
class Checkpoint {
 public:
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::filesystem::path& model_dir,
                                                          const ModelConfig& config, WeightsOptions options = {});
  ~Checkpoint();

  const CheckpointSummary& summary() const;
  // What stored_selection_bias.h says of it: read with the headers, for whoever gives no other.
  const std::vector<float>& selection_bias() const;
  // Reads all tensors into buffers of `device`; those of routed experts to where `experts` says.
  // RESOURCE_EXHAUSTED when they do not fit; DATA_LOSS when a file ends early or changes while it is read;
  // INVALID_ARGUMENT where a weight that is to be quantized is not finite;
  // FAILED_PRECONDITION where experts cannot be read directly.
  absl::StatusOr<Weights> Load(Device& device, ExpertPlace experts = ExpertPlace::kDevice) const;

 private:
  struct State;
  explicit Checkpoint(std::shared_ptr<const State> state);
  absl::StatusOr<std::unique_ptr<ExpertSource>> OpenExperts() const;
  std::shared_ptr<const State> state_;  // shared with the source of experts
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_WEIGHTS_H_
