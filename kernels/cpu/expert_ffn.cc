// Gated MLPs: the experts chosen for each row, and shared or dense ones.
//
// Three parallel passes: pack the rows of each expert side by side; panels of gate and up together, SiLU and product
// while they are in the nearest caches, packed at once as the input of the third; panels of down. A task is one panel
// of weight rows of one expert against all its rows, or in the second pass as many as share the scales of their packed
// columns: so weights are read from memory once whatever the skew.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/op_checks.h"

namespace cadre {

void CpuOps::FillHidden(const MatmulKernels& matmul, const RowGroup& group, int64_t first_f) {
  const MlpWeights& weights = group.weights;
  const int64_t f = weights.gate.dim(0);
  const int64_t d = weights.gate.dim(1);
  const int64_t num_columns = std::min(matmul.pack_columns, f - first_f);
  const std::byte* input = packed_inputs_ + group.first_packed * matmul.packed_row_bytes(d);
  std::byte* hidden = packed_hidden_ + group.first_packed * matmul.packed_row_bytes(f);
  alignas(64) float gate[kChunkRows * kPanelRows];
  alignas(64) float up[kChunkRows * kPanelRows];
  alignas(64) float wide[kChunkRows * kQuantizedColumns];
  // What is packed as one panel can stay where it is.
  float* const products = matmul.pack_columns == kPanelRows ? gate : wide;
  for (int64_t first_row = 0; first_row < group.num_rows; first_row += kChunkRows) {
    const int64_t chunk_rows = std::min(kChunkRows, group.num_rows - first_row);
    for (int64_t panel = 0; panel < num_columns; panel += kPanelRows) {
      const int64_t panel_rows = std::min(kPanelRows, num_columns - panel);
      const int64_t weight_offset = (first_f + panel) * RowBytes(weights.gate.dtype(), d);
      matmul.dots(gate, weights.gate.raw() + weight_offset, panel_rows, input, first_row, chunk_rows, d);
      matmul.dots(up, weights.up.raw() + weight_offset, panel_rows, input, first_row, chunk_rows, d);
      for (int64_t r = 0; r < chunk_rows; ++r) {
        kernels_.silu_mul(products + r * matmul.pack_columns + panel, gate + r * kPanelRows, up + r * kPanelRows,
                          panel_rows);
      }
    }
    const float* rows[kChunkRows];
    for (int64_t r = 0; r < chunk_rows; ++r) rows[r] = products + r * matmul.pack_columns;
    matmul.pack(hidden, f, first_row, chunk_rows, first_f, num_columns, rows);
  }
}

void CpuOps::RunMlp(View out, ConstView x, std::span<const RowGroup> groups, const int32_t* order, int64_t divisor) {
  const int64_t d = x.dim(1);
  const int64_t f = groups.front().weights.gate.dim(0);
  const DType dtype = groups.front().weights.gate.dtype();
  const MatmulKernels& matmul = kernels_.matmul(dtype);
  const int64_t hidden_row_bytes = matmul.packed_row_bytes(f);

  PackGroups(packed_inputs_, matmul, x, groups, order, divisor);

  int64_t most_rows = 0;
  for (const RowGroup& group : groups) most_rows = std::max(most_rows, group.num_rows);
  const int64_t run_panels = PanelsOfRun(most_rows);

  const int64_t hidden_tasks = CeilDiv(f, matmul.pack_columns);
  const auto fill_hidden = [&](int64_t task, int /*thread*/) {
    FillHidden(matmul, groups[static_cast<size_t>(task / hidden_tasks)], task % hidden_tasks * matmul.pack_columns);
  };
  pool_.ParallelFor(static_cast<int64_t>(groups.size()) * hidden_tasks, fill_hidden,
                    CeilDiv(run_panels * kPanelRows, matmul.pack_columns));

  const int64_t out_panels = CeilDiv(d, kPanelRows);
  float* const out_data = out.data<float>();
  const auto multiply_panel = [&](int64_t task, int /*thread*/) {
    const RowGroup& group = groups[static_cast<size_t>(task / out_panels)];
    const int64_t first_d = task % out_panels * kPanelRows;
    const int64_t panel_rows = std::min(kPanelRows, d - first_d);
    const std::byte* weight = group.weights.down.raw() + first_d * RowBytes(dtype, f);
    const std::byte* hidden = packed_hidden_ + group.first_packed * hidden_row_bytes;
    alignas(64) float dots[kChunkRows * kPanelRows];
    for (int64_t first_row = 0; first_row < group.num_rows; first_row += kChunkRows) {
      const int64_t chunk_rows = std::min(kChunkRows, group.num_rows - first_row);
      matmul.dots(dots, weight, panel_rows, hidden, first_row, chunk_rows, f);
      for (int64_t r = 0; r < chunk_rows; ++r) {
        const int64_t row = group.first + first_row + r;
        const int64_t out_row = order == nullptr ? row : order[row];
        std::memcpy(out_data + out_row * d + first_d, dots + r * kPanelRows,
                    static_cast<size_t>(panel_rows) * sizeof(float));
      }
    }
  };
  pool_.ParallelFor(static_cast<int64_t>(groups.size()) * out_panels, multiply_panel, run_panels);
}

void CpuOps::ExpertFfn(View y, ConstView x, ConstView order, ConstView offsets, std::span<const MlpWeights> experts) {
  const int64_t num_rows = x.dim(0);
  const int64_t d = x.dim(1);
  const int64_t num_assignments = order.dim(0);
  CADRE_CHECK(y.shape() == Shape({num_assignments, d}));
  CADRE_CHECK(offsets.shape() == Shape({static_cast<int64_t>(experts.size()) + 1}));
  CADRE_CHECK_LE(num_rows, limits_.max_tokens);
  CADRE_CHECK_LE(d, limits_.hidden_size);
  CADRE_CHECK_LE(static_cast<int64_t>(experts.size()), limits_.num_experts);
  if (num_rows == 0) return;
  CADRE_CHECK_EQ(num_assignments % num_rows, int64_t{0});
  const int64_t top_k = num_assignments / num_rows;
  CADRE_CHECK_LE(top_k, limits_.top_k);

  const int32_t* const begins = offsets.data<int32_t>();
  CADRE_CHECK_EQ(begins[0], 0);
  CADRE_CHECK_LE(int64_t{begins[experts.size()]}, num_assignments);
  groups_.clear();
  int64_t first_packed = 0;
  for (size_t e = 0; e < experts.size(); ++e) {
    const int64_t count = begins[e + 1] - begins[e];
    CADRE_CHECK_GE(count, int64_t{0});
    if (count == 0 || experts[e].gate.empty()) continue;
    CheckMlp(*this, experts[e], d);
    groups_.push_back({begins[e], count, first_packed, experts[e]});
    CADRE_CHECK(experts[e].gate.shape() == groups_.front().weights.gate.shape());
    CADRE_CHECK(experts[e].gate.dtype() == groups_.front().weights.gate.dtype());
    first_packed += CeilDiv(count, kPackRows) * kPackRows;
  }
  if (groups_.empty()) return;
  CADRE_CHECK_LE(groups_.front().weights.gate.dim(0), limits_.max_ffn_size);
  RunMlp(y, x, groups_, order.data<int32_t>(), top_k);
}

void CpuOps::GatedMlp(View out, ConstView x, const MlpWeights& weights) {
  const int64_t num_rows = x.dim(0);
  const int64_t d = x.dim(1);
  CADRE_CHECK(out.shape() == x.shape());
  CheckMlp(*this, weights, d);
  CADRE_CHECK_LE(num_rows, limits_.max_tokens);
  CADRE_CHECK_LE(d, limits_.hidden_size);
  CADRE_CHECK_LE(weights.gate.dim(0), limits_.max_ffn_size);
  if (num_rows == 0) return;
  const RowGroup group = {.num_rows = num_rows, .weights = weights};
  RunMlp(out, x, std::span(&group, 1), nullptr, 1);
}

void CpuOps::Combine(View x, ConstView y, ConstView weights) {
  const int64_t num_rows = x.dim(0);
  const int64_t d = x.dim(1);
  const int64_t top_k = weights.dim(1);
  CADRE_CHECK(weights.shape() == Shape({num_rows, top_k}));
  CADRE_CHECK(y.shape() == Shape({num_rows * top_k, d}));
  float* const x_data = x.data<float>();
  const float* const y_data = y.data<float>();
  const float* const w_data = weights.data<float>();
  ForRows(num_rows, top_k * d, [&](int64_t t) {
    float* const row = x_data + t * d;
    for (int64_t j = 0; j < top_k; ++j) {
      const float w = w_data[t * top_k + j];
      if (w == 0.0f) continue;
      const float* const from = y_data + (t * top_k + j) * d;
      for (int64_t i = 0; i < d; ++i) row[i] += w * from[i];
    }
  });
}

void CpuOps::AddGated(View x, ConstView y, ConstView gate_logits) {
  const int64_t num_rows = x.dim(0);
  const int64_t d = x.dim(1);
  CADRE_CHECK(y.shape() == x.shape());
  CADRE_CHECK(gate_logits.empty() || gate_logits.shape() == Shape({num_rows, 1}));
  float* const x_data = x.data<float>();
  const float* const y_data = y.data<float>();
  const float* const gates = gate_logits.empty() ? nullptr : gate_logits.data<float>();
  ForRows(num_rows, d, [&](int64_t t) {
    const float gate = gates == nullptr ? 1.0f : 1.0f / (1.0f + std::exp(-gates[t]));
    for (int64_t i = 0; i < d; ++i) x_data[t * d + i] += gate * y_data[t * d + i];
  });
}

}  // namespace cadre
