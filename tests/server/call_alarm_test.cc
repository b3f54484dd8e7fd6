#include "server/call_alarm.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <thread>

namespace cadre {
namespace {

constexpr auto kPatience = std::chrono::seconds(30);

// Whether what `watched` points to is gone soon.
bool IsReleased(const std::weak_ptr<int>& watched) {
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  while (!watched.expired() && std::chrono::steady_clock::now() < give_up) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return watched.expired();
}

TEST(CallAlarmTest, RingsOnceAndLetsGo) {
  std::promise<int> rung;
  auto held = std::make_shared<int>(7);
  const std::weak_ptr<int> watched = held;
  CallAlarm alarm;
  alarm.Set(absl::Milliseconds(1), [&rung, held = std::move(held)] { rung.set_value(*held); });
  std::future<int> answer = rung.get_future();
  ASSERT_EQ(answer.wait_for(kPatience), std::future_status::ready);
  EXPECT_EQ(answer.get(), 7);
  EXPECT_TRUE(IsReleased(watched));
}

TEST(CallAlarmTest, WhatIsDestroyedDoesNotRingAndHoldsNothing) {
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> watched = held;
  bool has_rung = false;
  std::optional<CallAlarm> alarm;
  alarm.emplace();
  alarm->Set(absl::Hours(1), [&has_rung, held = std::move(held)] { has_rung = true; });
  EXPECT_FALSE(watched.expired());
  alarm.reset();
  EXPECT_TRUE(IsReleased(watched));
  EXPECT_FALSE(has_rung);
}

TEST(CallAlarmTest, MayBeSetAgainWhileItRings) {
  std::promise<void> rung_again;
  CallAlarm alarm;
  alarm.Set(absl::Milliseconds(1),
            [&alarm, &rung_again] { alarm.Set(absl::Milliseconds(1), [&rung_again] { rung_again.set_value(); }); });
  EXPECT_EQ(rung_again.get_future().wait_for(kPatience), std::future_status::ready);
}

}  // namespace
}  // namespace cadre
