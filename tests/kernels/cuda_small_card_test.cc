// Cards whose multiprocessors have less shared memory than Hopper's. On the emulated runtime, which can be such a card.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "kernels/cuda/cuda_device.h"
#include "tests/kernels/op_test.h"
#include "tests/support/simt/runtime_control.h"

namespace cadre {
namespace {

constexpr int64_t kRows = 320;
constexpr int64_t kDepth = 832;

// Rows 0 to kRows of one sequence, heads of the widest kind.
void Attend(Ops& ops, Tensors& tensors, View out) {
  constexpr int64_t kHeadDim = 128, kHeads = 6, kBlock = 16, kBlocks = kRows / kBlock;
  std::vector<double> positions(kRows), blocks(kBlocks);
  std::iota(positions.begin(), positions.end(), 0.0);
  std::iota(blocks.begin(), blocks.end(), 0.0);
  const Tensor q = tensors.Random(DType::kF32, {kRows, kHeads, kHeadDim});
  const Tensor cache = tensors.Random(DType::kBF16, {kBlocks, kHeads, kBlock, kHeadDim});
  const Tensor tables = tensors.Of(DType::kI32, {1, kBlocks}, blocks);
  const Tensor sequences = tensors.Zeros(DType::kI32, {kRows});
  const Tensor position = tensors.Of(DType::kI32, {kRows}, positions);
  ops.PagedAttention(View(out.raw(), DType::kF32, {kRows, kHeads, kHeadDim}), q.view,
                     {cache.view, cache.view, tables.view, sequences.view, position.view}, {.scale = 0.1f});
}

// A product of many rows, a gated MLP of them and their attention, on a card with so much shared memory for a block.
std::vector<float> ProductsWith(size_t max_shared_bytes) {
  simt::ResetDevice({.memory_bytes = size_t{64} << 20, .max_shared_bytes = max_shared_bytes});
  std::vector<float> results(static_cast<size_t>(3 * kRows * kDepth));
  {
    auto device = CreateCudaDevice();
    EXPECT_TRUE(device.ok()) << device.status();
    OpsLimits limits = TestLimits();
    limits.hidden_size = limits.max_ffn_size = kDepth;
    EXPECT_TRUE((*device)->ops().Reserve(limits).ok());
    Tensors tensors(**device, 3);
    const Tensor x = tensors.Random(DType::kF32, {kRows, kDepth});
    const Tensor gate = tensors.Random(DType::kBF16, {kDepth, kDepth}, 0.1);
    const Tensor up = tensors.Random(DType::kBF16, {kDepth, kDepth}, 0.1);
    const Tensor down = tensors.Random(DType::kBF16, {kDepth, kDepth}, 0.1);
    const Tensor out = tensors.Zeros(DType::kF32, {3 * kRows, kDepth});
    (*device)->ops().Linear(out.view.Rows(0, kRows), x.view, gate.view, ConstView(), false);
    (*device)->ops().GatedMlp(out.view.Rows(kRows, kRows), x.view, {gate.view, up.view, down.view});
    Attend((*device)->ops(), tensors, out.view.Rows(2 * kRows, kRows));
    EXPECT_TRUE((*device)->Synchronize().ok());
    std::memcpy(results.data(), out.view.raw(), out.view.size_bytes());
  }
  simt::ResetDevice();
  return results;
}

TEST(CudaSmallCardTest, ProductsOfManyRowsHaveTheSameBits) {
  const std::vector<float> expected = ProductsWith(size_t{227} << 10);
  EXPECT_NE(expected.front(), 0.0f);
  EXPECT_NE(expected[2 * kRows * kDepth], 0.0f);
  const std::vector<float> found = ProductsWith(size_t{99} << 10);
  EXPECT_EQ(std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)), 0);
}

}  // namespace
}  // namespace cadre
