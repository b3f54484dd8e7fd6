// Rows of padding: they change nothing, store nothing, choose no expert, are not counted, and read nothing but what the
// verb says.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/op_test.h"

namespace cadre {
namespace {

constexpr int64_t kRows = 5;
constexpr int64_t kPadded = 8;  // rows with padding

// `ids`, then kPadding.
std::vector<double> Pad(std::vector<double> ids) {
  ids.resize(kPadded, static_cast<double>(kPadding));
  return ids;
}

class PaddingTest : public OpTest {
 protected:
  // A tensor whose rows of padding are NaN.
  Tensor RandomWithNans(Shape shape) {
    Tensor t = tensors().Random(DType::kF32, shape);
    const int64_t row = shape.num_elements() / shape[0];
    std::memset(t.view.raw() + static_cast<size_t>(kRows * row) * sizeof(float), 0xFF,
                static_cast<size_t>((shape[0] - kRows) * row) * sizeof(float));
    return t;
  }
  Tensor Nans(DType dtype, Shape shape) {
    Tensor t = tensors().Zeros(dtype, shape);
    std::memset(t.view.raw(), 0xFF, t.view.size_bytes());
    return t;
  }
  static void ExpectZeros(View rows) {
    for (int64_t i = 0; i < rows.num_elements(); ++i) ASSERT_EQ(rows.data<float>()[i], 0.0f) << i;
  }
  static void ExpectSame(View a, View b) { EXPECT_EQ(std::memcmp(a.raw(), b.raw(), a.size_bytes()), 0); }
};

TEST_P(PaddingTest, GatheredAsZeros) {
  const Tensor table = tensors().Random(DType::kBF16, {7, 33});
  const Tensor rows = tensors().Of(DType::kI32, {kPadded}, Pad({6, 0, 3, 3, 1}));
  const Tensor out = Nans(DType::kF32, {kPadded, 33});
  ops().GatherRows(out.view, table.view, rows.view);
  EXPECT_EQ(static_cast<double>(out.view.data<float>()[0]), table(6 * 33));
  ExpectZeros(out.view.Rows(kRows, kPadded - kRows));
}

TEST_P(PaddingTest, StoresNoKeys) {
  const int64_t blocks = 3, heads = 2, block_size = 4, d = 16;
  const Tensor k = RandomWithNans({kPadded, heads, d});
  const Tensor slots = tensors().Of(DType::kI32, {kPadded}, Pad({3, 0, 7, 11, 5}));
  const Tensor k_cache = tensors().Zeros(DType::kF32, {blocks, heads, block_size, d});
  const Tensor v_cache = tensors().Zeros(DType::kF32, {blocks, heads, block_size, d});
  ops().WriteKv(k_cache.view, v_cache.view, k.view, k.view, slots.view);
  int64_t num_written = 0;
  for (int64_t i = 0; i < k_cache.view.num_elements(); ++i) {
    ASSERT_FALSE(std::isnan(k_cache.view.data<float>()[i]));
    ASSERT_EQ(k_cache.view.data<float>()[i], v_cache.view.data<float>()[i]);
    num_written += k_cache.view.data<float>()[i] != 0.0f;
  }
  EXPECT_EQ(num_written, kRows * heads * d);
}

TEST_P(PaddingTest, AttendsToNothing) {
  const int64_t blocks = 300, heads = 4, kv_heads = 2, block_size = 4, d = 32;
  const Tensor q = RandomWithNans({kPadded, heads, d});
  const Tensor cache = tensors().Random(DType::kBF16, {blocks, kv_heads, block_size, d});
  std::vector<double> table(kRows * 200);
  for (double& block : table) block = static_cast<double>(tensors().Uniform(0, blocks - 1));
  const Tensor tables = tensors().Of(DType::kI32, {kRows, 200}, table);
  const Tensor sequences = tensors().Of(DType::kI32, {kPadded}, Pad({0, 1, 2, 3, 4}));
  const Tensor positions = tensors().Of(DType::kI32, {kPadded}, Pad({0, 700, 255, 256, 31}));
  const Tensor out = Nans(DType::kF32, {kPadded, heads, d});
  const Tensor alone = Nans(DType::kF32, {kRows, heads, d});
  const PagedKv kv = {cache.view, cache.view, tables.view, sequences.view, positions.view};
  const PagedKv kv_alone = {cache.view, cache.view, tables.view, sequences.view.Rows(0, kRows),
                            positions.view.Rows(0, kRows)};
  ops().PagedAttention(out.view, q.view, kv, {.scale = 0.2f});
  ops().PagedAttention(alone.view, q.view.Rows(0, kRows), kv_alone, {.scale = 0.2f});
  ExpectSame(alone.view, out.view);
  ExpectZeros(out.view.Rows(kRows, kPadded - kRows));
}

TEST_P(PaddingTest, ChoosesNoExpertAndIsNotCounted) {
  const int64_t e = 6, k = 2;
  const Tensor logits = RandomWithNans({kPadded, e});
  const Tensor sequences = tensors().Of(DType::kI32, {kPadded}, Pad({0, 1, 2, 3, 4}));
  const Tensor ids = tensors().Zeros(DType::kI32, {kPadded, k});
  const Tensor weights = Nans(DType::kF32, {kPadded, k});
  const Tensor probabilities = Nans(DType::kF32, {kPadded, e});
  const Tensor lse = Nans(DType::kF32, {kPadded});
  ops().RouteTopK(ids.view, weights.view, probabilities.view, lse.view, logits.view, {}, sequences.view,
                  {.top_k = k, .norm = WeightNorm::kSum});
  for (int64_t a = kRows * k; a < kPadded * k; ++a) EXPECT_EQ(ids.view.data<int32_t>()[a], kPadding);
  ExpectZeros(weights.view.Rows(kRows, kPadded - kRows));
  ExpectZeros(probabilities.view.Rows(kRows, kPadded - kRows));
  ExpectZeros(lse.view.Rows(kRows, kPadded - kRows));

  const Tensor assignments = tensors().Zeros(DType::kI64, {e});
  const Tensor gate_weight = tensors().Zeros(DType::kF64, {e});
  const Tensor probability = tensors().Zeros(DType::kF64, {e});
  const Tensor squares = tensors().Zeros(DType::kF64, {1});
  const Tensor by_sequence = tensors().Zeros(DType::kI64, {kPadded});
  const Tensor by_row = tensors().Zeros(DType::kI64, {1});
  const Tensor weight_by_sequence = tensors().Zeros(DType::kF64, {kPadded});
  ops().TallyRouting({assignments.view, gate_weight.view, probability.view, squares.view, by_sequence.view, by_row.view,
                      weight_by_sequence.view},
                     ids.view, weights.view, probabilities.view, lse.view, sequences.view);
  EXPECT_EQ(by_row.view.data<int64_t>()[0], kRows * k);
  int64_t counted = 0;
  for (int64_t i = 0; i < e; ++i) counted += assignments.view.data<int64_t>()[i];
  EXPECT_EQ(counted, kRows * k);
  for (int64_t s = 0; s < kPadded; ++s) EXPECT_EQ(by_sequence.view.data<int64_t>()[s], s < kRows ? k : 0);
  for (int64_t s = 0; s < kPadded; ++s) {
    EXPECT_NEAR(weight_by_sequence.view.data<double>()[s], s < kRows ? 1.0 : 0.0, 1e-6);
  }

  const Tensor order = Nans(DType::kI32, {kPadded * k});
  const Tensor offsets = tensors().Zeros(DType::kI32, {e + 1});
  ops().GroupByExpert(order.view, offsets.view, ids.view);
  EXPECT_EQ(offsets.view.data<int32_t>()[e], kRows * k);
  std::vector<bool> found(kRows * k, false);
  for (int64_t i = 0; i < kRows * k; ++i) found.at(static_cast<size_t>(order.view.data<int32_t>()[i])) = true;
  for (const bool is_found : found) EXPECT_TRUE(is_found);
  for (int64_t i = kRows * k; i < kPadded * k; ++i) EXPECT_EQ(order.view.data<int32_t>()[i], -1) << "was written";
}

TEST_P(PaddingTest, ExpertsSkipIt) {
  const int64_t e = 3, k = 2, d = 64, f = 32;
  std::vector<Tensor> matrices;
  std::vector<MlpWeights> experts;
  for (int64_t i = 0; i < e; ++i) {
    matrices.push_back(tensors().Random(DType::kBF16, {f, d}, 0.2));
    matrices.push_back(tensors().Random(DType::kBF16, {f, d}, 0.2));
    matrices.push_back(tensors().Random(DType::kBF16, {d, f}, 0.2));
    const size_t at = matrices.size();
    experts.push_back({matrices[at - 3].view, matrices[at - 2].view, matrices[at - 1].view});
  }
  const Tensor x = RandomWithNans({kPadded, d});
  std::vector<double> choices = {0, 2, 1, 0, 2, 1, 0, 1, 1, 2};
  choices.resize(kPadded * k, static_cast<double>(kPadding));
  const Tensor ids = tensors().Of(DType::kI32, {kPadded, k}, choices);
  const auto run = [&](int64_t rows) {
    const Tensor order = tensors().Zeros(DType::kI32, {rows * k});
    const Tensor offsets = tensors().Zeros(DType::kI32, {e + 1});
    Tensor y = tensors().Zeros(DType::kF32, {rows * k, d});
    ops().GroupByExpert(order.view, offsets.view, ids.view.Rows(0, rows));
    ops().ExpertFfn(y.view, x.view.Rows(0, rows), order.view, offsets.view, experts);
    return y;
  };
  const Tensor padded = run(kPadded);
  const Tensor alone = run(kRows);
  ExpectSame(alone.view, padded.view);
  ExpectZeros(padded.view.Rows(kRows * k, (kPadded - kRows) * k));
}

CADRE_INSTANTIATE_OP_TEST(PaddingTest);

}  // namespace
}  // namespace cadre
