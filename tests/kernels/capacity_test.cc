// LimitCapacity against a naive definition, and the cases that its words are about. CADRE_CAPACITY_ASSIGNMENTS in the
// environment makes the random part longer: 100000000 takes minutes.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/strings/numbers.h"
#include "gtest/gtest.h"
#include "tests/kernels/op_test.h"
#include "tests/support/capacity_walk.h"

namespace cadre {
namespace {

class CapacityTest : public OpTest {
 protected:
  void SetUp() override {
    if (!ops().can_limit_capacity()) GTEST_SKIP() << "this device does not limit capacity";
  }
};

int64_t NumAssignments(const TestTarget& target) {
  int64_t count = target.num_rounds < TestTarget().num_rounds ? 60000 : 200000;
  const char* const text = std::getenv("CADRE_CAPACITY_ASSIGNMENTS");
  EXPECT_TRUE(text == nullptr || absl::SimpleAtoi(text, &count)) << text;
  return count;
}

TEST_P(CapacityTest, RandomWorldsAreAsTheReferenceSays) {
  std::mt19937 random(23);
  const auto draw = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  const int64_t wanted = NumAssignments(GetParam());
  int64_t total = 0;
  CapacityCounts counts = {};
  for (int world = 0; total < wanted; ++world) {
    const absl::StatusOr<CapacityCounts> of_world = WalkCapacity(device(), {}, draw);
    ASSERT_TRUE(of_world.ok()) << "world " << world << ": " << of_world.status().ToString();
    for (size_t state = 0; state < counts.size(); ++state) counts[state] += (*of_world)[state];
    total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  }
  for (const int64_t count : counts) EXPECT_GT(count, total / 100) << "every state is met often";
}

// Three rows that all like expert 0 best, then 1, then 2; two places for each. Rows are of one sequence.
class SmallCapacityTest : public CapacityTest {
 protected:
  struct Outcome {
    std::vector<int32_t> ids;
    std::vector<float> weights;
    std::vector<int32_t> states;
    std::vector<int64_t> tally;  // [4, E]
    double lost = 0.0;           // of the sequence
  };

  Outcome Limit(const SequenceCapacity& capacity, const std::vector<double>& logits, int64_t top_k,
                const RouterOptions& options_in = {}) {
    RouterOptions options = options_in;
    options.top_k = top_k;
    const int64_t e = 3;
    const int64_t t = static_cast<int64_t>(logits.size()) / e;
    const Tensor z = tensors().Of(DType::kF32, {t, e}, logits);
    const Tensor ids = tensors().Zeros(DType::kI32, {t, top_k});
    const Tensor weights = tensors().Zeros(DType::kF32, {t, top_k});
    const Tensor probabilities = tensors().Zeros(DType::kF32, {t, e});
    const Tensor log_sum_exp = tensors().Zeros(DType::kF32, {t});
    const Tensor row_sequence = tensors().Zeros(DType::kI32, {t});
    Tensor positions = tensors().Zeros(DType::kI32, {t});
    for (int64_t i = 0; i < t; ++i) Tensors::Set(&positions, i, static_cast<double>(i));
    const Tensor sequences = tensors().Zeros(DType::kI32, {1, kSequenceCapacityWords});
    std::memcpy(sequences.view.raw(), &capacity, sizeof(capacity));
    const Tensor taken = tensors().Zeros(DType::kI32, {1, e});
    const Tensor states = tensors().Zeros(DType::kI32, {t, top_k});
    const Tensor outputs = tensors().Zeros(DType::kF32, {t * top_k, 2});
    const Tensor tally = tensors().Zeros(DType::kI64, {kNumAssignmentStates, e});
    const Tensor lost = tensors().Zeros(DType::kF64, {e});
    const Tensor sequence_states = tensors().Zeros(DType::kI64, {1, kNumAssignmentStates});
    const Tensor sequence_lost = tensors().Zeros(DType::kF64, {1});
    ops().RouteTopK(ids.view, weights.view, probabilities.view, log_sum_exp.view, z.view, ConstView(),
                    row_sequence.view, options);
    ops().LimitCapacity({ids.view, weights.view, states.view, outputs.view}, taken.view,
                        {tally.view, lost.view, sequence_states.view, sequence_lost.view},
                        {sequences.view, row_sequence.view, positions.view}, z.view, probabilities.view, ConstView(),
                        options);
    EXPECT_TRUE(device().Synchronize().ok());
    const auto copy = [](auto* values, View view) {
      const auto* const begin = view.data<typename std::remove_reference_t<decltype(*values)>::value_type>();
      values->assign(begin, begin + view.num_elements());
    };
    Outcome outcome;
    copy(&outcome.ids, ids.view);
    copy(&outcome.weights, weights.view);
    copy(&outcome.states, states.view);
    copy(&outcome.tally, tally.view);
    outcome.lost = sequence_lost.view.data<double>()[0];
    return outcome;
  }

