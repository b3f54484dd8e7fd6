// Attention with AVX-512: a softmax that is carried from block to block of positions (Milakov and Gimelshein 2018).
//
// Blocks are kBlock positions that begin at multiples of kBlock of the sequence, so that the order of every sum is
// given by the positions alone. The keys of a block are converted and transposed into scratch once for all queries of
// the task: a score is then a chain of fused multiply-adds over d in each of 16 lanes, one lane per position, whatever
// the number of queries beside it. Values are added in order of position, lanes along d.
#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/avx512_math.h"
#include "kernels/cpu/cpu_kernels.h"

namespace cadre {
namespace {

// 32 positions x 128 dimensions of keys, and of values, are 16 KiB each in float32: both stay in L1.
constexpr int64_t kBlock = 32;
constexpr int kQueryTile = 8;

int64_t MaxQueries(int64_t num_heads) {
  return RoundUp(num_heads > kAttentionQueries ? num_heads : kAttentionQueries, 16);
}

// Everything one task keeps between blocks; rows are padded to whole vectors.
struct Workspace {
  Workspace(float* scratch, int64_t padded_dim, int64_t max_queries)
      : keys(scratch),
        values(keys + padded_dim * kBlock),
        sums(values + kBlock * padded_dim),
        scores(sums + max_queries * padded_dim),
        largest(scores + max_queries * kBlock),
        total(largest + max_queries) {}

  float* keys;     // [d, kBlock]
  float* values;   // [kBlock, d]
  float* sums;     // [queries, d]: sum of p v
  float* scores;   // [queries, kBlock]
  float* largest;  // [queries]: largest score so far
  float* total;    // [queries]: sum of p
};

__m512 LoadAsFloat(const std::byte* row, DType dtype, int64_t begin, int64_t count) {
  const __mmask16 lanes = FirstLanes16(count);
  if (dtype == DType::kF32) return _mm512_maskz_loadu_ps(lanes, reinterpret_cast<const float*>(row) + begin);
  const __m256i halves = _mm256_maskz_loadu_epi16(lanes, reinterpret_cast<const uint16_t*>(row) + begin);
  if (dtype == DType::kF16) return _mm512_cvtph_ps(halves);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

// rows[i] lane j becomes rows[j] lane i.
void Transpose(__m512* rows) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 4) {
    const __m512 a = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    const __m512 b = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    const __m512 c = _mm512_unpacklo_ps(rows[i + 2], rows[i + 3]);
    const __m512 d = _mm512_unpackhi_ps(rows[i + 2], rows[i + 3]);
    t[i] = _mm512_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm512_shuffle_ps(a, c, 0xEE);
    t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm512_shuffle_ps(b, d, 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    const __m512 a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88);
    const __m512 b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xDD);
    const __m512 c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88);
    const __m512 d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xDD);
    rows[i] = _mm512_shuffle_f32x4(a, c, 0x88);
    rows[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
    rows[i + 8] = _mm512_shuffle_f32x4(a, c, 0xDD);
    rows[i + 12] = _mm512_shuffle_f32x4(b, d, 0xDD);
  }
}

// Where the rows of positions [first + begin, first + end) of a block are; null for the others.
void FindRows(const std::byte** rows, const AttentionTask& task, const std::byte* cache, int64_t first, int64_t begin,
              int64_t end) {
  const int64_t element_bytes = task.kv_dtype == DType::kF32 ? 4 : 2;
  for (int64_t j = 0; j < kBlock; ++j) {
    rows[j] = nullptr;
    if (j < begin || j >= end) continue;
    const int64_t position = first + j;
    const int64_t block = task.block_table[position / task.block_size];
    const int64_t offset = position % task.block_size;
    rows[j] = cache + (block * task.block_stride + offset * task.head_dim) * element_bytes;
  }
}

void LoadKeys(float* keys, const std::byte* const* rows, DType dtype, int64_t d) {
  for (int64_t j = 0; j < kBlock; j += 16) {
    for (int64_t i = 0; i < d; i += 16) {
      __m512 tile[16];
      for (int r = 0; r < 16; ++r) {
        tile[r] = rows[j + r] == nullptr ? _mm512_setzero_ps() : LoadAsFloat(rows[j + r], dtype, i, d - i);
      }
      Transpose(tile);
      for (int r = 0; r < 16; ++r) _mm512_store_ps(keys + (i + r) * kBlock + j, tile[r]);
    }
  }
}

void LoadValues(float* values, const std::byte* const* rows, DType dtype, int64_t d) {
  const int64_t padded_dim = RoundUp(d, 16);
  for (int64_t j = 0; j < kBlock; ++j) {
    if (rows[j] == nullptr) continue;
    for (int64_t i = 0; i < d; i += 16) {
      _mm512_store_ps(values + j * padded_dim + i, LoadAsFloat(rows[j], dtype, i, d - i));
    }
  }
}

