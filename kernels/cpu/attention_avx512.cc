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

// Positions visible to a row, as [begin, end).
struct Range {
  int64_t begin;
  int64_t end;
  bool operator==(const Range&) const = default;
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

// Keys and values as they are stored; WidenLow and WidenHigh take the first and second number of every 32-bit lane.
struct StoredBf16 {
  using Element = uint16_t;
  static __m512 Widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
  static __m512 WidenLow(__m512i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
  static __m512 WidenHigh(__m512i x) {
    return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
  }
};

struct StoredF16 {
  using Element = uint16_t;
  static __m512 Widen(__m256i x) { return _mm512_cvtph_ps(x); }
  static __m512 WidenLow(__m512i x) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x)); }
  static __m512 WidenHigh(__m512i x) { return WidenLow(_mm512_srli_epi32(x, 16)); }
};

struct StoredF32 {
  using Element = float;
};

// Where the rows of a block's positions are; null for those outside `range`.
template <typename Stored>
void FindRows(const typename Stored::Element** rows, const AttentionTask& task, const std::byte* cache, int64_t first,
              Range range) {
  const auto* const elements = reinterpret_cast<const typename Stored::Element*>(cache);
  for (int64_t j = 0; j < kBlock; ++j) rows[j] = nullptr;
  int64_t offset = (first + range.begin) % task.block_size;
  const int32_t* block = task.block_table + (first + range.begin) / task.block_size;
  for (int64_t j = range.begin; j < range.end; ++j) {
    rows[j] = elements + *block * task.block_stride + offset * task.head_dim;
    if (++offset == task.block_size) {
      offset = 0;
      ++block;
    }
  }
}

// Brings the line of a coming row that starts at element i nearer. Rows of one head are short runs in many pages, which
// the hardware does not foresee; one line with each line of the present block keeps the memory busy all the time.
template <typename Element>
void Prefetch(const Element* row, int64_t i) {
  if (row != nullptr) _mm_prefetch(reinterpret_cast<const char*>(row + i), _MM_HINT_T1);
}

// keys[i][j] = rows[j][i], zero where there is no row. Numbers of 16 bits are transposed in pairs of dimensions.
template <typename Stored>
void LoadKeys(float* keys, const typename Stored::Element* const* rows, const typename Stored::Element* const* next,
              int64_t d) {
  constexpr int64_t kPerLane = 4 / static_cast<int64_t>(sizeof(typename Stored::Element));
  for (int64_t j = 0; j < kBlock; j += 16) {
    for (int64_t i = 0; i < d; i += 16 * kPerLane) {
      __m512 tile[16];
      for (int r = 0; r < 16; ++r) {
        Prefetch(next[j + r], i);
        if (rows[j + r] == nullptr) {
          tile[r] = _mm512_setzero_ps();
        } else if constexpr (kPerLane == 2) {
          tile[r] = _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(FirstLanes32(d - i), rows[j + r] + i));
        } else {
          tile[r] = _mm512_maskz_loadu_ps(FirstLanes16(d - i), rows[j + r] + i);
        }
      }
      Transpose(tile);
      float* to = keys + i * kBlock + j;
      for (int r = 0; r < 16 && i + r * kPerLane < d; ++r, to += kPerLane * kBlock) {
        if constexpr (kPerLane == 2) {
          _mm512_store_ps(to, Stored::WidenLow(_mm512_castps_si512(tile[r])));
          _mm512_store_ps(to + kBlock, Stored::WidenHigh(_mm512_castps_si512(tile[r])));
        } else {
          _mm512_store_ps(to, tile[r]);
        }
      }
    }
  }
}

