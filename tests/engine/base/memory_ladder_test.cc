#include "engine/base/memory_ladder.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace cadre {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// A ladder with a clock.
class Climber {
 public:
  MemoryPressure See(int64_t room_mib, absl::Duration later = absl::Milliseconds(100), int64_t headroom_mib = 100) {
    now_ += later;
    return ladder.Observe({.room = room_mib * kMiB, .headroom = headroom_mib * kMiB}, now_);
  }

  MemoryLadder ladder;

 private:
  absl::Time now_ = absl::UnixEpoch();
};

TEST(MemoryLadderTest, EachLevelHasItsShareOfTheHeadroomInOrder) {
  Climber climber;
  EXPECT_EQ(climber.See(50), MemoryPressure::kNone);
  EXPECT_EQ(climber.See(49), MemoryPressure::kShortenQueue);
  EXPECT_EQ(climber.See(34), MemoryPressure::kShortenQueue);
  EXPECT_EQ(climber.See(33), MemoryPressure::kRefuse);
  EXPECT_EQ(climber.See(20), MemoryPressure::kRefuse);
  EXPECT_EQ(climber.See(19), MemoryPressure::kEvict);
  EXPECT_EQ(climber.See(10), MemoryPressure::kEvict);
  EXPECT_EQ(climber.See(9), MemoryPressure::kPreempt);
  EXPECT_EQ(climber.ladder.num_entries(), (MemoryEntries{0, 1, 1, 1, 1}));
}

TEST(MemoryLadderTest, AFallIsCountedAtEveryLevelThatItPasses) {
  Climber climber;
  EXPECT_EQ(climber.See(100), MemoryPressure::kNone);
  EXPECT_EQ(climber.See(0), MemoryPressure::kPreempt);
  EXPECT_EQ(climber.ladder.num_entries(), (MemoryEntries{0, 1, 1, 1, 1}));
}

TEST(MemoryLadderTest, OnALargeMachineFixedAmountsAreKeptFree) {
  Climber climber;
  const int64_t headroom = 500 * 1024;
  const absl::Duration tick = absl::Milliseconds(100);
  EXPECT_EQ(climber.See(1024, tick, headroom), MemoryPressure::kNone);
  EXPECT_EQ(climber.See(1023, tick, headroom), MemoryPressure::kShortenQueue);
  EXPECT_EQ(climber.See(511, tick, headroom), MemoryPressure::kRefuse);
  EXPECT_EQ(climber.See(255, tick, headroom), MemoryPressure::kEvict);
  EXPECT_EQ(climber.See(127, tick, headroom), MemoryPressure::kPreempt);
}

TEST(MemoryLadderTest, ALevelIsLeftAfterTenSecondsOfCalm) {
  Climber climber;
  EXPECT_EQ(climber.See(30), MemoryPressure::kRefuse);
  EXPECT_EQ(climber.See(100, absl::Seconds(9)), MemoryPressure::kRefuse);
  EXPECT_EQ(climber.See(100, absl::Seconds(1)), MemoryPressure::kNone);
}

TEST(MemoryLadderTest, RoomJustAboveTheThresholdIsNoCalm) {
  Climber climber;
  EXPECT_EQ(climber.See(33), MemoryPressure::kRefuse);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(climber.See(40, absl::Seconds(1)), MemoryPressure::kRefuse);
  // A quarter above a third of 100 is 42.
  for (int i = 0; i < 9; ++i) EXPECT_EQ(climber.See(42, absl::Seconds(1)), MemoryPressure::kRefuse) << i;
  EXPECT_EQ(climber.See(42, absl::Seconds(1)), MemoryPressure::kShortenQueue);
}

TEST(MemoryLadderTest, ItComesDownToWhatWasNeededMeanwhile) {
  Climber climber;
  EXPECT_EQ(climber.See(5), MemoryPressure::kPreempt);
  EXPECT_EQ(climber.See(15, absl::Seconds(5)), MemoryPressure::kPreempt);  // asks for kEvict, once
  EXPECT_EQ(climber.See(100, absl::Seconds(5)), MemoryPressure::kEvict);
  EXPECT_EQ(climber.See(100, absl::Seconds(10)), MemoryPressure::kNone);
}

TEST(MemoryLadderTest, NoRoomIsTheHighestLevelWhateverTheHeadroom) {
  for (const int64_t headroom : {-5, 0, 1, 1 << 20}) {
    Climber climber;
    EXPECT_EQ(climber.See(0, absl::Seconds(1), headroom), MemoryPressure::kPreempt) << headroom;
  }
}

// However the readings jump, no level is entered twice within kCalm.
TEST(MemoryLadderTest, NoLevelFlapsMoreThanOnceInTenSeconds) {
  std::mt19937_64 random(7);
  for (int run = 0; run < 20; ++run) {
    Climber climber;
    std::array<std::vector<absl::Duration>, kNumMemoryPressures> entered;
    absl::Duration age = absl::ZeroDuration();
    MemoryPressure before = MemoryPressure::kNone;
    int64_t changes = 0;
    for (int i = 0; i < 3000; ++i) {
      const absl::Duration later = absl::Milliseconds(50 + random() % 100);
      age += later;
      // Long quiet times now and then, else it would never come down.
      const bool is_quiet = (i / 300) % 2 == 1;
      const MemoryPressure level = climber.See(is_quiet ? 90 : static_cast<int64_t>(random() % 120), later);
      for (int l = static_cast<int>(before) + 1; l <= static_cast<int>(level); ++l) {
        entered[static_cast<size_t>(l)].push_back(age);
      }
      changes += level != before;
      before = level;
    }
    EXPECT_GT(changes, 4);
    for (const std::vector<absl::Duration>& times : entered) {
      for (size_t i = 1; i < times.size(); ++i) EXPECT_GE(times[i] - times[i - 1], MemoryLadder::kCalm);
    }
  }
}

}  // namespace
}  // namespace cadre
