#include "kernels/cuda/cuda_ops.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/op_checks.h"

namespace cadre {
namespace {

constexpr size_t kScratchAlignment = 256;
constexpr int64_t kMaxSharedBytes = 227 << 10;  // of a block, on Hopper
// Layers of any model, several times over: more are experts that come and go, and are sent anew.
constexpr size_t kMaxTables = 4096;

size_t RoundUp(size_t bytes) { return (bytes + kScratchAlignment - 1) / kScratchAlignment * kScratchAlignment; }

// What the kernels cannot do, found before the first step. Attention by FMA keeps the queries of one kv head in shared
// memory: all heads of the model at most.
absl::Status CheckLimits(const OpsLimits& limits) {
  const auto check = [](const char* what, int64_t value, int64_t limit) {
    if (value <= limit) return absl::OkStatus();
    return absl::UnimplementedError(
        absl::StrCat("the GPU kernels do not support this model: ", what, " ", value, ", limit ", limit));
  };
  if (absl::Status status = check("a head dimension of", limits.head_dim, cuda::kMaxAttentionHeadDim); !status.ok()) {
    return status;
  }
  const auto shared_bytes = static_cast<int64_t>(
      std::max({cuda::GroupByExpertSharedBytes(limits.num_experts),
                cuda::RouteTopKSharedBytes(limits.num_experts, /*num_groups=*/limits.num_experts),
                cuda::LimitCapacitySharedBytes(limits.num_experts, /*num_groups=*/limits.num_experts)}));
  if (absl::Status status = check("a router that takes bytes of shared memory:", shared_bytes, kMaxSharedBytes);
      !status.ok()) {
    return status;
  }
  return check("attention heads of one layer that take bytes of shared memory:",
               limits.num_heads * limits.head_dim * static_cast<int64_t>(sizeof(float)), kMaxSharedBytes);
}

bool Equal(const std::vector<cuda::ExpertPointers>& a, const std::vector<cuda::ExpertPointers>& b) {
  return std::ranges::equal(a, b, [](const cuda::ExpertPointers& x, const cuda::ExpertPointers& y) {
    return x.gate == y.gate && x.up == y.up && x.down == y.down;
  });
}

}  // namespace

CudaOps::ScratchSizes CudaOps::PlanScratch(const OpsLimits& limits) {
  const int64_t num_assignments = limits.max_tokens * std::max<int64_t>(1, limits.top_k);
  const int64_t max_inputs = std::max(limits.max_linear_inputs, limits.hidden_size);
  return {.rounded = RoundUp(static_cast<size_t>(limits.max_tokens * max_inputs) * sizeof(BFloat16)),
          .attention = RoundUp(cuda::AttentionScratchBytes(limits)),
          .hidden = RoundUp(static_cast<size_t>(num_assignments * limits.max_ffn_size) * sizeof(float)),
          .tiles = RoundUp(cuda::ExpertFfnTileBytes(num_assignments, limits.num_experts)),
          .capacity = RoundUp(cuda::LimitCapacityScratchBytes(num_assignments))};
}

size_t CudaOps::ScratchBytes(const OpsLimits& limits) const { return PlanScratch(limits).total(); }

absl::Status CudaOps::Reserve(const OpsLimits& limits) {
  if (absl::Status status = CheckLimits(limits); !status.ok()) return status;
  sizes_ = PlanScratch(limits);
  absl::StatusOr<DeviceBuffer> scratch = host_.Allocate(sizes_.total());
  if (!scratch.ok()) return scratch.status();
  scratch_ = *std::move(scratch);
  limits_ = limits;
  return absl::OkStatus();
}

cuda::FfnScratch CudaOps::ffn_scratch() const {
  std::byte* const hidden = scratch_.data() + sizes_.rounded + sizes_.attention;
  return {.rounded = rounded(), .hidden = reinterpret_cast<float*>(hidden), .tiles = hidden + sizes_.hidden};
}

void CudaOps::Order(cudaError_t error, const char* verb) {
  if (error != cudaSuccess) host_.Note(cuda::ToStatus(error, verb));
  host_.AfterVerb();
}

void CudaOps::GatherRows(View out, ConstView table, ConstView rows) {
  CADRE_CHECK(out.shape() == Shape({rows.dim(0), table.dim(1)}));
  Order(cuda::LaunchGatherRows(host_.stream(), out, table, rows), "GatherRows");
}

void CudaOps::RmsNorm(View out, ConstView x, ConstView weight, float epsilon) {
  CADRE_CHECK(out.shape() == x.shape());
  CADRE_CHECK(weight.shape() == Shape({weight.dim(0)}));
  CADRE_CHECK_EQ(x.dim(x.shape().rank() - 1), weight.dim(0));
  if (x.num_elements() == 0) return;
  Order(cuda::LaunchRmsNorm(host_.stream(), out, x, weight, epsilon), "RmsNorm");
}

void CudaOps::Linear(View out, ConstView x, ConstView weight, ConstView bias, bool accumulate) {
  const int64_t n = weight.dim(0);
  CADRE_CHECK(out.shape() == Shape({x.dim(0), n}));
  CADRE_CHECK_EQ(weight.dim(1), x.dim(1));
  CADRE_CHECK(can_multiply(weight.dtype()));
  CADRE_CHECK(bias.empty() || bias.shape() == Shape({n}));
  CADRE_CHECK_LE(x.dim(0), limits_.max_tokens);
  CADRE_CHECK_LE(x.dim(1), limits_.max_linear_inputs);
  // By the weights alone: the two ways add in different orders.
  if (cuda::CanUseTensorCores(weight.dtype(), weight.dim(1))) {
    return Order(cuda::LaunchLinearMma(host_.stream(), out, x, weight, bias, accumulate, rounded()), "Linear");
  }
  Order(cuda::LaunchLinear(host_.stream(), out, x, weight, bias, accumulate), "Linear");
}

void CudaOps::Clamp(View x, float limit) {
  CADRE_CHECK_GE(limit, 0.0f);
  Order(cuda::LaunchClamp(host_.stream(), x, limit), "Clamp");
}

void CudaOps::RopeTable(View cos, View sin, ConstView positions, ConstView inverse_frequencies, float amplitude) {
  CADRE_CHECK(cos.shape() == Shape({positions.dim(0), inverse_frequencies.dim(0)}));
  CADRE_CHECK(sin.shape() == cos.shape());
  Order(cuda::LaunchRopeTable(host_.stream(), cos, sin, positions, inverse_frequencies, amplitude), "RopeTable");
}

void CudaOps::Rope(View x, ConstView cos, ConstView sin) {
  CADRE_CHECK_LE(2 * cos.dim(1), x.dim(2));
  CADRE_CHECK(cos.shape() == Shape({x.dim(0), cos.dim(1)}));
  CADRE_CHECK(sin.shape() == cos.shape());
  Order(cuda::LaunchRope(host_.stream(), x, cos, sin), "Rope");
}

void CudaOps::WriteKv(View k_cache, View v_cache, ConstView k, ConstView v, ConstView slots) {
  CADRE_CHECK(k.shape() == Shape({slots.dim(0), k_cache.dim(1), k_cache.dim(3)}));
  CADRE_CHECK(v.shape() == k.shape());
  CADRE_CHECK(v_cache.shape() == k_cache.shape());
  CADRE_CHECK(v_cache.dtype() == k_cache.dtype());
  Order(cuda::LaunchWriteKv(host_.stream(), k_cache, v_cache, k, v, slots), "WriteKv");
}

void CudaOps::PagedAttention(View out, ConstView q, const PagedKv& kv, const AttentionOptions& options) {
  const int64_t num_rows = q.dim(0);
  CADRE_CHECK(out.shape() == q.shape());
  CADRE_CHECK_EQ(kv.k_cache.dim(3), q.dim(2));
  CADRE_CHECK(kv.v_cache.shape() == kv.k_cache.shape());
  CADRE_CHECK(kv.v_cache.dtype() == kv.k_cache.dtype());
  CADRE_CHECK(kv.row_sequence.shape() == Shape({num_rows}));
  CADRE_CHECK(kv.positions.shape() == Shape({num_rows}));
  CADRE_CHECK_EQ(q.dim(1) % kv.k_cache.dim(1), int64_t{0});
  CADRE_CHECK_LE(num_rows, limits_.max_tokens);
  CADRE_CHECK_LE(q.dim(1), limits_.num_heads);
  CADRE_CHECK_LE(q.dim(2), limits_.head_dim);
  Order(cuda::LaunchPagedAttention(host_.stream(), out, q, kv, options, limits_.max_positions,
                                   scratch_.data() + sizes_.rounded),
        "PagedAttention");
}

void CudaOps::RouteTopK(View expert_ids, View weights, View probabilities, View log_sum_exp, ConstView logits,
                        ConstView selection_bias, ConstView row_sequence, const RouterOptions& options) {
  CheckRouteTopK(expert_ids, weights, probabilities, log_sum_exp, logits, selection_bias, row_sequence, options);
  CADRE_CHECK_LE(logits.dim(1), limits_.num_experts);
  Order(cuda::LaunchRouteTopK(host_.stream(), expert_ids, weights, probabilities, log_sum_exp, logits, selection_bias,
                              row_sequence, options),
        "RouteTopK");
}

void CudaOps::AddGateNoise(View logits, ConstView seeds, ConstView row_sequence, ConstView positions, int64_t layer,
                           float deviation) {
  CheckAddGateNoise(logits, seeds, row_sequence, positions, layer);
  Order(cuda::LaunchAddGateNoise(host_.stream(), logits, seeds, row_sequence, positions, layer, deviation),
        "AddGateNoise");
}

void CudaOps::HashLogits(View logits, ConstView token_ids, int64_t layer, uint64_t seed) {
  CheckHashLogits(logits, token_ids, layer);
  Order(cuda::LaunchHashLogits(host_.stream(), logits, token_ids, layer, seed), "HashLogits");
}

void CudaOps::ChooseByExpert(View expert_ids, View weights, ConstView probabilities, ConstView row_sequence,
                             ConstView positions, ConstView prompt_lengths, const ExpertChoiceOptions& choice,
                             const RouterOptions& options) {
  CheckChooseByExpert(expert_ids, weights, probabilities, row_sequence, positions, prompt_lengths, choice, options);
  Order(cuda::LaunchChooseByExpert(host_.stream(), expert_ids, weights, probabilities, row_sequence, positions,
                                   prompt_lengths, choice, options),
        "ChooseByExpert");
}

void CudaOps::ReplayChoices(View expert_ids, View weights, ConstView logits, ConstView probabilities,
                            const RecordedChoices& recorded, const RouterOptions& options) {
  CheckReplayChoices(expert_ids, weights, logits, probabilities, recorded, options);
  CADRE_CHECK_LE(logits.dim(1), limits_.num_experts);
  Order(cuda::LaunchReplayChoices(host_.stream(), expert_ids, weights, logits, probabilities, recorded, options),
        "ReplayChoices");
}

void CudaOps::TallyRouting(const RoutingTally& tally, ConstView expert_ids, ConstView weights, ConstView probabilities,
                           ConstView log_sum_exp, ConstView row_sequence) {
  CheckTallyRouting(tally, expert_ids, weights, probabilities, log_sum_exp, row_sequence);
  Order(cuda::LaunchTallyRouting(host_.stream(), tally, expert_ids, weights, probabilities, log_sum_exp, row_sequence),
        "TallyRouting");
}

void CudaOps::LimitCapacity(const LimitedRows& rows, View taken, const CapacityTally& tally,
                            const CapacityInputs& inputs, ConstView logits, ConstView probabilities,
                            ConstView selection_bias, const RouterOptions& options) {
  CheckLimitCapacity(rows, taken, tally, inputs, logits, probabilities, selection_bias, options);
  CADRE_CHECK_LE(logits.dim(0), limits_.max_tokens);
  CADRE_CHECK_LE(logits.dim(1), limits_.num_experts);
  CADRE_CHECK_LE(options.top_k, limits_.top_k);
  std::byte* const scratch = scratch_.data() + sizes_.total() - sizes_.capacity;
  Order(cuda::LaunchLimitCapacity(host_.stream(), rows, taken, tally, inputs, logits, probabilities, selection_bias,
                                  options, scratch),
        "LimitCapacity");
}

void CudaOps::GroupByExpert(View order, View offsets, ConstView expert_ids) {
  CADRE_CHECK(order.shape() == Shape({expert_ids.num_elements()}));
  CADRE_CHECK_LE(offsets.dim(0) - 1, limits_.num_experts);
  Order(cuda::LaunchGroupByExpert(host_.stream(), order, offsets, expert_ids), "GroupByExpert");
}

const CudaOps::SentTable* CudaOps::Send(std::span<const MlpWeights> experts) {
  std::vector<cuda::ExpertPointers> pointers;
  pointers.reserve(experts.size());
  for (const MlpWeights& expert : experts) {
    pointers.push_back({expert.gate.raw(), expert.up.raw(), expert.down.raw()});
  }
  if (tables_.size() >= kMaxTables && !tables_.contains(experts.data())) tables_.clear();
  SentTable& table = tables_[experts.data()];
  if (Equal(table.experts, pointers)) return &table;
  const size_t size_bytes = pointers.size() * sizeof(cuda::ExpertPointers);
  if (table.on_device.size_bytes() < size_bytes) {
    absl::StatusOr<DeviceBuffer> buffer = host_.Allocate(size_bytes);
    if (!buffer.ok()) {
      host_.Note(buffer.status());
      return nullptr;
    }
    table.on_device = *std::move(buffer);
  }
  host_.CopyToDevice(table.on_device.view(DType::kI32, {static_cast<int64_t>(size_bytes / sizeof(int32_t))}),
                     pointers.data());
  table.experts = std::move(pointers);
  return &table;
}

void CudaOps::ExpertFfn(View y, ConstView x, ConstView order, ConstView offsets, std::span<const MlpWeights> experts) {
  const int64_t num_rows = x.dim(0);
  const int64_t num_assignments = order.dim(0);
  CADRE_CHECK(y.shape() == Shape({num_assignments, x.dim(1)}));
  CADRE_CHECK(offsets.shape() == Shape({static_cast<int64_t>(experts.size()) + 1}));
  CADRE_CHECK_LE(num_rows, limits_.max_tokens);
  CADRE_CHECK_LE(x.dim(1), limits_.hidden_size);
  CADRE_CHECK_LE(static_cast<int64_t>(experts.size()), limits_.num_experts);
  if (num_rows == 0) return;
  CADRE_CHECK_EQ(num_assignments % num_rows, int64_t{0});
  CADRE_CHECK_LE(num_assignments / num_rows, limits_.top_k);
  const MlpWeights* present = nullptr;
  for (const MlpWeights& expert : experts) {
    if (expert.gate.empty()) continue;
    CheckMlp(*this, expert, x.dim(1));
    if (present == nullptr) present = &expert;
    CADRE_CHECK(expert.gate.shape() == present->gate.shape());
    CADRE_CHECK(expert.gate.dtype() == present->gate.dtype());
  }
  if (present == nullptr) return;
  CADRE_CHECK_LE(present->gate.dim(0), limits_.max_ffn_size);
  const SentTable* const sent = Send(experts);
  if (sent == nullptr) return;
  const cuda::ExpertTable table = {.experts = reinterpret_cast<const cuda::ExpertPointers*>(sent->on_device.data()),
                                   .dtype = present->gate.dtype(),
                                   .ffn_size = present->gate.dim(0)};
  Order(cuda::LaunchExpertFfn(host_.stream(), y, x, order, offsets, table, ffn_scratch()), "ExpertFfn");
}

void CudaOps::Combine(View x, ConstView y, ConstView weights) {
  CADRE_CHECK(weights.shape() == Shape({x.dim(0), weights.dim(1)}));
  CADRE_CHECK(y.shape() == Shape({x.dim(0) * weights.dim(1), x.dim(1)}));
  Order(cuda::LaunchCombine(host_.stream(), x, y, weights), "Combine");
}

void CudaOps::GatedMlp(View out, ConstView x, const MlpWeights& weights) {
  CADRE_CHECK(out.shape() == x.shape());
  CheckMlp(*this, weights, x.dim(1));
  CADRE_CHECK_LE(x.dim(0), limits_.max_tokens);
  CADRE_CHECK_LE(x.dim(1), limits_.hidden_size);
  CADRE_CHECK_LE(weights.gate.dim(0), limits_.max_ffn_size);
  Order(cuda::LaunchGatedMlp(host_.stream(), out, x, weights, ffn_scratch()), "GatedMlp");
}

void CudaOps::AddGated(View x, ConstView y, ConstView gate_logits) {
  CADRE_CHECK(y.shape() == x.shape());
  CADRE_CHECK(gate_logits.empty() || gate_logits.shape() == Shape({x.dim(0), 1}));
  Order(cuda::LaunchAddGated(host_.stream(), x, y, gate_logits), "AddGated");
}

void CudaOps::Sample(const SampleOutputs& out, View logits, ConstView rows, View extras) {
  const int64_t num_rows = logits.dim(0);
  CADRE_CHECK(can_sample(logits.dim(1)));
  CADRE_CHECK(rows.shape() == Shape({num_rows, kSampleRowWords}));
  CADRE_CHECK(out.tokens.shape() == Shape({num_rows}));
  CADRE_CHECK(out.ranks.shape() == Shape({num_rows}));
  CADRE_CHECK(out.logprobs.shape() == Shape({num_rows, 1 + kMaxAlternatives}));
  CADRE_CHECK(out.alternatives.shape() == Shape({num_rows, kMaxAlternatives}));
  Order(cuda::LaunchSample(host_.stream(), out, logits, rows, extras), "Sample");
}

void CudaOps::FillSampledTokens(View token_ids, ConstView sampled) {
  CADRE_CHECK(token_ids.dtype() == DType::kI32 && sampled.dtype() == DType::kI32);
  CADRE_CHECK_EQ(token_ids.shape().rank(), 1);
  CADRE_CHECK_EQ(sampled.shape().rank(), 1);
  if (token_ids.dim(0) == 0) return;
  Order(cuda::LaunchFillSampledTokens(host_.stream(), token_ids, sampled), "FillSampledTokens");
}

}  // namespace cadre
