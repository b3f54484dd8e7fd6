#include "engine/model/weights.h"

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/model/arena_layout.h"
#include "engine/model/checkpoint_experts.h"
#include "engine/model/checkpoint_files.h"
#include "engine/model/element_conversion.h"
#include "engine/model/routing_scheme.h"
#include "engine/model/stored_selection_bias.h"
#include "engine/model/weight_layout.h"
#include "engine/model/weight_reader.h"

namespace cadre {
namespace {

// Pool 0 holds the dense tensors, pool 1 + L the routed experts of layer L.
size_t PoolOf(const WeightSlot& slot) { return static_cast<size_t>(slot.expert_layer + 1); }

// Where one tensor of ours comes from, and what it becomes.
struct Placement {
  WeightSource source;
  Shape shape;
  WeightRole role = WeightRole::kMatrix;
  size_t pool = 0;
  DType dtype = DType::kF32;  // as it will be held
};

absl::StatusOr<Placement> Resolve(const CheckpointFiles& files, const WeightSlot& slot) {
  const StoredTensor* tensor = files.Find(slot.stored_name);
  if (tensor == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(files.index_name(), ": tensor ", Quoted(slot.stored_name), " is missing"));
  }
  const TensorInfo& info = tensor->info;
  if (info.shape != slot.stored_shape) {
    return absl::InvalidArgumentError(absl::StrCat(files.Describe(*tensor), ": has shape ", ShapeToString(info.shape),
                                                   ", config.json asks for ", ShapeToString(slot.stored_shape)));
  }
  if (!info.dtype.has_value() || !IsStoredFloat(*info.dtype)) {
    return absl::UnimplementedError(absl::StrCat(files.Describe(*tensor), ": has dtype ", ToAbsl(info.dtype_name),
                                                 ", supported are F32, BF16, F16 and F64"));
  }
  const auto element_bytes = static_cast<int64_t>(DTypeBytes(*info.dtype));
  return Placement{.source = {.tensor = tensor,
                              .offset_bytes = info.offset_bytes + slot.first_element * element_bytes,
                              .num_elements = slot.shape.num_elements()},
                   .shape = slot.shape,
                   .role = slot.role,
                   .pool = PoolOf(slot)};
}

absl::Status CheckNothingIsLeft(const CheckpointFiles& files, const ModelConfig& config,
                                const std::vector<Placement>& placements) {
  absl::flat_hash_set<const StoredTensor*> used;
  for (const Placement& placement : placements) used.insert(placement.source.tensor);
  for (const StoredTensor& tensor : files.tensors()) {
    if (used.contains(&tensor) || IsIgnoredTensor(config, tensor.info.name)) continue;
    if (IsSelectionBias(config, tensor.info.name)) {
      if (TakesSelectionBias(config)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(files.Describe(tensor),
                       ": only the routing schemes sigmoid-bias and group-limited take a selection bias, and this "
                       "model's is ",
                       ToAbsl(RoutingSchemeName(config.routing.scheme))));
    }
    return absl::InvalidArgumentError(absl::StrCat(files.Describe(tensor), ": config.json has no place for it in a ",
                                                   ToAbsl(ModelFamilyName(config.family)), " model"));
  }
  return absl::OkStatus();
}

// float64 is more than anything is computed in.
DType HeldAs(DType stored) { return stored == DType::kF64 ? DType::kF32 : stored; }

bool WillBeQuantized(const Placement& placement, const WeightsOptions& options) {
  const bool is_matrix = placement.role == WeightRole::kMatrix || placement.role == WeightRole::kHead;
  if (!options.quantized.has_value() || !is_matrix) return false;
  return placement.pool > 0 || options.quantized_parts != QuantizedParts::kExperts;
}

// The type of the matrices that are not quantized: what all of them are stored as; float32, which holds every other
// type exactly, when they differ.
DType CommonMatrixDType(const std::vector<Placement>& placements, const WeightsOptions& options) {
  std::optional<DType> common;
  for (const Placement& placement : placements) {
    if (placement.role == WeightRole::kSmall || WillBeQuantized(placement, options)) continue;
    const DType dtype = HeldAs(*placement.source.tensor->info.dtype);
    if (common.value_or(dtype) != dtype) return DType::kF32;
    common = dtype;
  }
  return common.value_or(DType::kF32);
}

int NumThreads(const WeightsOptions& options) {
  if (options.num_threads > 0) return options.num_threads;
  const int num_cpus = std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);
  // A few copy as fast as any link or disk does; quantizing is work.
  return options.quantized.has_value() ? num_cpus : std::min(num_cpus, 8);
}

