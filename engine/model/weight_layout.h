// Which tensors a model has, under which names checkpoints store them.
#ifndef CADRE_ENGINE_MODEL_WEIGHT_LAYOUT_H_
#define CADRE_ENGINE_MODEL_WEIGHT_LAYOUT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"

namespace cadre {

enum class WeightRole {
  kMatrix,  // the large ones: all of one element type, or quantized
  kHead,    // the head, where it is not the embedding: a matrix that is worth more bits where others have four
  kTable,   // the embedding, whose rows are looked up: of the matrices' element type
  kSmall,   // norms, biases, routers and gates: each keeps its own type
};

// One tensor of ours, and the stored tensor that holds it: either all of it or, where a checkpoint keeps the experts of
// a layer fused, a run of it.
struct WeightSlot {
  std::string_view stored_name;       // valid during the visit
  std::vector<int64_t> stored_shape;  // of the whole stored tensor
  int64_t first_element = 0;          // of this tensor in the stored one
  Shape shape;                        // of this tensor
  WeightRole role = WeightRole::kMatrix;
  int64_t expert_layer = -1;  // >= 0: a matrix of a routed expert of that layer
  ConstView* view = nullptr;  // where it belongs in the Weights
};

// Visits every tensor of `config` in a fixed order; stops at the first error. `weights->layers` is sized first; the
// views that the model lacks stay empty and the tied head is left to the caller. `is_stored` says whether the
// checkpoint has a tensor of that name, which decides between the layouts of routed experts:
//
//   one tensor per expert:  mlp.experts.E.{gate,up,down}_proj.weight, or block_sparse_moe.experts.E.{w1,w3,w2}.weight
//   fused:                  experts.gate_up_proj [E, 2F, D] (gate rows first) and experts.down_proj [E, D, F] under
//                           either prefix, as transformers 5 writes with save_original_format=False
absl::Status VisitWeights(const ModelConfig& config, absl::FunctionRef<bool(std::string_view)> is_stored,
                          Weights* weights, absl::FunctionRef<absl::Status(const WeightSlot&)> visit);

// Tensors that a checkpoint may hold beyond those: rotary frequencies that old versions saved (they follow from the
// config), and the head of a model whose head is the embedding.
bool IsIgnoredTensor(const ModelConfig& config, std::string_view name);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_WEIGHT_LAYOUT_H_
