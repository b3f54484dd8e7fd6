// What a row computes depends on the row and the weights alone, bit for bit: every verb, every target, random
// compositions of rows in random order, and one to five threads.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/op_test.h"

namespace cadre {
namespace {

constexpr int64_t kRows = 130;
using Rows = std::vector<int64_t>;

class InvarianceTest : public ::testing::TestWithParam<TestTarget> {
 protected:
  InvarianceTest() {
    for (const int num_threads : GetParam().thread_counts) {
      devices_.push_back(GetParam().make(num_threads));
      EXPECT_TRUE(devices_.back()->ops().Reserve(TestLimits()).ok());
    }
    tensors_ = std::make_unique<Tensors>(*devices_[0], 5);
  }

  Tensors& tensors() { return *tensors_; }
  bool can_multiply(DType dtype) const { return devices_[0]->ops().can_multiply(dtype); }

  // The rows of `t` in the given order.
  Tensor Take(const Tensor& t, const Rows& rows) {
    std::vector<int64_t> dims;
    for (int i = 0; i < t.view.shape().rank(); ++i) dims.push_back(t.view.dim(i));
    const int64_t n = static_cast<int64_t>(rows.size());
    const Shape shape = dims.size() == 1 ? Shape{n} : dims.size() == 2 ? Shape{n, dims[1]} : Shape{n, dims[1], dims[2]};
    Tensor taken = tensors().Zeros(t.view.dtype(), shape);
    const size_t row_bytes = t.view.size_bytes() / static_cast<size_t>(dims[0]);
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(taken.view.raw() + i * row_bytes, t.view.raw() + static_cast<size_t>(rows[i]) * row_bytes, row_bytes);
    }
    return taken;
  }

  // `compute` runs a verb over some of kRows rows and returns its outputs, those of each row side by side.
  using Compute = std::function<Tensor(Ops&, const Rows&)>;
  void ExpectRowsIndependent(const Compute& compute) {
    std::vector<std::vector<std::byte>> alone;
    for (int64_t row = 0; row < kRows; ++row) {
      const Tensor out = compute(devices_[0]->ops(), {row});
      alone.emplace_back(out.view.raw(), out.view.raw() + out.view.size_bytes());
    }
    Rows all(kRows);
    std::iota(all.begin(), all.end(), 0);
    ExpectSame(compute, all, alone);
    for (int trial = 0; trial < 12; ++trial) {
      Rows rows = all;
      std::shuffle(rows.begin(), rows.end(), tensors().random());
      rows.resize(static_cast<size_t>(trial < 6 ? trial + 2 : tensors().Uniform(1, kRows)));
      ExpectSame(compute, rows, alone);
    }
  }

  // All rows of `x` together, and some of them alone and in small companies.
  void ExpectManyRowsAreAsFew(const Tensor& x, const std::function<Tensor(Ops&, const Tensor&)>& compute) {
    Ops& ops = devices_[0]->ops();
    const Tensor all = compute(ops, x);
    const int64_t width = all.view.dim(1);
    const int64_t last = x.view.dim(0) - 1;
    for (const Rows& rows : {Rows{0}, Rows{last}, Rows{130, 7}, Rows{1, 2, 3, 127, 128, 129, 200, 255, 256, 257}}) {
      const Tensor few = compute(ops, Take(x, rows));
      for (size_t i = 0; i < rows.size(); ++i) {
        const float* const expected = few.view.data<float>() + static_cast<int64_t>(i) * width;
        const float* const found = all.view.data<float>() + rows[i] * width;
        ASSERT_EQ(std::memcmp(found, expected, static_cast<size_t>(width) * sizeof(float)), 0) << "row " << rows[i];
      }
    }
  }

 private:
  void ExpectSame(const Compute& compute, const Rows& rows, const std::vector<std::vector<std::byte>>& alone) {
    for (const std::unique_ptr<Device>& device : devices_) {
      const Tensor out = compute(device->ops(), rows);
      const size_t row_bytes = out.view.size_bytes() / rows.size();
      for (size_t i = 0; i < rows.size(); ++i) {
        const std::vector<std::byte>& expected = alone[static_cast<size_t>(rows[i])];
        ASSERT_EQ(row_bytes, expected.size());
        ASSERT_EQ(std::memcmp(out.view.raw() + i * row_bytes, expected.data(), row_bytes), 0)
            << "row " << rows[i] << " as number " << i << " of " << rows.size() << ", " << device->kernels();
      }
    }
  }

