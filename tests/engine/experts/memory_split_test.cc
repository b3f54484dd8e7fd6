#include "engine/experts/memory_split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace cadre {
namespace {

// A slot is as large as 2.5 blocks.
constexpr MemorySplitOptions kOptions{.budget_bytes = 100'000,
                                      .slot_bytes = 500,
                                      .block_bytes = 200,
                                      .min_slots = 10,
                                      .max_slots = 150,
                                      .min_blocks = 20,
                                      .max_blocks = 400,
                                      .step_slots = 4};
constexpr MemoryShares kHalf{.slots = 100, .blocks = 250};

// 10 s in which more slots would have saved 2 s, and blocks lay idle.
constexpr MemoryObservation kMissing{.seconds = 10,
                                     .hits_gained = 200,
                                     .hits_lost = 300,
                                     .load_seconds = 0.01,
                                     .running_requests = 4,
                                     .idle_blocks = 50,
                                     .block_seconds = 0.02};
// 10 s in which 20 blocks more would have saved 2 s, and fewer slots cost next to nothing.
constexpr MemoryObservation kStarved{.seconds = 10,
                                     .hits_gained = 1,
                                     .hits_lost = 1,
                                     .load_seconds = 0.01,
                                     .recompute_seconds = 1,
                                     .waiting_seconds = 4,
                                     .running_requests = 4,
                                     .blocks_wanted = 20,
                                     .idle_blocks = 0,
                                     .block_seconds = 0.02};

TEST(MemorySplit, SecondsByHand) {
  const MemorySplit split(kOptions, kHalf);
  const MemoryEffects missing = split.Effects(kMissing);
  EXPECT_DOUBLE_EQ(missing.slots_gain, 2.0);
  EXPECT_DOUBLE_EQ(missing.slots_loss, 3.0);
  EXPECT_DOUBLE_EQ(missing.blocks_gain, 0.0);
  EXPECT_DOUBLE_EQ(missing.blocks_loss, 0.0) << "10 blocks of 50 that lay idle";
  const MemoryEffects starved = split.Effects(kStarved);
  EXPECT_DOUBLE_EQ(starved.blocks_gain, 1.0) << "10 blocks of 20 that were wanted, for 1 s + 4 s / 4";
  EXPECT_DOUBLE_EQ(starved.blocks_loss, 1.0) << "10 blocks at 0.1 s";
  MemoryObservation busy = kStarved;
  busy.recompute_seconds = busy.waiting_seconds = 0;
  EXPECT_DOUBLE_EQ(split.Effects(busy).blocks_loss, 0.2) << "10 blocks in use are computed again";
}

TEST(MemorySplit, MovesOneStepAfterPatience) {
  MemorySplit split(kOptions, kHalf);
  EXPECT_EQ(split.Observe(kMissing), std::nullopt);
  EXPECT_EQ(split.Observe(kMissing), std::nullopt);
  EXPECT_EQ(split.Observe({}), std::nullopt) << "which ends the row";
  EXPECT_EQ(split.Observe(kMissing), std::nullopt);
  EXPECT_EQ(split.Observe(kMissing), std::nullopt);
  const MemoryShares more_slots{.slots = 104, .blocks = 240};
  EXPECT_EQ(split.Observe(kMissing), more_slots);
  EXPECT_EQ(split.shares(), kHalf);
  EXPECT_EQ(split.Observe(kMissing), more_slots) << "until it is done";
  split.SetShares(more_slots);
  EXPECT_EQ(split.Observe(kMissing), std::nullopt) << "the row begins anew";
}

TEST(MemorySplit, MovesToBlocksWhenTheyAreMissing) {
  MemorySplit split(kOptions, kHalf);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(split.Observe(kStarved), std::nullopt);
  EXPECT_EQ(split.Observe(kStarved), (MemoryShares{.slots = 96, .blocks = 260}));
}

TEST(MemorySplit, SmallGainsMoveNothing) {
  MemoryObservation small = kMissing;
  small.hits_gained = 9;  // 0.09 s of 10
  MemoryObservation close = kMissing;
  close.idle_blocks = 0;
  close.block_seconds = 0.14;  // 2 s against 1.4 s
  MemorySplit split(kOptions, kHalf);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(split.Observe(i % 2 == 0 ? small : close), std::nullopt);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(split.Observe(close), std::nullopt);
}

TEST(MemorySplit, WhatIsNotMeasuredMovesNothing) {
  MemorySplit split(kOptions, kHalf);
  for (const double wrong : {-1.0, std::numeric_limits<double>::infinity(), std::nan("")}) {
    for (double MemoryObservation::*field : {&MemoryObservation::seconds, &MemoryObservation::load_seconds,
                                             &MemoryObservation::recompute_seconds, &MemoryObservation::waiting_seconds,
                                             &MemoryObservation::running_requests, &MemoryObservation::block_seconds}) {
      MemoryObservation observation = kMissing;
      observation.*field = wrong;
      for (int i = 0; i < 10; ++i) EXPECT_EQ(split.Observe(observation), std::nullopt);
    }
  }
  for (int64_t MemoryObservation::*field : {&MemoryObservation::hits_gained, &MemoryObservation::hits_lost,
                                            &MemoryObservation::blocks_wanted, &MemoryObservation::idle_blocks}) {
    MemoryObservation observation = kMissing;
    observation.*field = -1;
    for (int i = 0; i < 10; ++i) EXPECT_EQ(split.Observe(observation), std::nullopt);
  }
}

struct Moves {
  int all = 0;
  int reversals = 0;  // in the other direction than the one before
};

// Does what it wants, at once.
template <typename Observer>
Moves Follow(MemorySplit* split, int num_observations, const Observer& observe) {
  Moves moves;
  int64_t last = 0;
  for (int i = 0; i < num_observations; ++i) {
    const std::optional<MemoryShares> wanted = split->Observe(observe(split->shares()));
    if (!wanted.has_value()) continue;
    const int64_t move = wanted->slots - split->shares().slots;
    ++moves.all;
    moves.reversals += last * move < 0 ? 1 : 0;
    last = move;
    split->SetShares(*wanted);
  }
  return moves;
}

TEST(MemorySplit, StopsAtItsLimits) {
  MemorySplit to_slots(kOptions, kHalf);
  EXPECT_EQ(Follow(&to_slots, 1000, [](const MemoryShares&) { return kMissing; }).reversals, 0);
  EXPECT_EQ(to_slots.shares(), (MemoryShares{.slots = 148, .blocks = 130}));
  MemorySplit to_blocks(kOptions, kHalf);
  EXPECT_EQ(Follow(&to_blocks, 1000, [](const MemoryShares&) { return kStarved; }).reversals, 0);
  EXPECT_EQ(to_blocks.shares(), (MemoryShares{.slots = 40, .blocks = 400}));
}

TEST(MemorySplit, BytesThatNobodyHasGoFirst) {
  MemorySplit split(kOptions, {.slots = 100, .blocks = 245});  // 1,000 bytes are left
  for (int i = 0; i < 2; ++i) split.Observe(kMissing);
  EXPECT_EQ(split.Observe(kMissing), (MemoryShares{.slots = 104, .blocks = 240}));
}

// Observations that contradict the latest move, the worst there can be for it.
TEST(MemorySplit, TurnsBackLessAndLessOften) {
  MemorySplit split(kOptions, kHalf);
  const auto contrary = [](const MemoryShares& shares) { return shares.slots > 100 ? kStarved : kMissing; };
  constexpr int kNumObservations = 1500;
  const int num_reversals = Follow(&split, kNumObservations, contrary).reversals;
  EXPECT_GT(num_reversals, 2) << "a load that has changed for good is followed";
  EXPECT_LE(num_reversals, std::log2(kNumObservations / 3 + 1));
}

TEST(MemorySplit, AsksForWhatItDidNotGetLessAndLessOften) {
  MemorySplit split(kOptions, kHalf);
  std::vector<int> asked;
  for (int i = 1; i <= 60; ++i) {
    const std::optional<MemoryShares> wanted = split.Observe(kMissing);
    if (!wanted) continue;
    asked.push_back(i);
    split.Refuse(*wanted);
  }
  EXPECT_EQ(asked, (std::vector<int>{3, 3 + 6, 3 + 6 + 12, 3 + 6 + 12 + 24}));
  // The other way it may go as soon as ever.
  std::optional<MemoryShares> other;
  for (int i = 0; i < kOptions.patience; ++i) other = split.Observe(kStarved);
  EXPECT_TRUE(other.has_value());
}

TEST(MemorySplit, WhatMovesMakesItForgetRefusals) {
  MemorySplit split(kOptions, kHalf);
  std::optional<MemoryShares> wanted;
  while (!wanted) wanted = split.Observe(kMissing);
  split.Refuse(*wanted);
  split.SetShares(*wanted);  // asked for by somebody else
  for (int i = 1; i < kOptions.patience; ++i) EXPECT_FALSE(split.Observe(kMissing).has_value());
  EXPECT_TRUE(split.Observe(kMissing).has_value());
}

TEST(MemorySplit, TriesAgainWhenTheReasonOfARefusalIsGone) {
  MemorySplit split(kOptions, kHalf);
  std::optional<MemoryShares> wanted;
  while (!wanted) wanted = split.Observe(kMissing);
  split.Refuse(*wanted);
  split.ForgetRefusal();
  for (int i = 1; i < kOptions.patience; ++i) EXPECT_FALSE(split.Observe(kMissing).has_value());
  EXPECT_TRUE(split.Observe(kMissing).has_value());
}

TEST(MemorySplit, StaysWithinLimitsAndBudgetWhateverItIsTold) {
  std::mt19937 random(41);
  const auto up_to = [&](double most) { return std::uniform_real_distribution<>(0.0, most)(random); };
  int num_moves = 0;
  for (int world = 0; world < 50; ++world) {
    MemorySplitOptions options = kOptions;
    options.slot_bytes = 1 + static_cast<int64_t>(random() % 900);
    options.block_bytes = 1 + static_cast<int64_t>(random() % 900);
    options.step_slots = 1 + static_cast<int64_t>(random() % 20);
    options.patience = 1 + static_cast<int32_t>(random() % 3);
    options.budget_bytes = 60 * (options.slot_bytes + options.block_bytes);
    options.max_slots = 10 + static_cast<int64_t>(random() % 200);
    MemorySplit split(options, {.slots = 10, .blocks = 20});
    const Moves moves = Follow(&split, 2000, [&](const MemoryShares& shares) {
      EXPECT_GE(shares.slots, options.min_slots);
      EXPECT_LE(shares.slots, options.max_slots);
      EXPECT_GE(shares.blocks, options.min_blocks);
      EXPECT_LE(shares.blocks, options.max_blocks);
      EXPECT_LE(shares.slots * options.slot_bytes + shares.blocks * options.block_bytes, options.budget_bytes);
      return MemoryObservation{.seconds = up_to(10),
                               .hits_gained = static_cast<int64_t>(up_to(1000)),
                               .hits_lost = static_cast<int64_t>(up_to(1000)),
                               .load_seconds = up_to(0.02),
                               .recompute_seconds = up_to(10),
                               .waiting_seconds = up_to(100),
                               .running_requests = up_to(32),
                               .blocks_wanted = static_cast<int64_t>(up_to(200)),
                               .idle_blocks = static_cast<int64_t>(up_to(100)),
                               .block_seconds = up_to(0.1)};
    });
    num_moves += moves.all;
    EXPECT_LE(moves.reversals, std::log2(2000 / options.patience + 1));
  }
  EXPECT_GT(num_moves, 1000);
}

// A load that does not change: with s slots and b blocks a stretch loses m / s + w / b seconds, so that more of either
// brings less and less. What is observed of it is wrong by up to a factor either way.
struct SteadyLoad {
  double misses = 0;
  double want = 0;
  double error = 1;

