// What programs that measure a GPU stand on, on the emulated one: that all memory is read, that random values are what
// they claim to be, that graphs and times are of what was ordered.
#include "tests/gpu/gpu_bench.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/gpu/gpu_kernels.h"
#include "tests/gpu/verb_rig.h"

namespace cadre::gpu {
namespace {

// The one sum for which ReadKernel writes to its sink.
constexpr uint32_t kTold = 0xDEADBEEFu;

TEST(GpuKernelsTest, EveryWordIsReadOnce) {
  const Stream stream;
  for (const unsigned num_blocks : {1u, 3u}) {
    for (const size_t num_words : {size_t{4}, size_t{4} * 512 * 8 + 4 * 37}) {
      const Memory memory(num_words * 4);
      const Memory sink(4);
      for (const size_t place : {size_t{0}, size_t{3}, num_words / 2, num_words - 1}) {
        std::vector<uint32_t> words(num_words, 0);
        words[place] = kTold;
        std::memcpy(memory.data(), words.data(), memory.size_bytes());
        std::memset(sink.data(), 0, 4);
        OrDie(LaunchRead(stream.get(), memory.data(), memory.size_bytes(), num_blocks,
                         reinterpret_cast<uint32_t*>(sink.data())),
              "reading");
        stream.Wait();
        uint32_t told = 0;
        std::memcpy(&told, sink.data(), 4);
        EXPECT_EQ(told, kTold) << "word " << place << " of " << num_words << ", " << num_blocks << " blocks";
      }
    }
  }
}

template <typename T>
void ExpectMoments(double mean, double deviation) {
  constexpr int64_t kCount = 20000;
  const Stream stream;
  const Memory memory(kCount * sizeof(T));
  auto* const values = reinterpret_cast<T*>(memory.data());
  OrDie(LaunchRandom(stream.get(), values, kCount, static_cast<float>(mean), static_cast<float>(deviation), 7),
        "filling");
  stream.Wait();
  double sum = 0.0;
  double squares = 0.0;
  double neighbors = 0.0;
  for (int64_t i = 0; i < kCount; ++i) {
    const double x = (static_cast<double>(ToFloat(values[i])) - mean) / deviation;
    sum += x;
    squares += x * x;
    if (i > 0) neighbors += x * (static_cast<double>(ToFloat(values[i - 1])) - mean) / deviation;
  }
  EXPECT_NEAR(sum / kCount, 0.0, 0.03);
  EXPECT_NEAR(squares / kCount, 1.0, 0.03);
  EXPECT_NEAR(neighbors / kCount, 0.0, 0.03) << "neighbors are not independent";
}

TEST(GpuKernelsTest, RandomValuesHaveTheirMoments) {
  ExpectMoments<float>(3.0, 2.0);
  ExpectMoments<BFloat16>(0.0, 0.5);
}

TEST(GpuBenchTest, AGraphDoesWhatWasOrderedAtEveryReplay) {
  const Stream stream;
  const Memory memory(8);
  std::memset(memory.data(), 0, 8);
  const Graph graph(stream, [&] {
    // A shift by one byte shows how often it was done.
    OrDie(cudaMemcpyAsync(memory.data() + 1, memory.data(), 1, cudaMemcpyDeviceToDevice, stream.get()), "copying");
    OrDie(cudaMemsetAsync(memory.data(), 5, 1, stream.get()), "setting");
  });
  EXPECT_EQ(memory.data()[0], std::byte{0});
  graph.Replay(stream);
  stream.Wait();
  EXPECT_EQ(memory.data()[1], std::byte{0});
  graph.Replay(stream);
  stream.Wait();
  EXPECT_EQ(memory.data()[1], std::byte{5});
}

TEST(GpuBenchTest, TimesAreOfSamplesAfterTheFirst) {
  const Stream stream;
  int num_calls = 0;
  const Spread spread = TimeUs(stream, 4, [&] {
    ++num_calls;
    OrDie(LaunchEmpty(stream.get()), "launching");
  });
  EXPECT_EQ(num_calls, 5);
  EXPECT_EQ(spread.count, 4);
  EXPECT_GT(spread.low, 0.0);
  EXPECT_LE(spread.low, spread.median);
  EXPECT_LE(spread.median, spread.high);
}

TEST(GpuBenchTest, TheMedianOfAnEvenCountIsBetween) {
  EXPECT_EQ(SpreadOf({4.0, 1.0, 2.0, 8.0}).median, 3.0);
  EXPECT_EQ(SpreadOf({5.0, 1.0, 2.0}).median, 2.0);
  EXPECT_EQ(SpreadOf({5.0, 1.0, 2.0}).high, 5.0);
}

TEST(GpuBenchTest, LinesAreJson) {
  testing::internal::CaptureStdout();
  JsonLine()
      .Text("a \"b\"", "c\n")
      .Number("x", 0.25)
      .Number("none", std::numeric_limits<double>::quiet_NaN())
      .Integer("n", -3)
      .Print();
  const auto parsed = nlohmann::json::parse(testing::internal::GetCapturedStdout());
  EXPECT_EQ(parsed, nlohmann::json({{"a \"b\"", "c\n"}, {"x", 0.25}, {"none", nullptr}, {"n", -3}}));
}

TEST(VerbRigTest, TimesEveryCallOfAGraph) {
  VerbRig rig({.max_tokens = 2,
               .hidden_size = 32,
               .max_linear_inputs = 32,
               .num_heads = 1,
               .head_dim = 32,
               .max_positions = 16,
               .num_experts = 2,
               .top_k = 1,
               .max_ffn_size = 32});
  const View weight = rig.Random(DType::kBF16, {3, 32});
  const View x = rig.Random(DType::kF32, {2, 32});
  const View out = rig.Zeros(DType::kF32, {2, 3});
  std::vector<int> calls(2, 0);
  const Spread us = rig.TimeEachUs(
      2,
      [&](int i) {
        ++calls[static_cast<size_t>(i)];
        rig.ops().Linear(out, x, weight, ConstView(), false);
      },
      0.0);
  EXPECT_EQ(calls, std::vector<int>({2, 2})) << "once before, once into the graph";
  EXPECT_GT(us.median, 0.0);
  EXPECT_NE(out.data<float>()[5], 0.0f);
}

TEST(VerbRigTest, ReplaysShortGraphsOften) {
  EXPECT_EQ(ReplaysOfASample(5000.0), 1);
  EXPECT_EQ(ReplaysOfASample(1500.0), 2);
  EXPECT_EQ(ReplaysOfASample(40.0), 50);
  EXPECT_EQ(ReplaysOfASample(0.0), 100);
}

}  // namespace
}  // namespace cadre::gpu
