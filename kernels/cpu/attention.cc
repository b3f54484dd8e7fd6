// WriteKv and PagedAttention over [num_blocks, G, B, d] caches.
#include <algorithm>
#include <cstdint>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu_ops.h"

namespace cadre {

void CpuOps::WriteKv(View k_cache, View v_cache, ConstView k, ConstView v, ConstView slots) {
  const int64_t num_rows = slots.dim(0);
  const int64_t num_kv_heads = k_cache.dim(1);
  const int64_t block_size = k_cache.dim(2);
  const int64_t d = k_cache.dim(3);
  CADRE_CHECK(k.shape() == Shape({num_rows, num_kv_heads, d}));
  CADRE_CHECK(v.shape() == k.shape());
  CADRE_CHECK(v_cache.shape() == k_cache.shape());
  CADRE_CHECK(v_cache.dtype() == k_cache.dtype());
  const int32_t* const slot_ids = slots.data<int32_t>();
  for (int64_t t = 0; t < num_rows; ++t) {
    if (slot_ids[t] == kPadding) continue;
    CADRE_CHECK_GE(slot_ids[t], 0);
    CADRE_CHECK_LT(int64_t{slot_ids[t]}, k_cache.dim(0) * block_size);
  }
  DispatchFloat(k_cache.dtype(), [&]<typename T>() {
    const auto store_row = [&](View cache, ConstView rows, int64_t t) {
      const int64_t block = slot_ids[t] / block_size;
      const int64_t offset = slot_ids[t] % block_size;
      const float* from = rows.data<float>() + t * num_kv_heads * d;
      for (int64_t g = 0; g < num_kv_heads; ++g, from += d) {
        T* const to = cache.data<T>() + ((block * num_kv_heads + g) * block_size + offset) * d;
        for (int64_t i = 0; i < d; ++i) to[i] = FromFloat<T>(from[i]);
      }
    };
    ForRows(num_rows, 4 * num_kv_heads * d, [&](int64_t t) {
      if (slot_ids[t] == kPadding) return;
      store_row(k_cache, k, t);
      store_row(v_cache, v, t);
    });
  });
}

void CpuOps::PagedAttention(View out, ConstView q, const PagedKv& kv, const AttentionOptions& options) {
  const int64_t num_rows = q.dim(0);
  const int64_t num_heads = q.dim(1);
  const int64_t d = q.dim(2);
  const int64_t num_kv_heads = kv.k_cache.dim(1);
  const int64_t block_size = kv.k_cache.dim(2);
  const int64_t max_blocks = kv.block_tables.dim(1);
  CADRE_CHECK(out.shape() == q.shape());
  CADRE_CHECK_EQ(kv.k_cache.dim(3), d);
  CADRE_CHECK(kv.v_cache.shape() == kv.k_cache.shape());
  CADRE_CHECK(kv.v_cache.dtype() == kv.k_cache.dtype());
  CADRE_CHECK(kv.row_sequence.shape() == Shape({num_rows}));
  CADRE_CHECK(kv.positions.shape() == Shape({num_rows}));
  CADRE_CHECK_EQ(num_heads % num_kv_heads, int64_t{0});
  CADRE_CHECK_LE(num_heads, limits_.num_heads);
  CADRE_CHECK_LE(d, limits_.head_dim);
  const int32_t* const sequences = kv.row_sequence.data<int32_t>();
  const int32_t* const positions = kv.positions.data<int32_t>();
  const int32_t* const tables = kv.block_tables.data<int32_t>();
  const int64_t max_positions = std::min(limits_.max_positions, max_blocks * block_size);
  for (int64_t t = 0; t < num_rows; ++t) {
    if (sequences[t] == kPadding) continue;
    CADRE_CHECK_GE(sequences[t], 0);
    CADRE_CHECK_LT(int64_t{sequences[t]}, kv.block_tables.dim(0));
    CADRE_CHECK_GE(positions[t], 0);
    CADRE_CHECK_LT(int64_t{positions[t]}, max_positions);
  }

  // Neighboring rows of one sequence share a pass over its keys and values.
  const int64_t heads_per_kv = num_heads / num_kv_heads;
  const int64_t max_run = std::max<int64_t>(1, kAttentionQueries / heads_per_kv);
  const int64_t element_bytes = static_cast<int64_t>(DTypeBytes(kv.k_cache.dtype()));
  runs_.clear();
  for (int64_t t = 0; t < num_rows; ++t) {
    const bool extends = !runs_.empty() && t - runs_.back() < max_run && sequences[t] == sequences[t - 1];
    if (!extends) runs_.push_back(t);
  }
  const int64_t num_runs = static_cast<int64_t>(runs_.size());
  pool_.ParallelFor(num_runs * num_kv_heads, [&](int64_t index, int thread) {
    const int64_t run = index / num_kv_heads;
    const int64_t g = index % num_kv_heads;
    const int64_t first = runs_[static_cast<size_t>(run)];
    const int64_t end = run + 1 < num_runs ? runs_[static_cast<size_t>(run + 1)] : num_rows;
    const int64_t q_offset = first * num_heads * d + g * heads_per_kv * d;
    if (sequences[first] == kPadding) {
      for (int64_t t = first; t < end; ++t) {
        std::fill_n(out.data<float>() + q_offset + (t - first) * num_heads * d, heads_per_kv * d, 0.0f);
      }
      return;
    }
    const AttentionTask task = {
        .out = out.data<float>() + q_offset,
        .q = q.data<float>() + q_offset,
        .positions = positions + first,
        .num_rows = end - first,
        .num_heads = heads_per_kv,
        .head_dim = d,
        .row_stride = num_heads * d,
        .k = kv.k_cache.raw() + g * block_size * d * element_bytes,
        .v = kv.v_cache.raw() + g * block_size * d * element_bytes,
        .kv_dtype = kv.k_cache.dtype(),
        .block_table = tables + sequences[first] * max_blocks,
        .block_size = block_size,
        .block_stride = num_kv_heads * block_size * d,
        .scale = options.scale,
        .sliding_window = options.sliding_window,
    };
    kernels_.attention(task, reinterpret_cast<float*>(ThreadScratch(thread)));
  });
}

}  // namespace cadre
