#include "engine/model/weights.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/model/arena_layout.h"
#include "engine/model/checkpoint_files.h"
#include "engine/model/element_conversion.h"
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
    return absl::InvalidArgumentError(absl::StrCat(files.Describe(tensor), ": config.json has no place for it in a ",
                                                   ToAbsl(ModelFamilyName(config.family)), " model"));
  }
  return absl::OkStatus();
}

// float64 is more than anything is computed in.
DType HeldAs(DType stored) { return stored == DType::kF64 ? DType::kF32 : stored; }

// The type of the matrices: what all of them are stored as; float32, which holds every other type exactly, when they
// differ.
DType CommonMatrixDType(const std::vector<Placement>& placements) {
  std::optional<DType> common;
  for (const Placement& placement : placements) {
    if (placement.role != WeightRole::kMatrix) continue;
    const DType dtype = HeldAs(*placement.source.tensor->info.dtype);
    if (common.value_or(dtype) != dtype) return DType::kF32;
    common = dtype;
  }
  return common.value_or(DType::kF32);
}

absl::Status CheckOptions(const WeightsOptions& options) {
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
    summary.dtype = options.dtype.value_or(CommonMatrixDType(placements));
    for (Placement& placement : placements) {
      const DType own = HeldAs(*placement.source.tensor->info.dtype);
      placement.dtype = placement.role == WeightRole::kMatrix ? summary.dtype : options.dtype.value_or(own);
    }
  }

  void MeasurePools() {
    std::vector<ArenaLayout> pools(static_cast<size_t>(config.num_layers) + 1, ArenaLayout(nullptr));
    for (const Placement& placement : placements) pools[placement.pool].Take(placement.dtype, placement.shape);
    for (const ArenaLayout& pool : pools) pool_bytes.push_back(pool.size_bytes());
    summary.dense_bytes = pool_bytes.front();
    for (size_t i = 1; i < pool_bytes.size(); ++i) summary.expert_bytes += pool_bytes[i];
    summary.num_tensors = static_cast<int64_t>(files.tensors().size());
    for (const StoredTensor& tensor : files.tensors()) summary.file_bytes += tensor.info.size_bytes;
  }

  // Buffers of the pools, in order; a layer without experts has none.
  absl::StatusOr<std::vector<DeviceBuffer>> AllocatePools(Device& device) const {
    std::vector<DeviceBuffer> buffers(pool_bytes.size());
    for (size_t i = 0; i < pool_bytes.size(); ++i) {
      if (pool_bytes[i] == 0) continue;
      CADRE_ASSIGN_OR_RETURN(buffers[i], device.Allocate(static_cast<size_t>(pool_bytes[i])));
    }
    return buffers;
  }

  // What to read, in the order of the files, so that the disk reads straight ahead.
  std::vector<WeightTransfer> PlanTransfers(const std::vector<View>& views) const {
    std::vector<WeightTransfer> transfers;
    transfers.reserve(views.size());
    for (size_t i = 0; i < views.size(); ++i) transfers.push_back({placements[i].source, views[i]});
    std::sort(transfers.begin(), transfers.end(), [](const WeightTransfer& a, const WeightTransfer& b) {
      return std::pair(a.from.tensor->shard, a.from.offset_bytes) <
             std::pair(b.from.tensor->shard, b.from.offset_bytes);
    });
    return transfers;
  }
};

Checkpoint::Checkpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}
Checkpoint::~Checkpoint() = default;

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::filesystem::path& model_dir,
                                                             const ModelConfig& config, WeightsOptions options) {
  CADRE_RETURN_IF_ERROR(CheckOptions(options));
  CADRE_ASSIGN_OR_RETURN(CheckpointFiles files, CheckpointFiles::Open(model_dir));
  auto state = std::make_unique<State>();
  state->config = config;
  state->options = std::move(options);
  state->files = std::move(files);
  CADRE_RETURN_IF_ERROR(state->ResolveAll());
  state->DecideTypes();
  state->MeasurePools();
  return std::unique_ptr<Checkpoint>(new Checkpoint(std::move(state)));
}

const CheckpointSummary& Checkpoint::summary() const { return state_->summary; }

absl::StatusOr<Weights> Checkpoint::Load(Device& device) const {
  Weights weights;
  weights.dtype = state_->summary.dtype;
  CADRE_ASSIGN_OR_RETURN(weights.buffers, state_->AllocatePools(device));

  std::vector<ArenaLayout> pools;
  for (const DeviceBuffer& buffer : weights.buffers) pools.emplace_back(buffer.data());
  std::vector<View> views;
  CADRE_RETURN_IF_ERROR(state_->Visit(&weights, [&](const WeightSlot& slot) {
    const Placement& placement = state_->placements[views.size()];
    views.push_back(pools[placement.pool].Take(placement.dtype, placement.shape));
    *slot.view = views.back();
    return absl::OkStatus();
  }));
  if (state_->config.tie_word_embeddings) weights.head = weights.embedding;

  WeightReader reader(state_->files.files(), device, state_->options.on_progress);
  CADRE_RETURN_IF_ERROR(reader.ReadAll(state_->PlanTransfers(views)));
  return weights;
}

}  // namespace cadre
