// Moves that cannot be carried out: a runner that has no more memory to give, and pinned experts.
#include "engine/joint_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "engine/expert_pins.h"
#include "engine/model/model_runner.h"
#include "engine/schedule/block_pool.h"
#include "engine/schedule/scheduler.h"

namespace cadre {
namespace {

using testing::HasSubstr;

constexpr MemoryShares kInitial{.slots = 8, .blocks = 40};
// A slot is as large as five blocks.
constexpr MemorySplitOptions kLimits{.budget_bytes = 8 * 500 + 40 * 100,
                                     .slot_bytes = 500,
                                     .block_bytes = 100,
                                     .min_slots = 2,
                                     .max_slots = 12,
                                     .min_blocks = 16,
                                     .max_blocks = 70};

// Counts the memory of both, and can run out of it.
class PoorRunner final : public ModelRunner {
 public:
  const RunnerLimits& limits() const override { return limits_; }
  absl::Status Forward(const ForwardBatch& /*batch*/, ForwardResult* /*result*/) override { return absl::OkStatus(); }
  void ScrubBlocks(std::span<const int32_t> /*blocks*/) override {}
  std::optional<MemoryRoom> memory_room() const override { return {{.limits = kLimits, .initial = kInitial}}; }
  absl::StatusOr<bool> ShrinkExpertSlots(int64_t count) override {
    has.slots = count;
    return true;
  }
  void ShrinkKvBlocks(int32_t count) override { has.blocks = count; }
  absl::Status GrowExpertSlots(int64_t count) override {
    return Grow({.slots = count, .blocks = has.blocks}, "slots are not to be had");
  }
  absl::Status GrowKvBlocks(int32_t count) override {
    return Grow({.slots = has.slots, .blocks = count}, "blocks are not to be had");
  }

  MemoryShares has = kInitial;
  int64_t most_blocks = kLimits.max_blocks;
  int64_t most_slots = kLimits.max_slots;

 private:
  absl::Status Grow(const MemoryShares& wanted, const char* refusal) {
    if (wanted.slots > most_slots || wanted.blocks > most_blocks) return absl::ResourceExhaustedError(refusal);
    has = wanted;
    return absl::OkStatus();
  }

  const RunnerLimits limits_ = {.num_moe_layers = 1, .num_experts = 12, .num_expert_slots = kInitial.slots};
};

class JointBudgetTest : public testing::Test {
 protected:
  MemoryMove Move(const MemoryShares& wanted) {
    EXPECT_TRUE(budget_.Ask(wanted).ok());
    const std::optional<MemoryMove> move = budget_.Advance(/*may_begin=*/true);
    if (move) return *move;
    ADD_FAILURE() << "nothing has ended";
    return {};
  }

  PoorRunner runner_;
  BlockPool pool_{static_cast<int32_t>(kLimits.max_blocks)};
  Scheduler scheduler_{{.max_num_seqs = 8, .max_num_batched_tokens = 64, .block_size = 4, .max_sequence_blocks = 16},
                       &pool_};
  ExpertPins pins_{&runner_};
  JointBudget budget_{&runner_, &scheduler_, &pins_};
};

TEST_F(JointBudgetTest, SlotsComeBackWhenBlocksCannotBeHad) {
  runner_.most_blocks = kInitial.blocks;
  const MemoryMove move = Move({.slots = 6, .blocks = 50});
  EXPECT_EQ(move.status, absl::ResourceExhaustedError("blocks are not to be had"));
  EXPECT_EQ(move.from, kInitial);
  EXPECT_EQ(move.to, kInitial);
  EXPECT_EQ(runner_.has, kInitial);
  EXPECT_EQ(budget_.Report().shares, kInitial);
  EXPECT_EQ(budget_.Report().moves_to_slots + budget_.Report().moves_to_blocks, 0);
  EXPECT_EQ(pins_.max_pinned(), kInitial.slots - 1);
}

TEST_F(JointBudgetTest, BlocksComeBackWhenSlotsCannotBeHad) {
  runner_.most_slots = kInitial.slots;
  const MemoryMove move = Move({.slots = 10, .blocks = 30});
  EXPECT_EQ(move.status, absl::ResourceExhaustedError("slots are not to be had"));
  EXPECT_EQ(move.to, kInitial);
  EXPECT_EQ(runner_.has, kInitial);
  EXPECT_EQ(pool_.num_available(), kInitial.blocks);
}

TEST_F(JointBudgetTest, WhatCannotBeHadBackIsNotCounted) {
  runner_.most_blocks = kInitial.blocks;
  runner_.most_slots = 6;
  const MemoryMove move = Move({.slots = 6, .blocks = 50});
  EXPECT_FALSE(move.status.ok());
  EXPECT_EQ(move.to, (MemoryShares{.slots = 6, .blocks = kInitial.blocks}));
  EXPECT_EQ(runner_.has, move.to);
  EXPECT_EQ(budget_.Report().shares, move.to);
}

TEST_F(JointBudgetTest, PinsThatForbidAMoveAreTold) {
  ASSERT_TRUE(pins_.Set({0, 1, 2, 3, 4, 5}).ok());
  const MemoryMove move = Move({.slots = 6, .blocks = 50});
  EXPECT_TRUE(absl::IsFailedPrecondition(move.status)) << move.status;
  EXPECT_THAT(std::string(move.status.message()), HasSubstr("6 experts are pinned, and of 6 slots one is to stay"));
  EXPECT_EQ(move.to, kInitial);
  EXPECT_EQ(runner_.has, kInitial);
  EXPECT_FALSE(budget_.is_moving());
  EXPECT_TRUE(Move({.slots = 7, .blocks = 45}).status.ok());
}

}  // namespace
}  // namespace cadre
