#include "server/logging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

namespace cadre {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string FormatJson(spdlog::string_view_t fields, spdlog::string_view_t message) {
  spdlog::memory_buf_t line;
  const spdlog::log_clock::time_point time(std::chrono::milliseconds(1'700'000'000'123));
  MakeJsonFormatter()->format(spdlog::details::log_msg(time, {}, fields, spdlog::level::warn, message), line);
  return std::string(line.data(), line.size());
}

TEST(JsonFormatterTest, FieldsStandBesideTheMessageWhateverIsInIt) {
  EXPECT_EQ(FormatJson("", "plain"), R"({"time":"2023-11-14T22:13:20.123Z","level":"warning","message":"plain"})"
                                     "\n");
  EXPECT_EQ(FormatJson(R"({"request_id":"r1","tenant":"a\"b"})", "says \"tenant\":\"other\"\n\xff"),
            R"({"time":"2023-11-14T22:13:20.123Z","level":"warning","request_id":"r1","tenant":"a\"b",)"
            R"("message":"says \"tenant\":\"other\"\n)"
            "\xEF\xBF\xBD\"}\n");
}

// One test: logging starts once in a process.
TEST(LoggingTest, TheEndWritesWhatIsQueuedAndThreadsMayLogOn) {
  ::testing::internal::CaptureStderr();
  StartLogging({});
  std::atomic<bool> stop{false};
  std::thread other([&stop] {
    while (!stop) spdlog::debug("below the level");
  });
  for (int i = 0; i < 1000; ++i) spdlog::info("line {}", i);
  LogWithFields(spdlog::level::info, {{"tenant", "acme"}}, "about a request");
  LogWithFields(spdlog::level::debug, {{"tenant", "acme"}}, "too detailed");
  StopLogging();
  LogWithFields(spdlog::level::err, {{"tenant", "acme"}}, "after the end");
  spdlog::error("after the end");
  stop = true;
  other.join();
  const std::string written = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(written, HasSubstr("line 999\n"));
  EXPECT_THAT(written, HasSubstr(" I about a request\n"));
  EXPECT_THAT(written, Not(HasSubstr("acme")));
  EXPECT_THAT(written, Not(HasSubstr("too detailed")));
  EXPECT_THAT(written, Not(HasSubstr("after the end")));
}

}  // namespace
}  // namespace cadre
