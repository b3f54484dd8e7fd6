// WriteKv and PagedAttention against double precision.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/op_test.h"

namespace cadre {
namespace {

struct AttentionShape {
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t block_size;
  DType cache = DType::kBF16;
  int64_t window = 0;
};

// Rows of several sequences: `first` is the position of the first row of a run of `count`.
struct RowRun {
  int64_t sequence;
  int64_t first;
  int64_t count;
};

class AttentionTest : public OpTest {
 protected:
  void Check(const AttentionShape& s, const std::vector<RowRun>& runs, double q_scale = 1.0) {
    SCOPED_TRACE(::testing::Message() << "H " << s.num_heads << " G " << s.num_kv_heads << " d " << s.head_dim << " B "
                                      << s.block_size << " " << DTypeName(s.cache) << " window " << s.window);
    const int64_t max_blocks = (800 + s.block_size - 1) / s.block_size;
    const int64_t num_sequences = 3;
    // Blocks in random order; block 0 belongs to nobody and holds NaN, as do all positions that nobody may see.
    const int64_t num_blocks = num_sequences * max_blocks + 1;
    std::vector<double> blocks(static_cast<size_t>(num_sequences * max_blocks));
    std::iota(blocks.begin(), blocks.end(), 1.0);
    std::shuffle(blocks.begin(), blocks.end(), tensors().random());
    const Tensor tables = tensors().Of(DType::kI32, {num_sequences, max_blocks}, blocks);
    const Shape cache_shape = {num_blocks, s.num_kv_heads, s.block_size, s.head_dim};
    Tensor k_cache = tensors().Random(s.cache, cache_shape);
    Tensor v_cache = tensors().Random(s.cache, cache_shape);

    std::vector<double> sequences, positions;
    std::vector<int64_t> lengths(static_cast<size_t>(num_sequences), 0);
    for (const RowRun& run : runs) {
      for (int64_t i = 0; i < run.count; ++i) {
        sequences.push_back(static_cast<double>(run.sequence));
        positions.push_back(static_cast<double>(run.first + i));
      }
      int64_t& length = lengths[static_cast<size_t>(run.sequence)];
      length = std::max(length, run.first + run.count);
    }
    const auto index = [&](int64_t sequence, int64_t position, int64_t g, int64_t i) {
      const auto block = static_cast<int64_t>(tables(sequence * max_blocks + position / s.block_size));
      return ((block * s.num_kv_heads + g) * s.block_size + position % s.block_size) * s.head_dim + i;
    };
    for (int64_t i = 0; i < s.num_kv_heads * s.block_size * s.head_dim; ++i) {
      Poison(&k_cache, i);
      Poison(&v_cache, i);
    }
    for (int64_t seq = 0; seq < num_sequences; ++seq) {
      for (int64_t p = lengths[static_cast<size_t>(seq)]; p < max_blocks * s.block_size; ++p) {
        for (int64_t i = 0; i < s.num_kv_heads * s.head_dim; ++i) {
          Poison(&k_cache, index(seq, p, i / s.head_dim, i % s.head_dim));
          Poison(&v_cache, index(seq, p, i / s.head_dim, i % s.head_dim));
        }
      }
    }

    const int64_t t = static_cast<int64_t>(positions.size());
    const Tensor q = tensors().Random(DType::kF32, {t, s.num_heads, s.head_dim}, q_scale);
    const Tensor out = tensors().Zeros(DType::kF32, {t, s.num_heads, s.head_dim});
    const Tensor row_sequence = tensors().Of(DType::kI32, {t}, sequences);
    const Tensor position = tensors().Of(DType::kI32, {t}, positions);
    const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
    const bool is_rounded =
        GetParam().rounds_attention && s.cache == DType::kBF16 && s.head_dim % 32 == 0 && s.head_dim <= 128;
    ops().PagedAttention(out.view, q.view, {k_cache.view, v_cache.view, tables.view, row_sequence.view, position.view},
                         {.scale = scale, .sliding_window = s.window});

    for (int64_t row = 0; row < t; ++row) {
      const auto sequence = static_cast<int64_t>(row_sequence(row));
      const auto last = static_cast<int64_t>(position(row));
      const int64_t begin = s.window > 0 ? std::max<int64_t>(0, last - s.window + 1) : 0;
      for (int64_t h = 0; h < s.num_heads; ++h) {
        const int64_t g = h / (s.num_heads / s.num_kv_heads);
        const int64_t at = (row * s.num_heads + h) * s.head_dim;
        std::vector<double> scores;
        double score_error = 0.0, largest = -INFINITY;
        for (int64_t j = begin; j <= last; ++j) {
          double dot = 0.0, magnitude = 0.0;
          for (int64_t i = 0; i < s.head_dim; ++i) {
            const double term = (is_rounded ? RoundToBf16(q(at + i)) : q(at + i)) * k_cache(index(sequence, j, g, i));
            dot += term;
            magnitude += std::abs(term);
          }
          scores.push_back(dot * scale);
          largest = std::max(largest, scores.back());
          score_error = std::max(score_error, scale * magnitude * kEpsilon * static_cast<double>(s.head_dim + 2));
        }
        double total = 0.0;
        for (double& p : scores) total += p = std::exp(p - largest);
        for (int64_t i = 0; i < s.head_dim; ++i) {
          double sum = 0.0, magnitude = 0.0, square = 0.0;
          for (int64_t j = begin; j <= last; ++j) {
            const double term = scores[static_cast<size_t>(j - begin)] / total * v_cache(index(sequence, j, g, i));
            sum += term;
            magnitude += std::abs(term);
            square += term * term;
          }
          // An error e in a score is a relative error e in its weight and in the total; the rest counts roundings.
          const double roundings = static_cast<double>(last - begin + 24) * kEpsilon;
          double bound = magnitude * (2.0 * score_error + roundings) + 1e-30;
          // A rounded weight is off by up to 2^-9 of itself, at random: six standard deviations of their sum.
          if (is_rounded) bound += 6.0 * 0x1p-9 * std::sqrt(square);
          ASSERT_NEAR(out.view.data<float>()[at + i], sum, bound) << "row " << row << " head " << h << " i " << i;
        }
      }
    }
  }