  static constexpr int32_t kLost = kPadding;
  static constexpr int32_t kProcessed = 0;
  static constexpr int32_t kRerouted = 1;
  static constexpr int32_t kReweighted = 2;
  static constexpr int32_t kDropped = 3;
  const std::vector<double> alike_ = {3, 2, 1, 3, 2, 1, 3, 2, 1};
  SequenceCapacity capacity_ = {
      .scope = CapacityScope::kRequest, .overflow = Overflow::kDrop, .places = 2, .group = 8, .slot = 0};
};

TEST_P(SmallCapacityTest, TheThirdOfThreeIsDropped) {
  const Outcome outcome = Limit(capacity_, alike_, 1);
  EXPECT_EQ(outcome.ids, (std::vector<int32_t>{0, 0, kLost}));
  EXPECT_EQ(outcome.states, (std::vector<int32_t>{kProcessed, kProcessed, kDropped}));
  EXPECT_EQ(outcome.weights[2], 0.0f);
  EXPECT_EQ(outcome.tally, (std::vector<int64_t>{2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0}));
  EXPECT_NEAR(outcome.lost, 0.665241, 1e-6);  // e^3 / (e^3 + e^2 + e)
}

TEST_P(SmallCapacityTest, AGroupBeginsAtItsMultiple) {
  capacity_.group = 2;
  EXPECT_EQ(Limit(capacity_, alike_, 1).ids, (std::vector<int32_t>{0, 0, 0}));
  capacity_.places = 1;
  EXPECT_EQ(Limit(capacity_, alike_, 1).ids, (std::vector<int32_t>{0, kLost, 0}));
}

TEST_P(SmallCapacityTest, TheNextBestTakesWhoIsRerouted) {
  capacity_.overflow = Overflow::kReroute;
  capacity_.places = 1;
  const Outcome outcome = Limit(capacity_, alike_, 1);
  EXPECT_EQ(outcome.ids, (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(outcome.states, (std::vector<int32_t>{kProcessed, kRerouted, kRerouted}));
  EXPECT_NEAR(outcome.weights[1], 0.244728, 1e-6);  // its own: e^2 / (e^3 + e^2 + e)
  EXPECT_EQ(outcome.tally, (std::vector<int64_t>{1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(outcome.lost, 0.0);
}

TEST_P(SmallCapacityTest, WhoSpillsOverGoesToTheNextBestOrNowhere) {
  capacity_.overflow = Overflow::kReroute;
  capacity_.places = 1;
  const Outcome outcome = Limit(capacity_, alike_, 1, {.spill_over = 1});
  EXPECT_EQ(outcome.ids, (std::vector<int32_t>{0, 1, kLost}));
  EXPECT_EQ(outcome.states, (std::vector<int32_t>{kProcessed, kRerouted, kDropped}));
  EXPECT_EQ(Limit(capacity_, alike_, 1, {.spill_over = 2}).ids, (std::vector<int32_t>{0, 1, 2}));
}

TEST_P(SmallCapacityTest, PlacesThatARowDoesNotUseAreInNoState) {
  const Outcome outcome = Limit(capacity_, alike_, 3, {.top_p = 0.7f});  // 0.665 and 0.245 are enough
  EXPECT_EQ(outcome.ids, (std::vector<int32_t>{0, 1, kPadding, 0, 1, kPadding, kLost, kLost, kPadding}));
  EXPECT_EQ(outcome.states, (std::vector<int32_t>{kProcessed, kProcessed, kPadding, kProcessed, kProcessed, kPadding,
                                                  kDropped, kDropped, kPadding}));
  EXPECT_EQ(outcome.tally, (std::vector<int64_t>{2, 2, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0}));
}

TEST_P(SmallCapacityTest, WhoFindsNoWayOutIsDropped) {
  capacity_.overflow = Overflow::kReroute;
  capacity_.places = 1;
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Outcome outcome = Limit(capacity_, {3, 2, 1, 3, -inf, nan}, 1);
  EXPECT_EQ(outcome.ids, (std::vector<int32_t>{0, kLost}));
  EXPECT_EQ(outcome.states[1], kDropped);
}

TEST_P(SmallCapacityTest, WhatIsLeftTakesTheWeightOfWhatIsLost) {
  capacity_.overflow = Overflow::kReweight;
  const std::vector<double> logits = {3, 2, 1, 3, 2, 1, 3, 1, 2};  // the third row: experts 0 and 2
  const Outcome outcome = Limit(capacity_, logits, 2, {.norm = WeightNorm::kSum});
  EXPECT_EQ(outcome.ids, (std::vector<int32_t>{0, 1, 0, 1, kLost, 2}));
  EXPECT_EQ(outcome.states[4], kReweighted);
  EXPECT_EQ(outcome.states[5], kProcessed);
  EXPECT_NEAR(outcome.weights[5], 1.0f, 1e-6);
  EXPECT_NEAR(outcome.lost, 0.731059, 1e-6);  // 1 / (1 + 1/e)
}

TEST_P(SmallCapacityTest, WithNothingLeftThereIsNothingToReweight) {
  capacity_.overflow = Overflow::kReweight;
  capacity_.places = 0;
  const Outcome outcome = Limit(capacity_, alike_, 2);
  for (const int32_t state : outcome.states) EXPECT_EQ(state, kDropped);
  for (const float weight : outcome.weights) EXPECT_EQ(weight, 0.0f);
}

TEST_P(SmallCapacityTest, InABatchTheHighestWeightComesFirst) {
  capacity_.scope = CapacityScope::kBatch;
  capacity_.places = 1;
  EXPECT_EQ(Limit(capacity_, {3, 2, 1, 4, 2, 1, 3, 2, 1}, 1).ids, (std::vector<int32_t>{kLost, 0, kLost}));
  EXPECT_EQ(Limit(capacity_, alike_, 1).ids, (std::vector<int32_t>{0, kLost, kLost})) << "ties: by position";
  capacity_.overflow = Overflow::kReroute;
  EXPECT_EQ(Limit(capacity_, {3, 2, 1, 4, 2, 1, 2, 3, 1}, 1).ids, (std::vector<int32_t>{2, 0, 1}));
}

CADRE_INSTANTIATE_OP_TEST(CapacityTest);
CADRE_INSTANTIATE_OP_TEST(SmallCapacityTest);

}  // namespace
}  // namespace cadre
