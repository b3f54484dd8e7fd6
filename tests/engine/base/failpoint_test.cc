#include "engine/base/failpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "engine/base/failpoint_spec.h"

namespace cadre::failpoint {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(FailpointSpecTest, TermsAreReadInOrder) {
  const auto terms = ParseSpec("2.5%10*return(disk (full) 50%) -> 3*sleep(20)->yield");
  ASSERT_TRUE(terms.ok()) << terms.status();
  EXPECT_THAT(
      *terms,
      ElementsAre(Term{.probability = 0.025, .count = 10, .action = Action::kReturn, .text = "disk (full) 50%"},
                  Term{.count = 3, .action = Action::kSleep, .milliseconds = 20}, Term{.action = Action::kYield}));
}

TEST(FailpointSpecTest, WhatIsWrongIsQuoted) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "no action"},
      {"explode", "no action"},
      {"yield->", "no action"},
      {"101%yield", "0% to 100%"},
      {"nan%yield", "0% to 100%"},
      {"-1*yield", "whole number"},
      {"1.5*yield", "whole number"},
      {"99999999999999999999*yield", "whole number"},
      {"sleep", "milliseconds"},
      {"sleep(-1)", "milliseconds"},
      {"sleep(600001)", "milliseconds"},
      {"return(x", "not closed"},
      {"yield(1)", "no argument"},
  };
  for (const auto& [spec, reason] : cases) {
    const auto terms = ParseSpec(spec);
    EXPECT_TRUE(absl::IsInvalidArgument(terms.status())) << spec;
    EXPECT_THAT(std::string(terms.status().message()), HasSubstr(reason)) << spec;
  }
}

#ifdef CADRE_FAILPOINTS

class FailpointTest : public ::testing::Test {
 protected:
  FailpointTest() { Reset(); }
  ~FailpointTest() override { Reset(); }
};

absl::Status Guarded() {
  CADRE_FAILPOINT_RETURN("test.guarded");
  return absl::OkStatus();
}

TEST_F(FailpointTest, APointThatIsNotConfiguredOnlyCounts) {
  EXPECT_TRUE(Guarded().ok());
  EXPECT_TRUE(Guarded().ok());
  EXPECT_EQ(Hits().at("test.guarded"), 2);
}

TEST_F(FailpointTest, ACountIsUsedUpAndTheNextTermFollows) {
  ASSERT_TRUE(ConfigureAll("test.guarded=2*return(first)->1*return(second);test.other=yield").ok());
  EXPECT_THAT(Guarded().ToString(), HasSubstr("first"));
  EXPECT_THAT(Guarded().ToString(), HasSubstr("first"));
  EXPECT_THAT(Guarded().ToString(), HasSubstr("second"));
  EXPECT_TRUE(Guarded().ok());
}

TEST_F(FailpointTest, AProbabilityIsOne) {
  ASSERT_TRUE(Configure("test.guarded", "10%return(x)").ok());
  int num_failed = 0;
  for (int i = 0; i < 10'000; ++i) num_failed += !Guarded().ok();
  EXPECT_NEAR(num_failed, 1000, 150);  // five standard deviations
}

TEST_F(FailpointTest, APauseLastsUntilThePointIsConfiguredAnew) {
  ASSERT_TRUE(Configure("test.guarded", "pause").ok());
  std::atomic<bool> passed = false;
  std::thread thread([&] {
    Guarded().IgnoreError();
    passed = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_FALSE(passed);
  ASSERT_TRUE(Configure("test.guarded", "").ok());
  thread.join();
  EXPECT_TRUE(passed);
}

TEST_F(FailpointTest, AWrongSpecChangesNothing) {
  ASSERT_TRUE(Configure("test.guarded", "return(x)").ok());
  EXPECT_FALSE(Configure("test.guarded", "bang").ok());
  EXPECT_FALSE(Guarded().ok());
}

#endif  // CADRE_FAILPOINTS

}  // namespace
}  // namespace cadre::failpoint