 private:
  static void Poison(Tensor* t, int64_t i) {
    std::byte* const at = t->view.raw() + static_cast<size_t>(i) * DTypeBytes(t->view.dtype());
    const uint32_t nan32 = 0x7FC00000;
    const uint16_t nan16 = 0x7FFF;
    std::memcpy(at, t->view.dtype() == DType::kF32 ? static_cast<const void*>(&nan32) : &nan16,
                DTypeBytes(t->view.dtype()));
  }
};

TEST_P(AttentionTest, AcceptsNoRows) {
  const Tensor cache = tensors().Random(DType::kBF16, {2, 1, 4, 8});
  const Tensor tables = tensors().Of(DType::kI32, {1, 2}, {0, 1});
  const Tensor zero = tensors().Of(DType::kI32, {1}, {0});
  const Tensor q = tensors().Random(DType::kF32, {1, 2, 8});
  const Tensor out = tensors().Random(DType::kF32, {1, 2, 8});
  const View none = zero.view.Rows(0, 0);
  ops().PagedAttention(out.view.Rows(0, 0), q.view.Rows(0, 0), {cache.view, cache.view, tables.view, none, none}, {});
  for (int64_t i = 0; i < 16; ++i) EXPECT_EQ(out.view.data<float>()[i], static_cast<float>(out(i))) << i;
}

TEST_P(AttentionTest, DecodeOfSeveralSequences) {
  const std::vector<RowRun> runs = {{0, 0, 1}, {1, 33, 1}, {2, 200, 1}};
  for (const DType cache : kWeightTypes) {
    Check({.num_heads = 4, .num_kv_heads = 2, .head_dim = 64, .block_size = 16, .cache = cache}, runs);
  }
  Check({.num_heads = 3, .num_kv_heads = 3, .head_dim = 128, .block_size = 32}, runs);
  Check({.num_heads = 8, .num_kv_heads = 1, .head_dim = 80, .block_size = 5}, runs);
  Check({.num_heads = 2, .num_kv_heads = 1, .head_dim = 7, .block_size = 16}, runs);
  Check({.num_heads = 64, .num_kv_heads = 1, .head_dim = 16, .block_size = 16}, runs);
  Check({.num_heads = 64, .num_kv_heads = 1, .head_dim = 32, .block_size = 16}, runs);
  Check({.num_heads = 34, .num_kv_heads = 2, .head_dim = 96, .block_size = 16}, runs);
  Check({.num_heads = 1, .num_kv_heads = 1, .head_dim = 256, .block_size = 16}, runs);
}

TEST_P(AttentionTest, PrefillInChunksBesideDecode) {
  const std::vector<RowRun> runs = {{0, 0, 70}, {1, 90, 1}, {2, 17, 100}};
  for (const DType cache : kWeightTypes) {
    Check({.num_heads = 4, .num_kv_heads = 2, .head_dim = 32, .block_size = 16, .cache = cache}, runs);
  }
  Check({.num_heads = 2, .num_kv_heads = 2, .head_dim = 64, .block_size = 7}, runs);
  Check({.num_heads = 6, .num_kv_heads = 2, .head_dim = 128, .block_size = 16}, runs);
  Check({.num_heads = 17, .num_kv_heads = 1, .head_dim = 96, .block_size = 16}, runs);
}

TEST_P(AttentionTest, SlidingWindow) {
  const std::vector<RowRun> runs = {{0, 0, 70}, {1, 150, 1}, {2, 90, 50}};
  for (const int64_t window : {1, 2, 31, 32, 33, 64, 1000}) {
    Check({.num_heads = 2, .num_kv_heads = 1, .head_dim = 32, .block_size = 16, .window = window}, runs);
  }
}

// Far enough for what is computed in parts to have several, of one row and of many.
TEST_P(AttentionTest, LongSequences) {
  const std::vector<RowRun> decode = {{0, 255, 1}, {1, 256, 1}, {2, 779, 1}};
  const std::vector<RowRun> prefill = {{0, 500, 70}, {1, 511, 1}, {2, 600, 3}};
  for (const DType cache : kWeightTypes) {
    Check({.num_heads = 4, .num_kv_heads = 2, .head_dim = 32, .block_size = 16, .cache = cache}, decode);
  }
  for (const int64_t window : {0, 257, 300, 520}) {
    for (const int64_t head_dim : {16, 32}) {
      const AttentionShape shape = {
          .num_heads = 2, .num_kv_heads = 1, .head_dim = head_dim, .block_size = 16, .window = window};
      Check(shape, decode);
      Check(shape, prefill);
    }
  }
}

TEST_P(AttentionTest, LargeScoresDoNotOverflow) {
  Check({.num_heads = 2, .num_kv_heads = 2, .head_dim = 64, .block_size = 16, .cache = DType::kF32}, {{0, 0, 100}},
        60.0);
}

TEST_P(AttentionTest, WriteKvRoundsToTheCache) {
  const int64_t g = 3, b = 4, d = 10, t = 6;
  for (const DType cache : kWeightTypes) {
    const Tensor k_cache = tensors().Zeros(cache, {5, g, b, d});
    const Tensor v_cache = tensors().Zeros(cache, {5, g, b, d});
    const Tensor k = tensors().Random(DType::kF32, {t, g, d});
    const Tensor v = tensors().Random(DType::kF32, {t, g, d});
    const Tensor slots = tensors().Of(DType::kI32, {t}, {19, 0, 7, 8, 13, 2});
    ops().WriteKv(k_cache.view, v_cache.view, k.view, v.view, slots.view);
    Tensor expected_k = tensors().Zeros(cache, {5, g, b, d});
    Tensor expected_v = tensors().Zeros(cache, {5, g, b, d});
    for (int64_t row = 0; row < t; ++row) {
      const auto slot = static_cast<int64_t>(slots(row));
      for (int64_t i = 0; i < g * d; ++i) {
        const int64_t at = ((slot / b * g + i / d) * b + slot % b) * d + i % d;
        Tensors::Set(&expected_k, at, k(row * g * d + i));
        Tensors::Set(&expected_v, at, v(row * g * d + i));
      }
    }
    EXPECT_EQ(std::memcmp(k_cache.view.raw(), expected_k.view.raw(), k_cache.view.size_bytes()), 0);
    EXPECT_EQ(std::memcmp(v_cache.view.raw(), expected_v.view.raw(), v_cache.view.size_bytes()), 0);
  }
}

CADRE_INSTANTIATE_OP_TEST(AttentionTest);

}  // namespace
}  // namespace cadre
