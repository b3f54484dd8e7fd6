#include "server/placing_log.h"

#include <gtest/gtest.h>

namespace cadre {
namespace {

ExpertCacheReport Report(int64_t placed, int64_t awaited) {
  ExpertCacheReport report;
  report.slots.placed_loads = placed + 100;  // begun, and no matter
  report.placed = placed;
  report.awaited = awaited;
  return report;
}

TEST(PlacingLogTest, TellsTheBeginningSomeOfTheMiddleAndTheEnd) {
  PlacingLog log;
  absl::Time now = absl::UnixEpoch();
  EXPECT_EQ(log.Observe(Report(0, 0), now), std::nullopt);
  EXPECT_EQ(log.Observe(Report(1, 40), now), "reading experts ahead: 40");
  EXPECT_EQ(log.Observe(Report(2, 39), now + absl::Seconds(4)), std::nullopt);
  EXPECT_EQ(log.Observe(Report(9, 32), now + absl::Seconds(5)), "reading experts ahead: 9 read, 32 are still to come");
  EXPECT_EQ(log.Observe(Report(10, 31), now + absl::Seconds(14)), std::nullopt);
  EXPECT_EQ(log.Observe(Report(40, 0), now + absl::Seconds(16)), "experts read ahead: 40 in 16s");
  EXPECT_EQ(log.Observe(Report(40, 0), now + absl::Seconds(17)), std::nullopt);
  // Pins that come later are counted anew.
  now += absl::Minutes(1);
  EXPECT_EQ(log.Observe(Report(40, 3), now), "reading experts ahead: 3");
  EXPECT_EQ(log.Observe(Report(43, 0), now + absl::Milliseconds(1550)), "experts read ahead: 3 in 1.5s");
}

TEST(PlacingLogTest, WhatWasOverBeforeAnyoneLookedIsTold) {
  PlacingLog log;
  EXPECT_EQ(log.Observe(Report(5, 0), absl::UnixEpoch()), "experts read ahead: 5");
}

// A disk that gives none of them, and an operator who gives up.
TEST(PlacingLogTest, NothingThatWasReadIsAnEndToo) {
  PlacingLog log;
  const absl::Time now = absl::UnixEpoch();
  EXPECT_EQ(log.Observe(Report(0, 2), now), "reading experts ahead: 2");
  EXPECT_EQ(log.Observe(Report(0, 0), now + absl::Seconds(1)), "experts read ahead: 0 in 1s");
}

// For as long as it takes.
TEST(PlacingLogTest, AnExpertThatCannotBeReadFillsNoLog) {
  PlacingLog log;
  int num_lines = 0;
  for (int second = 0; second < 24 * 3600; ++second) {
    if (log.Observe(Report(second / 30, 1), absl::UnixEpoch() + absl::Seconds(second))) ++num_lines;
  }
  EXPECT_GT(num_lines, 100);
  EXPECT_LT(num_lines, 200);
}

}  // namespace
}  // namespace cadre
