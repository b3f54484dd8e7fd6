#include "server/memory_guard.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "server/errors.h"

namespace cadre {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// A machine that says what the test tells it to.
struct FakeHost {
  HostMemoryUse use = {.room = 100 * kMiB, .resident = 500 * kMiB};
  FakeClock clock;
  int num_readings = 0;
  MemoryGuard guard{[this] {
                      ++num_readings;
                      return use;
                    },
                    &clock};

  MemoryPressure Observe() {
    clock.Advance(absl::Milliseconds(100));
    return guard.Observe().level;
  }
  // Requests take memory, and give it back.
  void Take(int64_t bytes) {
    use.room -= bytes;
    use.resident += bytes;
  }
};

TEST(MemoryGuardTest, BeforeItIsArmedNothingIsRefused) {
  FakeHost host;
  host.use.room = 0;
  EXPECT_EQ(host.Observe(), MemoryPressure::kNone);
  EXPECT_TRUE(host.guard.TryCharge(16 << 20).ok());
}

// What was resident when the server got ready is not held against it.
TEST(MemoryGuardTest, TheHeadroomIsWhatRequestsCouldGiveBack) {
  FakeHost host;
  host.guard.Arm();
  EXPECT_EQ(host.Observe(), MemoryPressure::kNone);
  host.Take(60 * kMiB);
  EXPECT_EQ(host.Observe(), MemoryPressure::kShortenQueue);
  EXPECT_EQ(host.guard.Observe().reading.headroom, 100 * kMiB);
  EXPECT_EQ(host.guard.Observe().reading.room, 40 * kMiB);
  host.Take(10 * kMiB);
  EXPECT_EQ(host.Observe(), MemoryPressure::kRefuse);
}

// Others have taken it: there is nothing of ours to give back, and less to begin with.
TEST(MemoryGuardTest, WhatOthersTakeShrinksTheHeadroom) {
  FakeHost host;
  host.guard.Arm();
  host.use.room = 40 * kMiB;
  EXPECT_EQ(host.Observe(), MemoryPressure::kNone);
  EXPECT_EQ(host.guard.Observe().reading.headroom, 40 * kMiB);
}

TEST(MemoryGuardTest, ARefusalSaysWhyAndWhenToComeBack) {
  FakeHost host;
  host.guard.Arm();
  host.Take(70 * kMiB);
  host.Observe();
  const absl::Status status = host.guard.TryCharge(10).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(status), reason::kMemoryPressure);
  EXPECT_TRUE(ErrorRetryDelay(status).has_value());
}

// Between two readings, only what is charged is known.
TEST(MemoryGuardTest, RequestsBeingReadTakeAtMostHalfOfTheRoom) {
  FakeHost host;
  host.guard.Arm();
  host.Observe();
  std::vector<std::shared_ptr<MemoryGuard::Charge>> held;
  while (true) {
    auto charge = host.guard.TryCharge(512 << 10);
    if (!charge.ok()) {
      EXPECT_EQ(ErrorReason(charge.status()), reason::kMemoryPressure);
      break;
    }
    held.push_back(*std::move(charge));
    ASSERT_LT(held.size(), 100u);
  }
  EXPECT_EQ(held.size(), 4u);  // of 12 MiB and 64 KiB each, in 50 MiB
  EXPECT_TRUE(host.guard.TryCharge(1000).ok()) << "a small one still fits";
  held.pop_back();
  EXPECT_TRUE(host.guard.TryCharge(512 << 10).ok());
}

TEST(MemoryGuardTest, WithLittleRoomARequestIsJudgedByAFreshReading) {
  FakeHost host;
  host.guard.Arm();
  host.Observe();
  host.Take(70 * kMiB);
  EXPECT_TRUE(host.guard.TryCharge(10).ok());
  host.clock.Advance(MemoryGuard::kMaxAge);
  EXPECT_FALSE(host.guard.TryCharge(10).ok());
  const int num_readings = host.num_readings;
  EXPECT_FALSE(host.guard.TryCharge(10).ok());
  EXPECT_EQ(host.num_readings, num_readings);
}

TEST(MemoryGuardTest, WithMuchRoomRequestsCauseNoReadings) {
  FakeHost host;
  host.use.room = 2 * MemoryGuard::kLittleRoom;
  host.guard.Arm();
  host.Observe();
  const int num_readings = host.num_readings;
  host.clock.Advance(absl::Seconds(1));
  EXPECT_TRUE(host.guard.TryCharge(10).ok());
  EXPECT_EQ(host.num_readings, num_readings);
}

TEST(MemoryGuardTest, FiguresCountHowOftenEachLevelWasEntered) {
  FakeHost host;
  host.guard.Arm();
  host.Take(95 * kMiB);
  EXPECT_EQ(host.Observe(), MemoryPressure::kPreempt);
  host.Take(-95 * kMiB);
  host.clock.Advance(absl::Seconds(10));
  EXPECT_EQ(host.Observe(), MemoryPressure::kNone);
  host.Take(55 * kMiB);
  EXPECT_EQ(host.Observe(), MemoryPressure::kShortenQueue);
  EXPECT_EQ(host.guard.Observe().num_entries, (MemoryEntries{0, 2, 1, 1, 1}));
}

}  // namespace
}  // namespace cadre
