#include "server/logging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <thread>

namespace cadre {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// One test: logging starts once in a process.
TEST(LoggingTest, TheEndWritesWhatIsQueuedAndThreadsMayLogOn) {
  ::testing::internal::CaptureStderr();
  StartLogging({});
  std::atomic<bool> stop{false};
  std::thread other([&stop] {
    while (!stop) spdlog::debug("below the level");
  });
  for (int i = 0; i < 1000; ++i) spdlog::info("line {}", i);
  StopLogging();
  spdlog::error("after the end");
  stop = true;
  other.join();
  const std::string written = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(written, HasSubstr("line 999\n"));
  EXPECT_THAT(written, Not(HasSubstr("after the end")));
}

}  // namespace
}  // namespace cadre
