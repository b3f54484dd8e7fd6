// The verbs of kernels/ops.h on the CPU. Each verb (or family of verbs) has a file of its own; this class holds what
// they share: the threads, the inner kernels of the instruction set, and scratch memory.
#ifndef CADRE_KERNELS_CPU_CPU_OPS_H_
#define CADRE_KERNELS_CPU_CPU_OPS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cpu/compute_pool.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace cadre {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Panels of weights that one thread should read one after the other, so that each is fetched ahead during the one
// before, where so many activation rows at most meet them. Many rows make a task long, and then nothing is gained.
constexpr int64_t PanelsOfRun(int64_t num_rows) { return num_rows <= 8 ? 16 : 1; }

// Rows of activations that meet the same weights: the whole step, or the assignments of one expert.
struct RowGroup {
  int64_t first = 0;  // index of the first row in the caller's order
  int64_t num_rows = 0;
  int64_t first_packed = 0;  // row of the packed scratch where the group begins, a multiple of kPackRows
  MlpWeights weights = {};   // of a gated MLP
};

class CpuOps final : public Ops {
 public:
  using Allocator = std::function<absl::StatusOr<DeviceBuffer>(size_t)>;

  CpuOps(const CpuKernels& kernels, int num_threads, Allocator allocate);

  int num_threads() const { return pool_.num_threads(); }

  size_t ScratchBytes(const OpsLimits& limits) const override;
  absl::Status Reserve(const OpsLimits& limits) override;
  bool can_multiply(DType dtype) const override { return IsFloat(dtype) || IsQuantized(dtype); }

  void GatherRows(View out, ConstView table, ConstView rows) override;
  void RmsNorm(View out, ConstView x, ConstView weight, float epsilon) override;
  void Linear(View out, ConstView x, ConstView weight, ConstView bias, bool accumulate) override;
  void Clamp(View x, float limit) override;
  void RopeTable(View cos, View sin, ConstView positions, ConstView inverse_frequencies, float amplitude) override;
  void Rope(View x, ConstView cos, ConstView sin) override;
  void WriteKv(View k_cache, View v_cache, ConstView k, ConstView v, ConstView slots) override;
  void PagedAttention(View out, ConstView q, const PagedKv& kv, const AttentionOptions& options) override;
  void RouteTopK(View expert_ids, View weights, View probabilities, View log_sum_exp, ConstView logits,
                 ConstView selection_bias, ConstView row_sequence, const RouterOptions& options) override;
  void AddGateNoise(View logits, ConstView seeds, ConstView row_sequence, ConstView positions, int64_t layer,
                    float deviation) override;
  void HashLogits(View logits, ConstView token_ids, int64_t layer, uint64_t seed) override;
  void ChooseByExpert(View expert_ids, View weights, ConstView probabilities, ConstView row_sequence,
                      ConstView positions, ConstView prompt_lengths, const ExpertChoiceOptions& choice,
                      const RouterOptions& options) override;
  void ReplayChoices(View expert_ids, View weights, ConstView logits, ConstView probabilities,
                     const RecordedChoices& recorded, const RouterOptions& options) override;
  void TallyRouting(const RoutingTally& tally, ConstView expert_ids, ConstView weights, ConstView probabilities,
                    ConstView log_sum_exp, ConstView row_sequence) override;
  bool can_limit_capacity() const override { return true; }
  void LimitCapacity(const LimitedRows& rows, View taken, const CapacityTally& tally, const CapacityInputs& inputs,
                     ConstView logits, ConstView probabilities, ConstView selection_bias,
                     const RouterOptions& options) override;
  void GroupByExpert(View order, View offsets, ConstView expert_ids) override;
  void ExpertFfn(View y, ConstView x, ConstView order, ConstView offsets, std::span<const MlpWeights> experts) override;
  void Combine(View x, ConstView y, ConstView weights) override;
  void GatedMlp(View out, ConstView x, const MlpWeights& weights) override;
  void AddGated(View x, ConstView y, ConstView gate_logits) override;

 private:
  // Sizes of the parts of the scratch, multiples of 64.
  struct ScratchSizes {
    size_t inputs = 0;      // packed inputs of a product
    size_t hidden = 0;      // packed inputs of a down projection
    size_t per_thread = 0;  // for one task of attention or routing
  };
  ScratchSizes PlanScratch(const OpsLimits& limits) const;
  std::byte* ThreadScratch(int thread) {
    return thread_scratch_ + static_cast<size_t>(thread) * scratch_sizes_.per_thread;
  }

  // Converts and packs the rows of `groups` for products with `matmul` weights: row i of the caller's order is row
  // order[i] / divisor of x, or row i when `order` is null.
  void PackGroups(std::byte* packed, const MatmulKernels& matmul, ConstView x, std::span<const RowGroup> groups,
                  const int32_t* order, int64_t divisor);
  // The packed hidden rows of a group, columns [first_f, first_f + matmul.pack_columns): silu(gate x) * (up x).
  void FillHidden(const MatmulKernels& matmul, const RowGroup& group, int64_t first_f);
  // Row order[i] (or i) of `out` [., D] = down(silu(gate x) * (up x)) for every row i of the groups.
  void RunMlp(View out, ConstView x, std::span<const RowGroup> groups, const int32_t* order, int64_t divisor);

  // Calls body(row, thread) for all rows, several to a task: `row_cost` is about the number of element operations in a
  // row.
  template <typename Body>
  void ForRowsOnThread(int64_t num_rows, int64_t row_cost, Body&& body) {
    // About 10 us of work: less is not worth another thread's attention.
    constexpr int64_t kTaskCost = 16384;
    const int64_t rows_per_task = std::max<int64_t>(1, kTaskCost / std::max<int64_t>(1, row_cost));
    pool_.ParallelFor(CeilDiv(num_rows, rows_per_task), [&](int64_t task, int thread) {
      const int64_t end = std::min(num_rows, (task + 1) * rows_per_task);
      for (int64_t row = task * rows_per_task; row < end; ++row) body(row, thread);
    });
  }
  // The same for bodies that need no scratch.
  template <typename Body>
  void ForRows(int64_t num_rows, int64_t row_cost, Body&& body) {
    ForRowsOnThread(num_rows, row_cost, [&](int64_t row, int /*thread*/) { body(row); });
  }

  const CpuKernels& kernels_;
  const Allocator allocate_;
  ComputePool pool_;

  // Constant after Reserve.
  OpsLimits limits_;
  ScratchSizes scratch_sizes_;
  DeviceBuffer scratch_;
  std::byte* packed_inputs_ = nullptr;
  std::byte* packed_hidden_ = nullptr;
  std::byte* thread_scratch_ = nullptr;

  // Lists made anew by each call, with their capacity from Reserve.
  std::vector<RowGroup> groups_;      // experts with work
  std::vector<int64_t> runs_;         // first rows of runs of one sequence
  std::vector<int32_t> chosen_;       // [A] experts before any assignment was moved
  std::vector<int32_t> by_weight_;    // assignments that are limited by batch
  std::vector<int32_t> batch_taken_;  // [E]
};

}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_CPU_OPS_H_
