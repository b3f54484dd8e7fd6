// Linear, and what all matrix products share: packing of activation rows.
#include <algorithm>
#include <cstdint>
#include <span>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu_ops.h"

namespace cadre {
namespace {

// Below this many elements, packing on the calling thread is faster than waking another.
constexpr int64_t kSerialPackElements = 32768;

}  // namespace

void CpuOps::PackGroups(std::byte* packed, const MatmulKernels& matmul, ConstView x, std::span<const RowGroup> groups,
                        const int32_t* order, int64_t divisor) {
  const int64_t k = x.dim(1);
  const float* const rows = x.data<float>();
  const int64_t row_bytes = matmul.packed_row_bytes(k);
  const auto pack_block = [&](int64_t block, int /*thread*/) {
    const int64_t packed_row = block * kPackRows;
    const auto next = std::upper_bound(groups.begin(), groups.end(), packed_row,
                                       [](int64_t row, const RowGroup& g) { return row < g.first_packed; });
    const RowGroup& group = *(next - 1);
    const int64_t first = packed_row - group.first_packed;
    const int64_t count = std::min(kPackRows, group.num_rows - first);
    const float* pointers[kPackRows];
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = group.first + first + i;
      pointers[i] = rows + (order == nullptr ? row : order[row] / divisor) * k;
    }
    matmul.pack(packed + group.first_packed * row_bytes, k, first, count, 0, k, pointers);
  };
  const RowGroup& last = groups.back();
  const int64_t num_blocks = last.first_packed / kPackRows + CeilDiv(last.num_rows, kPackRows);
  if ((last.first + last.num_rows - groups.front().first) * k <= kSerialPackElements) {
    for (int64_t block = 0; block < num_blocks; ++block) pack_block(block, 0);
  } else {
    pool_.ParallelFor(num_blocks, pack_block);
  }
}

void CpuOps::Linear(View out, ConstView x, ConstView weight, ConstView bias, bool accumulate) {
  const int64_t num_rows = x.dim(0);
  const int64_t k = x.dim(1);
  const int64_t n = weight.dim(0);
  CADRE_CHECK(out.shape() == Shape({num_rows, n}));
  CADRE_CHECK_EQ(weight.dim(1), k);
  CADRE_CHECK(can_multiply(weight.dtype()));
  CADRE_CHECK(bias.empty() || bias.shape() == Shape({n}));
  CADRE_CHECK_LE(num_rows, limits_.max_tokens);
  CADRE_CHECK_LE(k, limits_.max_linear_inputs);
  if (num_rows == 0) return;

  const MatmulKernels& matmul = kernels_.matmul(weight.dtype());
  const RowGroup group = {.num_rows = num_rows};
  PackGroups(packed_inputs_, matmul, x, std::span(&group, 1), nullptr, 1);

  // Few panels (a router, a small projection) are split by rows as well, so that every thread has work.
  const int64_t num_panels = CeilDiv(n, kPanelRows);
  const int64_t num_chunks = CeilDiv(num_rows, kChunkRows);
  const int64_t num_splits = num_panels >= 4 * num_threads() ? 1 : num_chunks;
  const int64_t weight_row_bytes = RowBytes(weight.dtype(), k);
  float* const out_data = out.data<float>();
  const auto multiply_panel = [&](int64_t task, int /*thread*/) {
    const int64_t first_n = task / num_splits * kPanelRows;
    const int64_t panel_rows = std::min(kPanelRows, n - first_n);
    float panel_bias[kPanelRows] = {};
    if (!bias.empty()) LoadFloats(panel_bias, bias, first_n, panel_rows);
    alignas(64) float dots[kChunkRows * kPanelRows];
    for (int64_t chunk = task % num_splits; chunk < num_chunks; chunk += num_splits) {
      const int64_t first_row = chunk * kChunkRows;
      const int64_t chunk_rows = std::min(kChunkRows, num_rows - first_row);
      matmul.dots(dots, weight.raw() + first_n * weight_row_bytes, panel_rows, packed_inputs_, first_row, chunk_rows,
                  k);
      for (int64_t r = 0; r < chunk_rows; ++r) {
        float* to = out_data + (first_row + r) * n + first_n;
        const float* from = dots + r * kPanelRows;
        for (int64_t i = 0; i < panel_rows; ++i) {
          const float value = from[i] + panel_bias[i];
          to[i] = accumulate ? to[i] + value : value;
        }
      }
    }
  };
  pool_.ParallelFor(num_panels * num_splits, multiply_panel, PanelsOfRun(num_rows));
}

}  // namespace cadre