  std::vector<std::unique_ptr<Device>> devices_;
  std::unique_ptr<Tensors> tensors_;
};

TEST_P(InvarianceTest, Linear) {
  for (const DType dtype : kWeightTypes) {
    for (const int64_t k : {64, 77}) {
      // So many panels that one to five threads divide the work both ways: by panels alone, and by rows as well.
      const int64_t n = 500;
      const Tensor x = tensors().Random(DType::kF32, {kRows, k});
      const Tensor w = tensors().Random(dtype, {n, k});
      const Tensor bias = tensors().Random(dtype, {n});
      ExpectRowsIndependent([&](Ops& ops, const Rows& rows) {
        const Tensor in = Take(x, rows);
        Tensor out = tensors().Zeros(DType::kF32, {in.view.dim(0), n});
        ops.Linear(out.view, in.view, w.view, bias.view, false);
        ops.Linear(out.view, in.view, w.view, ConstView(), true);
        return out;
      });
    }
  }
}

TEST_P(InvarianceTest, ProductsWithQuantizedWeights) {
  if (!can_multiply(DType::kQ8)) GTEST_SKIP() << "this device takes no quantized weights";
  for (const auto& [dtype, d, f] : {std::tuple<DType, int64_t, int64_t>(DType::kQ8, 77, 150), {DType::kQ4, 150, 77}}) {
    const Tensor x = tensors().Random(DType::kF32, {kRows, d});
    const Tensor gate = tensors().Random(dtype, {f, d}, 0.1);
    const Tensor up = tensors().Random(dtype, {f, d}, 0.1);
    const Tensor down = tensors().Random(dtype, {d, f}, 0.1);
    const Tensor square = tensors().Random(dtype, {d, d}, 0.1);
    ExpectRowsIndependent([&](Ops& ops, const Rows& rows) {
      const Tensor in = Take(x, rows);
      Tensor out = tensors().Zeros(DType::kF32, in.view.shape());
      ops.GatedMlp(out.view, in.view, {gate.view, up.view, down.view});
      ops.Linear(out.view, in.view, square.view, ConstView(), true);
      return out;
    });
  }
}

// So many rows and columns that they are computed in other tiles than a few rows are, over depths that are summed in
// several parts, of the same length and not.
TEST_P(InvarianceTest, LinearOfManyRowsAndColumns) {
  const int64_t num_rows = 300, n = 900;
  for (const int64_t k : {32, 96, 224, 512}) {
    const Tensor x = tensors().Random(DType::kF32, {num_rows, k});
    const Tensor w = tensors().Random(DType::kBF16, {n, k});
    ExpectManyRowsAreAsFew(x, [&](Ops& ops, const Tensor& in) {
      Tensor out = tensors().Zeros(DType::kF32, {in.view.dim(0), n});
      ops.Linear(out.view, in.view, w.view, ConstView(), false);
      ops.Linear(out.view, in.view, w.view, ConstView(), true);
      return out;
    });
  }
}

TEST_P(InvarianceTest, GatedMlpOfManyRowsAndColumns) {
  const int64_t num_rows = 320, d = 448, f = 416;
  const Tensor x = tensors().Random(DType::kF32, {num_rows, d});
  const Tensor gate = tensors().Random(DType::kBF16, {f, d}, 0.05);
  const Tensor up = tensors().Random(DType::kBF16, {f, d}, 0.05);
  const Tensor down = tensors().Random(DType::kBF16, {d, f}, 0.05);
  // Every row goes to two of three experts, which are the same: several tiles for each.
  const std::vector<MlpWeights> experts(3, {gate.view, up.view, down.view});
  ExpectManyRowsAreAsFew(x, [&](Ops& ops, const Tensor& in) {
    const int64_t t = in.view.dim(0);
    std::vector<double> ids;
    for (int64_t i = 0; i < t; ++i) ids.insert(ids.end(), {0.0, i % 5 == 0 ? 1.0 : 2.0});
    const Tensor expert_ids = tensors().Of(DType::kI32, {t, 2}, ids);
    const Tensor order = tensors().Zeros(DType::kI32, {2 * t});
    const Tensor offsets = tensors().Zeros(DType::kI32, {4});
    Tensor y = tensors().Zeros(DType::kF32, {t, 2 * d});
    const View by_assignment(y.view.raw(), DType::kF32, {2 * t, d});
    ops.GroupByExpert(order.view, offsets.view, expert_ids.view);
    ops.ExpertFfn(by_assignment, in.view, order.view, offsets.view, experts);
    return y;
  });
}

// Widths that matrix units take, and widths that they do not.
TEST_P(InvarianceTest, ExpertFfn) {
  const int64_t num_experts = 5, top_k = 2;
  for (const auto& [dtype, d, f] : {std::tuple<DType, int64_t, int64_t>(DType::kF32, 70, 45),
                                    {DType::kF16, 70, 45},
                                    {DType::kBF16, 70, 45},
                                    {DType::kBF16, 64, 96}}) {
    std::vector<Tensor> matrices;
    std::vector<MlpWeights> experts;
    for (int64_t e = 0; e < num_experts; ++e) {
      matrices.push_back(tensors().Random(dtype, {f, d}));
      matrices.push_back(tensors().Random(dtype, {f, d}));
      matrices.push_back(tensors().Random(dtype, {d, f}));
      const Tensor* const last = &matrices.back();
      experts.push_back({(last - 2)->view, (last - 1)->view, last->view});
    }
    std::vector<double> ids(kRows * top_k);
    for (double& id : ids) id = static_cast<double>(std::min(tensors().Uniform(0, 4), tensors().Uniform(0, 4)));
    const Tensor expert_ids = tensors().Of(DType::kI32, {kRows, top_k}, ids);
    const Tensor x = tensors().Random(DType::kF32, {kRows, d});
    ExpectRowsIndependent([&](Ops& ops, const Rows& rows) {
      const Tensor in = Take(x, rows);
      const Tensor chosen = Take(expert_ids, rows);
      const int64_t num_assignments = chosen.view.num_elements();
      const Tensor order = tensors().Zeros(DType::kI32, {num_assignments});
      const Tensor offsets = tensors().Zeros(DType::kI32, {num_experts + 1});
      Tensor y = tensors().Zeros(DType::kF32, {num_assignments, d});
      ops.GroupByExpert(order.view, offsets.view, chosen.view);
      ops.ExpertFfn(y.view, in.view, order.view, offsets.view, experts);
      return y;
    });
  }
}

TEST_P(InvarianceTest, GatedMlp) {
  for (const auto& [dtype, d, f] : {std::tuple<DType, int64_t, int64_t>(DType::kF32, 48, 99),
                                    {DType::kF16, 48, 99},
                                    {DType::kBF16, 48, 99},
                                    {DType::kBF16, 32, 160}}) {
    const Tensor x = tensors().Random(DType::kF32, {kRows, d});
    const Tensor gate = tensors().Random(dtype, {f, d});
    const Tensor up = tensors().Random(dtype, {f, d});
    const Tensor down = tensors().Random(dtype, {d, f});
    ExpectRowsIndependent([&](Ops& ops, const Rows& rows) {
      const Tensor in = Take(x, rows);
      Tensor out = tensors().Zeros(DType::kF32, in.view.shape());
      ops.GatedMlp(out.view, in.view, {gate.view, up.view, down.view});
      return out;
    });
  }
}

// Each of three sequences has a third of the rows, at positions that rise and start over; in a shuffled step, neighbors
// share a sequence only by chance.
TEST_P(InvarianceTest, PagedAttention) {
  const int64_t heads = 6, kv_heads = 2, block_size = 16, max_blocks = 40;
  std::vector<double> sequences, positions;
  for (int64_t row = 0; row < kRows; ++row) {
    sequences.push_back(static_cast<double>(row * 3 / kRows));
    // Some are so long that one row alone is computed in other parts than many rows are; some follow one another.
    positions.push_back(static_cast<double>(row % 9 == 0 ? 500 + row : row % 44 + (row > 90 ? 240 : 0)));
  }
  const Tensor sequence = tensors().Of(DType::kI32, {kRows}, sequences);
  const Tensor position = tensors().Of(DType::kI32, {kRows}, positions);
  std::vector<double> blocks(3 * max_blocks);
  std::iota(blocks.begin(), blocks.end(), 0.0);
  const Tensor tables = tensors().Of(DType::kI32, {3, max_blocks}, blocks);
  // Widths of heads that matrix units take, and one that they do not.
  for (const auto& [cache, d] : {std::pair<DType, int64_t>(DType::kF32, 40),
                                 {DType::kF16, 40},
                                 {DType::kBF16, 40},
                                 {DType::kBF16, 32},
                                 {DType::kBF16, 64}}) {
    const Tensor q = tensors().Random(DType::kF32, {kRows, heads, d});
    const Tensor k_cache = tensors().Random(cache, {3 * max_blocks, kv_heads, block_size, d});
    const Tensor v_cache = tensors().Random(cache, {3 * max_blocks, kv_heads, block_size, d});
    for (const int64_t window : {0, 20, 300}) {
      ExpectRowsIndependent([&](Ops& ops, const Rows& rows) {
        const Tensor in = Take(q, rows);
        const Tensor row_sequence = Take(sequence, rows);
        const Tensor row_position = Take(position, rows);
        Tensor out = tensors().Zeros(DType::kF32, in.view.shape());
        ops.PagedAttention(out.view, in.view,
                           {k_cache.view, v_cache.view, tables.view, row_sequence.view, row_position.view},
                           {.scale = 0.2f, .sliding_window = window});
        return out;
      });
    }
  }
}

// So many heads that the splits of a long row share blocks when it stands among others, and have their own when alone.
TEST_P(InvarianceTest, PagedAttentionOfManyHeads) {
  const int64_t heads = 48, block_size = 32, max_blocks = 32, d = 32;
  std::vector<double> sequences(kRows, 0.0), positions;
  for (int64_t row = 0; row < kRows; ++row)
    positions.push_back(static_cast<double>(row % 30 == 0 ? 1000 + row / 30 : row % 8));
  const Tensor sequence = tensors().Of(DType::kI32, {kRows}, sequences);
  const Tensor position = tensors().Of(DType::kI32, {kRows}, positions);
  std::vector<double> blocks(max_blocks);
  std::iota(blocks.begin(), blocks.end(), 0.0);
  const Tensor tables = tensors().Of(DType::kI32, {1, max_blocks}, blocks);
  const Tensor q = tensors().Random(DType::kF32, {kRows, heads, d});
  const Tensor cache = tensors().Random(DType::kBF16, {max_blocks, heads, block_size, d});
  ExpectRowsIndependent([&](Ops& ops, const Rows& rows) {
    const Tensor in = Take(q, rows);
    const Tensor row_sequence = Take(sequence, rows);
    const Tensor row_position = Take(position, rows);
    Tensor out = tensors().Zeros(DType::kF32, in.view.shape());
    ops.PagedAttention(out.view, in.view, {cache.view, cache.view, tables.view, row_sequence.view, row_position.view},
                       {.scale = 0.2f});
    return out;
  });
}

TEST_P(InvarianceTest, WriteKv) {
  const int64_t kv_heads = 2, block_size = 4, d = 24, num_blocks = 40;
  const Tensor k = tensors().Random(DType::kF32, {kRows, kv_heads, d});
  for (const DType cache : kWeightTypes) {
    ExpectRowsIndependent([&](Ops& ops, const Rows& rows) {
      const Tensor in = Take(k, rows);
      const Tensor k_cache = tensors().Zeros(cache, {num_blocks, kv_heads, block_size, d});
      const Tensor v_cache = tensors().Zeros(cache, {num_blocks, kv_heads, block_size, d});
      std::vector<double> slots(rows.begin(), rows.end());
      const Tensor slot = tensors().Of(DType::kI32, {in.view.dim(0)}, slots);
      ops.WriteKv(k_cache.view, v_cache.view, in.view, in.view, slot.view);
      Tensor stored = tensors().Zeros(cache, in.view.shape());
      const size_t head_bytes = static_cast<size_t>(d) * DTypeBytes(cache);
      for (int64_t i = 0; i < in.view.dim(0) * kv_heads; ++i) {
        const int64_t row = rows[static_cast<size_t>(i / kv_heads)];
        const int64_t at = (row / block_size * kv_heads + i % kv_heads) * block_size + row % block_size;
        std::memcpy(stored.view.raw() + static_cast<size_t>(i) * head_bytes,
                    k_cache.view.raw() + static_cast<size_t>(at) * head_bytes, head_bytes);
      }
      return stored;
    });
  }
}

TEST_P(InvarianceTest, RouteTopK) {
  const int64_t num_experts = 24, top_k = 4;
  const Tensor logits = tensors().Random(DType::kF32, {kRows, num_experts}, 2.0);
  const Tensor bias = tensors().Random(DType::kF32, {num_experts});
  ExpectRowsIndependent([&](Ops& ops, const Rows& rows) {
    const Tensor in = Take(logits, rows);
    const int64_t n = in.view.dim(0);
    const Tensor ids = tensors().Zeros(DType::kI32, {n, top_k});
    const Tensor weights = tensors().Zeros(DType::kF32, {n, top_k});
    const Tensor probabilities = tensors().Zeros(DType::kF32, {n, num_experts});
    const Tensor lse = tensors().Zeros(DType::kF32, {n});
    ops.RouteTopK(ids.view, weights.view, probabilities.view, lse.view, in.view, bias.view, {},
                  {.top_k = top_k, .score = RouterScore::kSigmoid, .norm = WeightNorm::kSum});
    Tensor all = tensors().Zeros(DType::kF32, {n, 2 * top_k + num_experts + 1});
    for (int64_t row = 0; row < n; ++row) {
      std::byte* to = all.view.Rows(row, 1).raw();
      for (const Tensor* part : {&ids, &weights, &probabilities, &lse}) {
        const size_t bytes = part->view.size_bytes() / static_cast<size_t>(n);
        std::memcpy(to, part->view.raw() + static_cast<size_t>(row) * bytes, bytes);
        to += bytes;
      }
    }
    return all;
  });
}

TEST_P(InvarianceTest, RowwiseVerbs) {
  const int64_t heads = 3, d = 50, half = 20, top_k = 3;
  const Tensor x = tensors().Random(DType::kF32, {kRows, heads * d});
  const Tensor y = tensors().Random(DType::kF32, {kRows, heads * d});
  const Tensor weight = tensors().Random(DType::kBF16, {heads * d});
  const Tensor frequencies = tensors().Random(DType::kF32, {half});
  const Tensor gates = tensors().Random(DType::kF32, {kRows, 1});
  const Tensor mixture = tensors().Random(DType::kF32, {kRows, top_k});
  const Tensor choices = tensors().Random(DType::kF32, {kRows, top_k * heads * d});
  ExpectRowsIndependent([&](Ops& ops, const Rows& rows) {
    const int64_t n = static_cast<int64_t>(rows.size());
    const std::vector<double> row_ids(rows.begin(), rows.end());
    const Tensor ids = tensors().Of(DType::kI32, {n}, row_ids);
    const Tensor cos = tensors().Zeros(DType::kF32, {n, half});
    const Tensor sin = tensors().Zeros(DType::kF32, {n, half});
    Tensor out = tensors().Zeros(DType::kF32, {n, heads * d});
    ops.GatherRows(out.view, x.view, ids.view);
    ops.RmsNorm(out.view, out.view, weight.view, 1e-5f);
    ops.RopeTable(cos.view, sin.view, ids.view, frequencies.view, 1.1f);
    ops.Rope(out.view.Reshape({n, heads, d}), cos.view, sin.view);
    ops.AddGated(out.view, Take(y, rows).view, Take(gates, rows).view);
    ops.Clamp(out.view, 1.5f);
    ops.Combine(out.view, Take(choices, rows).view.Reshape({n * top_k, heads * d}), Take(mixture, rows).view);
    return out;
  });
}

CADRE_INSTANTIATE_OP_TEST(InvarianceTest);

}  // namespace
}  // namespace cadre