absl::Status CheckOptions(const WeightsOptions& options) {
  if (options.num_threads < 0) {
    return absl::InvalidArgumentError(absl::StrCat("num_threads is ", options.num_threads, ", less than 0"));
  }
  if (options.quantized.has_value() && !IsQuantized(*options.quantized)) {
    return absl::InvalidArgumentError(absl::StrCat("weights cannot be quantized to ",
                                                   ToAbsl(DTypeName(*options.quantized)), ", only to int8 or int4"));
  }
  if (!options.dtype.has_value()) return absl::OkStatus();
  if (IsStoredFloat(*options.dtype) && *options.dtype != DType::kF64) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("weights cannot be held as ", ToAbsl(DTypeName(*options.dtype)),
                                                 ", only as float32, bfloat16 or float16"));
}

}  // namespace

struct Checkpoint::State {
  ModelConfig config;
  WeightsOptions options;
  CheckpointFiles files;
  std::vector<Placement> placements;  // in the order of VisitWeights
  std::vector<int64_t> pool_bytes;
  std::vector<float> selection_bias;
  CheckpointSummary summary;

  absl::Status Visit(Weights* weights, absl::FunctionRef<absl::Status(const WeightSlot&)> visit) const {
    const auto is_stored = [this](std::string_view name) { return files.Find(name) != nullptr; };
    return VisitWeights(config, is_stored, weights, visit);
  }

  absl::Status ResolveAll() {
    Weights unused;  // only its places are visited
    CADRE_RETURN_IF_ERROR(Visit(&unused, [this](const WeightSlot& slot) -> absl::Status {
      CADRE_ASSIGN_OR_RETURN(const Placement placement, Resolve(files, slot));
      placements.push_back(placement);
      return absl::OkStatus();
    }));
    return CheckNothingIsLeft(files, config, placements);
  }

  void DecideTypes() {
    summary.dtype = options.dtype.value_or(CommonMatrixDType(placements, options));
    summary.matrix_dtype = summary.head_dtype = summary.dtype;
    // What every token meets is worth its bits, and is the smaller part.
    if (options.quantized.has_value() && options.quantized_parts != QuantizedParts::kExperts) {
      summary.matrix_dtype = options.quantized_parts == QuantizedParts::kAllAlike ? *options.quantized : DType::kQ8;
      summary.head_dtype = config.tie_word_embeddings ? summary.dtype : DType::kQ8;
    }
    summary.expert_dtype = options.quantized.value_or(summary.dtype);
    for (Placement& placement : placements) {
      const DType own = HeldAs(*placement.source.tensor->info.dtype);
      switch (placement.role) {
        case WeightRole::kMatrix:
          placement.dtype = placement.pool > 0 ? summary.expert_dtype : summary.matrix_dtype;
          break;
        case WeightRole::kHead:
          placement.dtype = summary.head_dtype;
          break;
        case WeightRole::kTable:
          placement.dtype = summary.dtype;
          break;
        case WeightRole::kSmall:
          placement.dtype = options.dtype.value_or(own);
          break;
      }
    }
  }

  void MeasurePools() {
    std::vector<ArenaLayout> pools(static_cast<size_t>(config.num_layers) + 1, ArenaLayout(nullptr));
    for (const Placement& placement : placements) pools[placement.pool].Take(placement.dtype, placement.shape);
    for (const ArenaLayout& pool : pools) pool_bytes.push_back(pool.size_bytes());
    summary.dense_bytes = pool_bytes.front();
    for (size_t i = 1; i < pool_bytes.size(); ++i) summary.expert_bytes += pool_bytes[i];
    summary.one_expert_bytes = ExpertLayout(config, summary.expert_dtype).size_bytes();
    summary.num_tensors = static_cast<int64_t>(files.tensors().size());
    for (const StoredTensor& tensor : files.tensors()) summary.file_bytes += tensor.info.size_bytes;
  }

  // Buffers of the pools that are loaded, in order; a layer without experts has none.
  absl::StatusOr<std::vector<DeviceBuffer>> AllocatePools(Device& device, ExpertPlace experts) const {
    std::vector<DeviceBuffer> buffers(experts == ExpertPlace::kCheckpoint ? 1 : pool_bytes.size());
    for (size_t i = 0; i < buffers.size(); ++i) {
      if (pool_bytes[i] == 0) continue;
      const auto size_bytes = static_cast<size_t>(pool_bytes[i]);
      const bool is_mapped = i > 0 && experts == ExpertPlace::kHost;
      CADRE_ASSIGN_OR_RETURN(buffers[i], is_mapped ? device.AllocateMapped(size_bytes) : device.Allocate(size_bytes));
    }
    return buffers;
  }

