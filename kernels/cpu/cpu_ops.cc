#include "kernels/cpu/cpu_ops.h"

#include <utility>

#include "kernels/cpu/router_row.h"

namespace cadre {
namespace {

constexpr size_t kAlignment = 64;

size_t Aligned(int64_t bytes) { return (static_cast<size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment; }

int64_t WidestRowBytes(const CpuKernels& kernels, int64_t k) {
  return std::max({kernels.f32.packed_row_bytes(k), kernels.bf16.packed_row_bytes(k), kernels.f16.packed_row_bytes(k),
                   kernels.q8.packed_row_bytes(k), kernels.q4.packed_row_bytes(k)});
}

}  // namespace

CpuOps::CpuOps(const CpuKernels& kernels, int num_threads, Allocator allocate)
    : kernels_(kernels), allocate_(std::move(allocate)), pool_(num_threads) {}

CpuOps::ScratchSizes CpuOps::PlanScratch(const OpsLimits& limits) const {
  const auto padded = [](int64_t rows) { return CeilDiv(rows, kPackRows) * kPackRows; };
  const int64_t step_rows = padded(limits.max_tokens);
  // Each expert with work begins a group: at most one for each assignment, each padded by less than kPackRows.
  const int64_t assignments = limits.max_tokens * limits.top_k;
  const int64_t expert_rows = padded(assignments + std::min(assignments, limits.num_experts) * (kPackRows - 1));
  ScratchSizes sizes;
  sizes.inputs = Aligned(std::max(step_rows * WidestRowBytes(kernels_, limits.max_linear_inputs),
                                  std::max(step_rows, expert_rows) * WidestRowBytes(kernels_, limits.hidden_size)));
  sizes.hidden = Aligned(std::max(step_rows, expert_rows) * WidestRowBytes(kernels_, limits.max_ffn_size));
  const int64_t attention_floats = kernels_.attention_scratch(limits.head_dim, limits.num_heads, limits.max_positions);
  const int64_t router_bytes = RouterRowBytes(limits.num_experts);
  sizes.per_thread = Aligned(std::max(attention_floats * static_cast<int64_t>(sizeof(float)), router_bytes));
  return sizes;
}

size_t CpuOps::ScratchBytes(const OpsLimits& limits) const {
  const ScratchSizes sizes = PlanScratch(limits);
  return sizes.inputs + sizes.hidden + sizes.per_thread * static_cast<size_t>(num_threads());
}

absl::Status CpuOps::Reserve(const OpsLimits& limits) {
  const ScratchSizes sizes = PlanScratch(limits);
  absl::StatusOr<DeviceBuffer> scratch = allocate_(ScratchBytes(limits));
  if (!scratch.ok()) return scratch.status();
  scratch_ = *std::move(scratch);
  limits_ = limits;
  scratch_sizes_ = sizes;
  packed_inputs_ = scratch_.data();
  packed_hidden_ = packed_inputs_ + sizes.inputs;
  thread_scratch_ = packed_hidden_ + sizes.hidden;
  groups_.reserve(static_cast<size_t>(limits.num_experts));
  runs_.reserve(static_cast<size_t>(limits.max_tokens));
  chosen_.reserve(static_cast<size_t>(limits.max_tokens * limits.top_k));
  by_weight_.reserve(static_cast<size_t>(limits.max_tokens * limits.top_k));
  batch_taken_.reserve(static_cast<size_t>(limits.num_experts));
  return absl::OkStatus();
}

}  // namespace cadre