  double Lost(double slots, double blocks) const { return misses / slots + want / blocks; }

  template <typename Random>
  MemoryObservation Observe(const MemoryShares& shares, const MemorySplitOptions& options, Random* random) const {
    const auto blurred = [&](double value) {
      return value * std::pow(error, std::uniform_real_distribution<>(-1, 1)(*random));
    };
    const auto s = static_cast<double>(shares.slots);
    const auto b = static_cast<double>(shares.blocks);
    const auto step = static_cast<double>(options.step_slots);
    const double step_blocks =
        step * static_cast<double>(options.slot_bytes) / static_cast<double>(options.block_bytes);
    constexpr double kLoadSeconds = 1e-6;  // so that counts are as good as real numbers
    const auto hits = [&](double seconds) { return static_cast<int64_t>(blurred(seconds) / kLoadSeconds); };
    return {.seconds = 10,
            .hits_gained = hits(misses / s - misses / (s + step)),
            .hits_lost = hits(misses / (s - step) - misses / s),
            .load_seconds = kLoadSeconds,
            .recompute_seconds = blurred(want / b - want / (b + step_blocks)),
            .blocks_wanted = static_cast<int64_t>(step_blocks),
            .block_seconds = blurred(want / (b - step_blocks) - want / b) / step_blocks};
  }
};

TEST(MemorySplit, ComesToRestNearTheBestUnderASteadyLoad) {
  std::mt19937 random(43);
  int num_moved = 0;
  for (int world = 0; world < 200; ++world) {
    const SteadyLoad load{.misses = 20 + static_cast<double>(random() % 2000),
                          .want = 20 + static_cast<double>(random() % 5000),
                          .error = 1.2};
    const MemorySplitOptions options = kOptions;
    const int64_t slots = 44 + 4 * static_cast<int64_t>(random() % 26);
    const MemoryShares initial{.slots = slots, .blocks = (options.budget_bytes - slots * 500) / 200};
    MemorySplit split(options, initial);
    const auto observe = [&](const MemoryShares& shares) { return load.Observe(shares, options, &random); };
    ASSERT_EQ(Follow(&split, 3000, observe).reversals, 0) << "world " << world;
    const auto lost = [&](int64_t s) {
      const int64_t blocks = (options.budget_bytes - s * 500) / 200;
      return load.Lost(static_cast<double>(s), static_cast<double>(blocks));
    };
    double best = lost(initial.slots);
    for (int64_t s = 40; s <= 148; s += 4) best = std::min(best, lost(s));
    const double end = lost(split.shares().slots);
    EXPECT_LE(end, lost(initial.slots) * 1.0001) << "world " << world;
    // Where a step gains less than half as much again as it loses, or less than a hundredth of the time, it stays: at
    // most so much is left in all the steps that remain.
    EXPECT_LE(end - best, 0.25 * best + 0.1 * 27) << "world " << world;
    num_moved += split.shares() == initial ? 0 : 1;
    EXPECT_LE(Follow(&split, 1000, observe).all, 1) << "world " << world;
  }
  EXPECT_GT(num_moved, 50);
}

TEST(MemorySplit, SharesThatBreakALimitAreToldWhichOne) {
  EXPECT_TRUE(CheckShares(kOptions, kHalf).ok());
  const auto message = [](int64_t slots, int64_t blocks) {
    return std::string(CheckShares(kOptions, {.slots = slots, .blocks = blocks}).message());
  };
  EXPECT_EQ(message(9, 250), "expert slots are to be 9, must be 10 to 150");
  EXPECT_EQ(message(100, 401), "KV blocks are to be 401, must be 20 to 400");
  EXPECT_EQ(message(101, 250), "101 expert slots and 250 KV blocks take 100500 bytes, the budget is 100000");
}

TEST(MemorySplitDeathTest, WhatIsRequiredIsChecked) {
  const auto make = [](auto change) {
    MemorySplitOptions options = kOptions;
    change(&options);
    MemorySplit split(options, kHalf);
  };
  EXPECT_DEATH(make([](auto* options) { options->slot_bytes = 0; }), "slot_bytes");
  EXPECT_DEATH(make([](auto* options) { options->block_bytes = 0; }), "block_bytes");
  EXPECT_DEATH(make([](auto* options) { options->min_slots = 0; }), "min_slots");
  EXPECT_DEATH(make([](auto* options) { options->min_blocks = 0; }), "min_blocks");
  EXPECT_DEATH(make([](auto* options) { options->step_slots = 0; }), "step_slots");
  EXPECT_DEATH(make([](auto* options) { options->margin = -1; }), "margin");
  EXPECT_DEATH(make([](auto* options) { options->min_gain = -1; }), "min_gain");
  EXPECT_DEATH(make([](auto* options) { options->patience = 0; }), "patience");
  EXPECT_DEATH(make([](auto* options) { options->max_reversal_patience = 2; }), "max_reversal_patience");
  EXPECT_DEATH(make([](auto* options) { options->budget_bytes = 99'999; }), "IsWithin");
  EXPECT_DEATH(make([](auto* options) { options->max_slots = 99; }), "IsWithin");
  MemorySplit split(kOptions, kHalf);
  EXPECT_DEATH(split.SetShares({.slots = 101, .blocks = 250}), "IsWithin");
}

}  // namespace
}  // namespace cadre