  // What to read into the views that are not empty, in the order of the files, so that the disk reads straight ahead.
  std::vector<WeightTransfer> PlanTransfers(const std::vector<View>& views, ExpertPlace experts) const {
    std::vector<WeightTransfer> transfers;
    transfers.reserve(views.size());
    for (size_t i = 0; i < views.size(); ++i) {
      if (views[i].empty()) continue;
      const bool is_host_memory = placements[i].pool > 0 && experts == ExpertPlace::kHost;
      transfers.push_back({placements[i].source, views[i], is_host_memory});
    }
    std::sort(transfers.begin(), transfers.end(), [](const WeightTransfer& a, const WeightTransfer& b) {
      return std::pair(a.from.tensor->shard, a.from.offset_bytes) <
             std::pair(b.from.tensor->shard, b.from.offset_bytes);
    });
    return transfers;
  }
};

Checkpoint::Checkpoint(std::shared_ptr<const State> state) : state_(std::move(state)) {}
Checkpoint::~Checkpoint() = default;

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::filesystem::path& model_dir,
                                                             const ModelConfig& config, WeightsOptions options) {
  CADRE_RETURN_IF_ERROR(CheckOptions(options));
  CADRE_ASSIGN_OR_RETURN(CheckpointFiles files, CheckpointFiles::Open(model_dir));
  auto state = std::make_shared<State>();
  state->config = config;
  state->options = std::move(options);
  state->files = std::move(files);
  CADRE_RETURN_IF_ERROR(state->ResolveAll());
  CADRE_ASSIGN_OR_RETURN(state->selection_bias, ReadSelectionBias(state->files, config));
  state->DecideTypes();
  state->MeasurePools();
  return std::unique_ptr<Checkpoint>(new Checkpoint(std::move(state)));
}

const CheckpointSummary& Checkpoint::summary() const { return state_->summary; }

const std::vector<float>& Checkpoint::selection_bias() const { return state_->selection_bias; }

absl::StatusOr<std::unique_ptr<ExpertSource>> Checkpoint::OpenExperts() const {
  // VisitWeights goes from layer to layer, from expert to expert, from gate to up to down.
  std::vector<CheckpointExperts::Matrices> matrices;
  std::vector<int64_t> layers;
  size_t next = 0;
  for (const Placement& placement : state_->placements) {
    if (placement.pool == 0) continue;
    const auto layer = static_cast<int64_t>(placement.pool) - 1;
    if (layers.empty() || layers.back() != layer) layers.push_back(layer);
    if (next == 0) matrices.emplace_back();
    matrices.back()[next] = placement.source;
    next = (next + 1) % ExpertLayout::kNumMatrices;
  }
  return CheckpointExperts::Open(std::shared_ptr<const CheckpointFiles>(state_, &state_->files),
                                 ExpertLayout(state_->config, state_->summary.expert_dtype), std::move(matrices),
                                 std::move(layers), state_->options.reads_experts_directly);
}

absl::StatusOr<Weights> Checkpoint::Load(Device& device, ExpertPlace experts) const {
  Weights weights;
  weights.expert_dtype = state_->summary.expert_dtype;
  CADRE_ASSIGN_OR_RETURN(weights.buffers, state_->AllocatePools(device, experts));

  std::vector<ArenaLayout> pools;
  for (const DeviceBuffer& buffer : weights.buffers) pools.emplace_back(buffer.data());
  std::vector<View> views;
  CADRE_RETURN_IF_ERROR(state_->Visit(&weights, [&](const WeightSlot& slot) {
    const Placement& placement = state_->placements[views.size()];
    const bool is_loaded = placement.pool < pools.size();
    views.push_back(is_loaded ? pools[placement.pool].Take(placement.dtype, placement.shape) : View());
    *slot.view = views.back();
    return absl::OkStatus();
  }));
  if (state_->config.tie_word_embeddings) weights.head = weights.embedding;

  WeightReader reader(state_->files.files(), device, NumThreads(state_->options), state_->options.on_progress);
  CADRE_RETURN_IF_ERROR(reader.ReadAll(state_->PlanTransfers(views, experts)));
  if (experts == ExpertPlace::kCheckpoint) {
    CADRE_ASSIGN_OR_RETURN(weights.expert_source, OpenExperts());
  }
  return weights;
}

}  // namespace cadre
