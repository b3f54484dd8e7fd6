#include "server/fault_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace cadre {
namespace {

using testing::HasSubstr;

ExpertFaults Failed(int64_t count, absl::Duration pause = absl::Seconds(4)) {
  ExpertFaults faults;
  for (int64_t i = 0; i < count; ++i)
    faults.told.push_back({absl::StrCat("expert ", i, " cannot be read: gone"), pause});
  return faults;
}

TEST(FaultLogTest, AFewAreToldOneByOne) {
  FaultLog log;
  ExpertFaults faults = Failed(2);
  faults.told.push_back({"expert 7", absl::ZeroDuration()});
  faults.num_more = 5;
  const std::vector<FaultLog::Line> lines = log.Observe(faults, absl::UnixEpoch());
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0].text, "expert 0 cannot be read: gone; it is left alone for 4s");
  EXPECT_TRUE(lines[0].is_warning);
  EXPECT_EQ(lines[2].text, "expert 7 can be read again");
  EXPECT_FALSE(lines[2].is_warning);
  EXPECT_EQ(lines[3].text, "the same of 5 more experts");
}

// One that is tried again every 30 s is told of each time.
TEST(FaultLogTest, OneForEverIsToldEachTime) {
  FaultLog log;
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(log.Observe(Failed(1), absl::UnixEpoch() + i * absl::Seconds(30)).size(), 1u) << i;
  }
}

TEST(FaultLogTest, ADeadDiskFillsNoLogAndIsNotForgotten) {
  FaultLog log;
  int64_t num_lines = 0;
  int64_t num_told = 0;
  absl::Time now = absl::UnixEpoch();
  // A thousand experts, each again every 30 s, sixteen at a time.
  for (const absl::Time end = now + absl::Hours(1); now < end; now += absl::Milliseconds(480)) {
    for (const FaultLog::Line& line : log.Observe(Failed(16), now)) {
      ++num_lines;
      num_told += line.text.ends_with("it is left alone for 4s") ? 1 : 0;
    }
  }
  EXPECT_LE(num_told, FaultLog::kMostLines + absl::Hours(1) / FaultLog::kPauseForALine);
  EXPECT_LE(num_lines, 2 * num_told + 1) << "a line of how many were left out before each";
  EXPECT_GE(num_told, absl::Hours(1) / FaultLog::kPauseForALine);
  // Quiet, and then one more: what was left out is told.
  const std::vector<FaultLog::Line> lines = log.Observe(Failed(1), now + absl::Hours(1));
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_THAT(lines[0].text, HasSubstr("lines were left out before this one"));
}

}  // namespace
}  // namespace cadre