// scores[n] = keys^T q[n] for N queries.
template <int N>
void ScoreTile(float* scores, const float* const* q, const float* keys, int64_t d) {
  __m512 low[N];
  __m512 high[N];
  for (int n = 0; n < N; ++n) low[n] = high[n] = _mm512_setzero_ps();
  for (int64_t i = 0; i < d; ++i) {
    const __m512 k_low = _mm512_load_ps(keys + i * kBlock);
    const __m512 k_high = _mm512_load_ps(keys + i * kBlock + 16);
    for (int n = 0; n < N; ++n) {
      const __m512 q_i = _mm512_set1_ps(q[n][i]);
      low[n] = _mm512_fmadd_ps(q_i, k_low, low[n]);
      high[n] = _mm512_fmadd_ps(q_i, k_high, high[n]);
    }
  }
  for (int n = 0; n < N; ++n) {
    _mm512_store_ps(scores + n * kBlock, low[n]);
    _mm512_store_ps(scores + n * kBlock + 16, high[n]);
  }
}

// sums = sums * correction + sum over j in [begin, end) of p[j] values[j], for N vectors of dimensions.
template <int N>
void AddValues(float* sums, float correction, const float* p, const float* values, int64_t padded_dim, int64_t begin,
               int64_t end) {
  __m512 acc[N];
  for (int n = 0; n < N; ++n) acc[n] = _mm512_mul_ps(_mm512_load_ps(sums + n * 16), _mm512_set1_ps(correction));
  for (int64_t j = begin; j < end; ++j) {
    const __m512 p_j = _mm512_set1_ps(p[j]);
    for (int n = 0; n < N; ++n) acc[n] = _mm512_fmadd_ps(p_j, _mm512_load_ps(values + j * padded_dim + n * 16), acc[n]);
  }
  for (int n = 0; n < N; ++n) _mm512_store_ps(sums + n * 16, acc[n]);
}

void AddAllValues(float* sums, float correction, const float* p, const float* values, int64_t padded_dim, int64_t begin,
                  int64_t end) {
  int64_t i = 0;
  for (; i + 128 <= padded_dim; i += 128) {
    AddValues<8>(sums + i, correction, p, values + i, padded_dim, begin, end);
  }
  for (; i + 64 <= padded_dim; i += 64) AddValues<4>(sums + i, correction, p, values + i, padded_dim, begin, end);
  for (; i < padded_dim; i += 16) AddValues<1>(sums + i, correction, p, values + i, padded_dim, begin, end);
}

// Turns the scores of [begin, end) into p = exp(score - largest); returns exp(old largest - new largest).
float UpdateSoftmax(float* scores, float* largest, float* total, float scale, int64_t begin, int64_t end) {
  const __mmask32 visible = FirstLanes32(end) & ~FirstLanes32(begin);
  const __mmask16 visible_low = static_cast<__mmask16>(visible);
  const __mmask16 visible_high = static_cast<__mmask16>(visible >> 16);
  const __m512 low = _mm512_mul_ps(_mm512_load_ps(scores), _mm512_set1_ps(scale));
  const __m512 high = _mm512_mul_ps(_mm512_load_ps(scores + 16), _mm512_set1_ps(scale));
  const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
  const __m512 both =
      _mm512_max_ps(_mm512_mask_mov_ps(lowest, visible_low, low), _mm512_mask_mov_ps(lowest, visible_high, high));
  const float block_largest = _mm512_reduce_max_ps(both);
  const float new_largest = block_largest > *largest ? block_largest : *largest;
  const __m512 shift = _mm512_set1_ps(new_largest);
  const __m512 p_low = _mm512_maskz_mov_ps(visible_low, Exp(_mm512_sub_ps(low, shift)));
  const __m512 p_high = _mm512_maskz_mov_ps(visible_high, Exp(_mm512_sub_ps(high, shift)));
  _mm512_store_ps(scores, p_low);
  _mm512_store_ps(scores + 16, p_high);
  const float correction = _mm512_cvtss_f32(Exp(_mm512_set1_ps(*largest - new_largest)));
  const __m512 zero = _mm512_setzero_ps();
  *total = *total * correction + _mm_cvtss_f32(SumLanes(_mm512_add_ps(p_low, p_high), zero, zero, zero));
  *largest = new_largest;
  return correction;
}

// Positions visible to a row, as [begin, end).
struct Range {
  int64_t begin;
  int64_t end;
};