template <typename Stored>
void LoadValues(float* values, const typename Stored::Element* const* rows, const typename Stored::Element* const* next,
                int64_t d) {
  constexpr int64_t kPerLine = 64 / static_cast<int64_t>(sizeof(typename Stored::Element));
  const int64_t padded_dim = RoundUp(d, 16);
  for (int64_t j = 0; j < kBlock; ++j) {
    for (int64_t i = 0; i < d; i += kPerLine) Prefetch(next[j], i);
    if (rows[j] == nullptr) continue;
    for (int64_t i = 0; i < d; i += 16) {
      float* const to = values + j * padded_dim + i;
      const __mmask16 lanes = FirstLanes16(d - i);
      if constexpr (sizeof(typename Stored::Element) == 2) {
        _mm512_store_ps(to, Stored::Widen(_mm256_maskz_loadu_epi16(lanes, rows[j] + i)));
      } else {
        _mm512_store_ps(to, _mm512_maskz_loadu_ps(lanes, rows[j] + i));
      }
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

// sums[q] = sums[q] * correction[q] + sum over j in `range` of p[q][j] values[j], for Q queries and N vectors of
// dimensions.
template <int Q, int N>
void AddValueTile(float* sums, const float* correction, const float* p, const float* values, int64_t padded_dim,
                  Range range) {
  __m512 acc[Q][N];
  for (int q = 0; q < Q; ++q) {
    for (int n = 0; n < N; ++n) {
      acc[q][n] = _mm512_mul_ps(_mm512_load_ps(sums + q * padded_dim + n * 16), _mm512_set1_ps(correction[q]));
    }
  }
  for (int64_t j = range.begin; j < range.end; ++j) {
    __m512 weight[Q];
    for (int q = 0; q < Q; ++q) weight[q] = _mm512_set1_ps(p[q * kBlock + j]);
    for (int n = 0; n < N; ++n) {
      const __m512 value = _mm512_load_ps(values + j * padded_dim + n * 16);
      for (int q = 0; q < Q; ++q) acc[q][n] = _mm512_fmadd_ps(weight[q], value, acc[q][n]);
    }
  }
  for (int q = 0; q < Q; ++q) {
    for (int n = 0; n < N; ++n) _mm512_store_ps(sums + q * padded_dim + n * 16, acc[q][n]);
  }
}

template <int Q>
void AddValues(float* sums, const float* correction, const float* p, const float* values, int64_t padded_dim,
               Range range) {
  int64_t i = 0;
  for (; i + 128 <= padded_dim; i += 128) {
    AddValueTile<Q, 8>(sums + i, correction, p, values + i, padded_dim, range);
  }
  for (; i + 64 <= padded_dim; i += 64) AddValueTile<Q, 4>(sums + i, correction, p, values + i, padded_dim, range);
  for (; i < padded_dim; i += 16) AddValueTile<Q, 1>(sums + i, correction, p, values + i, padded_dim, range);
}

// Turns the visible scores into p = exp(score - largest); returns exp(old largest - new largest).
float UpdateSoftmax(float* scores, float* largest, float* total, float scale, Range visible_range) {
  const __mmask32 visible = FirstLanes32(visible_range.end) & ~FirstLanes32(visible_range.begin);
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

// Scores of queries [first, first + count), in tiles of N and less.
template <int N>
void ScoreQueries(const AttentionTask& task, const Workspace& work, int64_t first, int64_t count) {
  const float* q[N];
  while (count >= N) {
    for (int64_t n = 0; n < N; ++n) {
      q[n] = task.q + (first + n) / task.num_heads * task.row_stride + (first + n) % task.num_heads * task.head_dim;
    }
    ScoreTile<N>(work.scores + first * kBlock, q, work.keys, task.head_dim);
    first += N;
    count -= N;
  }
  if constexpr (N > 1) ScoreQueries<N / 2>(task, work, first, count);
}

void AttendBlock(const AttentionTask& task, const Workspace& work, int64_t first) {
  const int64_t num_queries = task.num_rows * task.num_heads;
  const int64_t padded_dim = RoundUp(task.head_dim, 16);
  ScoreQueries<kQueryTile>(task, work, 0, num_queries);
  for (int64_t n = 0; n < num_queries;) {
    const Range range = Inside(Visible(task, n / task.num_heads), first);
    if (range.end <= range.begin) {
      ++n;
      continue;
    }
    // Two queries with the same view of the block share the loads of its values.
    const bool pairs = n + 1 < num_queries && Inside(Visible(task, (n + 1) / task.num_heads), first) == range;
    float correction[2] = {};
    for (int64_t i = n; i < n + (pairs ? 2 : 1); ++i) {
      correction[i - n] = UpdateSoftmax(work.scores + i * kBlock, work.largest + i, work.total + i, task.scale, range);
    }
    const auto add_values = pairs ? AddValues<2> : AddValues<1>;
    add_values(work.sums + n * padded_dim, correction, work.scores + n * kBlock, work.values, padded_dim, range);
    n += pairs ? 2 : 1;
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

template <typename Stored>
void Attend(const AttentionTask& task, const Workspace& work) {
  Range all = Visible(task, 0);
  for (int64_t row = 1; row < task.num_rows; ++row) {
    const Range range = Visible(task, row);
    if (range.begin < all.begin) all.begin = range.begin;
    if (range.end > all.end) all.end = range.end;
  }
  // Rows of this block and of the next, in turn.
  const typename Stored::Element* k_rows[2][kBlock];
  const typename Stored::Element* v_rows[2][kBlock];
  const auto find_rows = [&](int64_t first, int turn) {
    FindRows<Stored>(k_rows[turn], task, task.k, first, Inside(all, first));
    FindRows<Stored>(v_rows[turn], task, task.v, first, Inside(all, first));
  };
  int64_t first = all.begin / kBlock * kBlock;
  find_rows(first, 0);
  for (int turn = 0; first < all.end; first += kBlock, turn = 1 - turn) {
    find_rows(first + kBlock, 1 - turn);
    LoadKeys<Stored>(work.keys, k_rows[turn], k_rows[1 - turn], task.head_dim);
    LoadValues<Stored>(work.values, v_rows[turn], v_rows[1 - turn], task.head_dim);
    AttendBlock(task, work, first);
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

  switch (task.kv_dtype) {
    case DType::kBF16:
      Attend<StoredBf16>(task, work);
      break;
    case DType::kF16:
      Attend<StoredF16>(task, work);
      break;
    default:
      Attend<StoredF32>(task, work);
      break;
  }
  StoreResults(task, work);
}

}  // namespace cadre
