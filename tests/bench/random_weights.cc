#include "tests/bench/random_weights.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/model/arena_layout.h"
#include "engine/model/expert_layout.h"
#include "engine/model/weight_layout.h"

namespace cadre {
namespace {

// Odd: rows whose width is a power of two do not begin at the same value again for as many rows.
constexpr int64_t kRunLength = (int64_t{1} << 22) + 15;
constexpr float kRouterGain = 2.0f;
constexpr float kSmallDeviation = 0.1f;  // of norms and biases

size_t PoolOf(const WeightSlot& slot) { return static_cast<size_t>(slot.expert_layer + 1); }

// Visits the tensors of a checkpoint with a tensor for each expert.
absl::Status VisitAll(const ModelConfig& config, Weights* weights,
                      absl::FunctionRef<absl::Status(const WeightSlot&)> visit) {
  return VisitWeights(
      config, [](std::string_view) { return false; }, weights, visit);
}

std::vector<int64_t> MeasurePools(const ModelConfig& config) {
  std::vector<ArenaLayout> pools(static_cast<size_t>(config.num_layers) + 1, ArenaLayout(nullptr));
  Weights unused;  // only its places are visited
  const absl::Status status = VisitAll(config, &unused, [&](const WeightSlot& slot) {
    pools[PoolOf(slot)].Take(DType::kBF16, slot.shape);
    return absl::OkStatus();
  });
  CADRE_CHECK(status.ok());
  std::vector<int64_t> bytes;
  bytes.reserve(pools.size());
  for (const ArenaLayout& pool : pools) bytes.push_back(pool.size_bytes());
  return bytes;
}

// About normal values: the sums of four uniform ones.
std::vector<float> MakeRun() {
  constexpr float kSumMean = 131070.0f;
  constexpr float kSumDeviation = 37837.2f;  // 65536 / sqrt(3)
  std::vector<float> run(static_cast<size_t>(kRunLength));
  uint64_t state = 0x9E3779B97F4A7C15u;
  for (float& value : run) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const uint64_t bits = state ^ (state >> 29);
    const uint64_t sum = (bits & 0xFFFFu) + ((bits >> 16) & 0xFFFFu) + ((bits >> 32) & 0xFFFFu) + (bits >> 48);
    value = (static_cast<float>(sum) - kSumMean) / kSumDeviation;
  }
  return run;
}

class Filler {
 public:
  explicit Filler(Device& device) : device_(device), run_(MakeRun()) {}

  // `is_host_memory`: `view` is; else the device's.
  void Fill(const WeightSlot& slot, View view, bool is_host_memory) {
    const bool is_matrix = slot.shape.rank() == 2;
    const float mean = is_matrix || absl::EndsWith(ToAbsl(slot.stored_name), "bias") ? 0.0f : 1.0f;
    const float gain = slot.role == WeightRole::kSmall ? kRouterGain : 1.0f;
    const float deviation = is_matrix ? gain / std::sqrt(static_cast<float>(slot.shape[1])) : kSmallDeviation;
    const std::vector<BFloat16>& values = Scaled(mean, deviation);
    const View flat = view.Reshape({view.num_elements()});
    for (int64_t begin = 0; begin < flat.dim(0);) {
      const int64_t count = std::min(flat.dim(0) - begin, kRunLength - next_);
      const View part = flat.Rows(begin, count);
      if (is_host_memory) {
        std::memcpy(part.raw(), values.data() + next_, part.size_bytes());
      } else {
        device_.CopyToDevice(part, values.data() + next_);
      }
      begin += count;
      next_ = (next_ + count) % kRunLength;
    }
    next_ = (next_ + 1) % kRunLength;
  }

 private:
  // Kept until the end: copies may still read them.
  const std::vector<BFloat16>& Scaled(float mean, float deviation) {
    std::vector<BFloat16>& values = scaled_[{mean, deviation}];
    if (values.empty()) {
      values.reserve(run_.size());
      for (const float value : run_) values.push_back(ToBFloat16(mean + deviation * value));
    }
    return values;
  }

  Device& device_;
  const std::vector<float> run_;
  std::map<std::pair<float, float>, std::vector<BFloat16>> scaled_;
  int64_t next_ = 0;
};

}  // namespace

CheckpointSummary RandomWeightsSummary(const ModelConfig& config) {
  CheckpointSummary summary;
  const std::vector<int64_t> bytes = MeasurePools(config);
  summary.dense_bytes = bytes.front();
  for (size_t i = 1; i < bytes.size(); ++i) summary.expert_bytes += bytes[i];
  summary.one_expert_bytes = ExpertLayout(config, DType::kBF16).size_bytes();
  summary.file_bytes = summary.dense_bytes + summary.expert_bytes;
  return summary;
}

absl::StatusOr<Weights> RandomWeights(const ModelConfig& config, Device& device, ExpertPlace experts) {
  CADRE_CHECK(experts != ExpertPlace::kCheckpoint);
  Weights weights;
  weights.expert_dtype = DType::kBF16;
  std::vector<ArenaLayout> pools;
  for (const int64_t bytes : MeasurePools(config)) {
    const bool is_host_memory = experts == ExpertPlace::kHost && !pools.empty();
    const auto size_bytes = static_cast<size_t>(bytes);
    CADRE_ASSIGN_OR_RETURN(DeviceBuffer buffer,
                           is_host_memory ? device.AllocateMapped(size_bytes) : device.Allocate(size_bytes));
    pools.emplace_back(buffer.data());
    weights.buffers.push_back(std::move(buffer));
  }
  Filler filler(device);
  CADRE_RETURN_IF_ERROR(VisitAll(config, &weights, [&](const WeightSlot& slot) {
    const View view = pools[PoolOf(slot)].Take(DType::kBF16, slot.shape);
    *slot.view = view;
    filler.Fill(slot, view, experts == ExpertPlace::kHost && PoolOf(slot) > 0);
    return absl::OkStatus();
  }));
  if (config.tie_word_embeddings) weights.head = weights.embedding;
  CADRE_RETURN_IF_ERROR(device.Synchronize());
  return weights;
}

}  // namespace cadre
