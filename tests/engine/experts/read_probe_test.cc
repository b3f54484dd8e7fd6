#include "engine/experts/read_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "tests/support/memory_experts.h"

namespace cadre {
namespace {

using testing::ElementsAre;

std::vector<std::vector<std::byte>> MakeExperts(size_t count) {
  return std::vector<std::vector<std::byte>>(count, std::vector<std::byte>(1000));
}

// Each piece of a read, of two, takes as long as the clock is moved by then.
class SlowExperts final : public ExpertSource {
 public:
  SlowExperts(absl::Duration piece_time, FakeClock* clock) : piece_time_(piece_time), clock_(clock) {}
  int64_t expert_bytes() const override { return 1000; }
  absl::Status Read(ExpertId /*expert*/, std::span<std::byte> to, ReadPace pace) const override {
    for (int piece = 0; piece < 2; ++piece) {
      if (absl::Status status = pace(); !status.ok()) return status;
      clock_->Advance(piece_time_);
    }
    std::ranges::fill(to, std::byte{7});
    return absl::OkStatus();
  }
  std::string Describe(ExpertId expert) const override { return std::to_string(expert); }

 private:
  const absl::Duration piece_time_;
  FakeClock* const clock_;
};

TEST(ReadProbeTest, ChoosesFromAllOver) {
  EXPECT_THAT(ChooseProbed(100, 4), ElementsAre(0, 25, 50, 75));
  EXPECT_THAT(ChooseProbed(3, 8), ElementsAre(0, 1, 2));
}

TEST(ReadProbeTest, EachIsReadOnce) {
  const MemoryExperts source(MakeExperts(20));
  const MonotonicClock clock;
  const std::vector<ExpertId> chosen = {1, 4, 9, 16, 19};
  const auto probe = ProbeReads(source, chosen, {.num_threads = 3}, clock);
  ASSERT_TRUE(probe.ok()) << probe.status();
  EXPECT_EQ(probe->experts, chosen);
  for (ExpertId id = 0; id < 20; ++id) EXPECT_EQ(source.num_reads(id), std::ranges::count(chosen, id)) << id;
}

// 0.2 s each: the third is begun at 0.4 s, and no other.
TEST(ReadProbeTest, NoReadIsBegunLate) {
  FakeClock clock;
  const SlowExperts source(absl::Milliseconds(100), &clock);
  const auto probe = ProbeReads(source, ChooseProbed(8, 8), {.num_threads = 1}, clock);
  ASSERT_TRUE(probe.ok()) << probe.status();
  EXPECT_THAT(probe->experts, ElementsAre(0, 1, 2));
  EXPECT_EQ(probe->time, absl::Milliseconds(600));
  EXPECT_DOUBLE_EQ(probe->bytes_per_second(source.expert_bytes()), 5000.0);
}

TEST(ReadProbeTest, WhatTakesTooLongIsGivenUp) {
  FakeClock clock;
  const SlowExperts source(absl::Seconds(6), &clock);
  const auto probe = ProbeReads(source, ChooseProbed(8, 8), {.num_threads = 1}, clock);
  EXPECT_EQ(probe.status(), absl::DeadlineExceededError("not read in 5s"));
  EXPECT_EQ(clock.Now(), absl::UnixEpoch() + absl::Seconds(6));
}

TEST(ReadProbeTest, AFailureIsTold) {
  MemoryExperts source(MakeExperts(8));
  source.Fail(4, absl::UnavailableError("no disk"), 1);
  const MonotonicClock clock;
  EXPECT_EQ(ProbeReads(source, ChooseProbed(8, 8), {.num_threads = 2}, clock).status(),
            absl::UnavailableError("no disk"));
}

}  // namespace
}  // namespace cadre