Range Visible(const AttentionTask& task, int64_t row) {
  const int64_t end = int64_t{task.positions[row]} + 1;
  const int64_t window_begin = task.sliding_window > 0 ? end - task.sliding_window : 0;
  return {window_begin > 0 ? window_begin : 0, end};
}

// The part of `range` inside the block that begins at `first`, relative to it; empty ranges have end <= begin.
Range Inside(Range range, int64_t first) {
  return {range.begin > first ? range.begin - first : 0, range.end - first < kBlock ? range.end - first : kBlock};
}

void AttendBlock(const AttentionTask& task, const Workspace& work, int64_t first) {
  const int64_t num_queries = task.num_rows * task.num_heads;
  const int64_t padded_dim = RoundUp(task.head_dim, 16);
  for (int64_t tile = 0; tile < num_queries; tile += kQueryTile) {
    const int64_t tile_size = num_queries - tile < kQueryTile ? num_queries - tile : kQueryTile;
    const float* q[kQueryTile];
    for (int64_t n = 0; n < tile_size; ++n) {
      q[n] = task.q + (tile + n) / task.num_heads * task.row_stride + (tile + n) % task.num_heads * task.head_dim;
    }
    int64_t n = 0;
    if (tile_size == kQueryTile) {
      ScoreTile<kQueryTile>(work.scores + tile * kBlock, q, work.keys, task.head_dim);
      n = kQueryTile;
    }
    for (; n + 2 <= tile_size; n += 2) {
      ScoreTile<2>(work.scores + (tile + n) * kBlock, q + n, work.keys, task.head_dim);
    }
    if (n < tile_size) ScoreTile<1>(work.scores + (tile + n) * kBlock, q + n, work.keys, task.head_dim);
  }
  for (int64_t n = 0; n < num_queries; ++n) {
    const Range range = Inside(Visible(task, n / task.num_heads), first);
    if (range.end <= range.begin) continue;
    float* const scores = work.scores + n * kBlock;
    const float correction =
        UpdateSoftmax(scores, work.largest + n, work.total + n, task.scale, range.begin, range.end);
    AddAllValues(work.sums + n * padded_dim, correction, scores, work.values, padded_dim, range.begin, range.end);
  }
}

void StoreResults(const AttentionTask& task, const Workspace& work) {
  const int64_t padded_dim = RoundUp(task.head_dim, 16);
  for (int64_t n = 0; n < task.num_rows * task.num_heads; ++n) {
    float* const out = task.out + n / task.num_heads * task.row_stride + n % task.num_heads * task.head_dim;
    const __m512 total = _mm512_set1_ps(work.total[n]);
    for (int64_t i = 0; i < task.head_dim; i += 16) {
      const __m512 sums = _mm512_load_ps(work.sums + n * padded_dim + i);
      _mm512_mask_storeu_ps(out + i, FirstLanes16(task.head_dim - i), _mm512_div_ps(sums, total));
    }
  }
}

}  // namespace

int64_t AttentionScratchAvx512(int64_t head_dim, int64_t num_heads, int64_t /*max_positions*/) {
  const int64_t padded_dim = RoundUp(head_dim, 16);
  return 2 * kBlock * padded_dim + MaxQueries(num_heads) * (padded_dim + kBlock + 2);
}

void AttentionAvx512(const AttentionTask& task, float* scratch) {
  const int64_t padded_dim = RoundUp(task.head_dim, 16);
  const int64_t num_queries = task.num_rows * task.num_heads;
  const Workspace work(scratch, padded_dim, MaxQueries(task.num_heads));
  for (int64_t n = 0; n < num_queries; ++n) {
    work.largest[n] = -__builtin_inff();
    work.total[n] = 0.0f;
  }
  for (int64_t i = 0; i < num_queries * padded_dim; ++i) work.sums[i] = 0.0f;

  Range all = Visible(task, 0);
  for (int64_t row = 1; row < task.num_rows; ++row) {
    const Range range = Visible(task, row);
    if (range.begin < all.begin) all.begin = range.begin;
    if (range.end > all.end) all.end = range.end;
  }
  for (int64_t first = all.begin / kBlock * kBlock; first < all.end; first += kBlock) {
    const Range loaded = Inside(all, first);
    const std::byte* rows[kBlock];
    FindRows(rows, task, task.k, first, loaded.begin, loaded.end);
    LoadKeys(work.keys, rows, task.kv_dtype, task.head_dim);
    FindRows(rows, task, task.v, first, loaded.begin, loaded.end);
    LoadValues(work.values, rows, task.kv_dtype, task.head_dim);
    AttendBlock(task, work, first);
  }
  StoreResults(task, work);
}

}  // namespace cadre
