#include "engine/expert_pins.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>
#include <thread>
#include <vector>

namespace cadre {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class KeepingRunner final : public ModelRunner {
 public:
  explicit KeepingRunner(int64_t num_slots) {
    limits_.num_moe_layers = 2;
    limits_.num_experts = 4;
    limits_.num_expert_slots = num_slots;
  }

  const RunnerLimits& limits() const override { return limits_; }
  absl::Status Forward(const ForwardBatch&, ForwardResult*) override { return absl::OkStatus(); }
  void ScrubBlocks(std::span<const int32_t>) override {}
  std::vector<ExpertId> kept_experts() const override { return {6, 1}; }
  void KeepExperts(const std::vector<ExpertId>& experts) override {
    kept = experts;
    ++num_calls;
  }

  std::vector<ExpertId> kept;
  int num_calls = 0;

 private:
  RunnerLimits limits_;
};

TEST(ExpertPinsTest, WhatIsPinnedHoldsItsSlots) {
  KeepingRunner runner(5);
  ExpertPins pins(&runner);
  EXPECT_FALSE(pins.SetNumSlots(2)) << "two are pinned, and one place stays free";
  EXPECT_EQ(pins.max_pinned(), 4);
  EXPECT_TRUE(pins.SetNumSlots(3));
  EXPECT_EQ(pins.max_pinned(), 2);
  EXPECT_FALSE(pins.Set({1, 2, 3}).ok());
  EXPECT_TRUE(pins.SetNumSlots(8));
  EXPECT_TRUE(pins.Set({1, 2, 3, 4, 5}).ok());
}

TEST(ExpertPinsTest, ASetTakesThePlaceOfTheLastOne) {
  KeepingRunner runner(5);
  ExpertPins pins(&runner);
  EXPECT_EQ(pins.max_pinned(), 4);
  EXPECT_THAT(pins.pinned(), ElementsAre(6, 1)) << "the profile's";
  pins.Apply();
  EXPECT_EQ(runner.num_calls, 0) << "which the runner knows";

  const auto change = pins.Set({7, 3, 7, 0, 3});
  ASSERT_TRUE(change.ok()) << change.status();
  EXPECT_EQ(change->before, 2);
  EXPECT_EQ(change->now, 3);
  EXPECT_THAT(pins.pinned(), ElementsAre(7, 3, 0));
  pins.Apply();
  pins.Apply();
  EXPECT_THAT(runner.kept, ElementsAre(7, 3, 0));
  EXPECT_EQ(runner.num_calls, 1);

  ASSERT_TRUE(pins.Set({1, 2}).ok());
  ASSERT_TRUE(pins.Set({}).ok());
  pins.Apply();
  EXPECT_THAT(runner.kept, IsEmpty()) << "the last one";
  EXPECT_EQ(runner.num_calls, 2);
}

TEST(ExpertPinsTest, OnePlaceStaysFree) {
  KeepingRunner runner(3);
  ExpertPins pins(&runner);
  EXPECT_TRUE(pins.Set({0, 1, 0, 1}).ok());
  const auto change = pins.Set({0, 1, 2});
  EXPECT_EQ(change.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(change.status().message(),
            "3 experts are more than 2: there is memory for 3, and one place stays free for the others");
  EXPECT_THAT(pins.pinned(), ElementsAre(0, 1)) << "nothing has changed";
}

TEST(ExpertPinsTest, NothingIsPinnedWhereEverythingIsThere) {
  KeepingRunner runner(0);
  ExpertPins pins(&runner);
  EXPECT_EQ(pins.max_pinned(), 0);
  EXPECT_EQ(pins.Set({0}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(pins.Set({}).status().code(), absl::StatusCode::kFailedPrecondition);
  pins.Apply();
  EXPECT_EQ(runner.num_calls, 0);
}

TEST(ExpertPinsTest, AnyThreadSetsWhileTheEngineApplies) {
  KeepingRunner runner(8);
  ExpertPins pins(&runner);
  std::thread operator_thread([&pins] {
    for (int i = 0; i < 1000; ++i) EXPECT_TRUE(pins.Set({i % 8, (i + 1) % 8}).ok());
  });
  for (int i = 0; i < 1000; ++i) pins.Apply();
  operator_thread.join();
  pins.Apply();
  EXPECT_THAT(runner.kept, ElementsAre(7, 0));
}

}  // namespace
}  // namespace cadre
