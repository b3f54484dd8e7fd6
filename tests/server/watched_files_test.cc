#include "server/watched_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <latch>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "tests/support/temp_dir.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

class WatchedFilesTest : public ::testing::Test {
 protected:
  std::string Path(const char* name) const { return (dir_.path() / name).string(); }
  void Write(const char* name, std::string_view text, mode_t mode = 0600) const {
    WriteFile(Path(name), text);
    chmod(Path(name).c_str(), mode);
  }
  std::string ErrorOf(const char* name) const {
    const auto text = ReadGuardedFile({.flag = "--x", .path = Path(name), .max_bytes = 8});
    EXPECT_FALSE(text.ok());
    return std::string(text.status().message());
  }
  // Takes pairs of equal texts.
  WatchedFiles Pair() {
    return {{{.flag = "--a", .path = Path("a")}, {.flag = "--b", .path = Path("b")}},
            [this](const std::vector<std::string>& texts) {
              if (texts[0] != texts[1]) return absl::InvalidArgumentError("not a pair");
              installed_ = texts[0];
              return absl::OkStatus();
            }};
  }

  TempDir dir_;
  std::string installed_;
};

TEST_F(WatchedFilesTest, ErrorsNameFlagPathAndReason) {
  Write("good", "12345678");
  EXPECT_EQ(*ReadGuardedFile({.flag = "--x", .path = Path("good"), .max_bytes = 8}), "12345678");
  EXPECT_THAT(ErrorOf("absent"), HasSubstr("--x: " + Path("absent") + ": No such file"));
  Write("big", "123456789");
  EXPECT_THAT(ErrorOf("big"), HasSubstr("bigger than 8 bytes"));
  EXPECT_THAT(ErrorOf("."), HasSubstr("no regular file"));
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(ErrorOf("pipe"), HasSubstr("no regular file"));
}

TEST_F(WatchedFilesTest, AFileThatOthersMayWriteIsRefused) {
  Write("group", "x", 0620);
  EXPECT_THAT(ErrorOf("group"), HasSubstr("mode 620"));
  Write("all", "x", 0602);
  EXPECT_THAT(ErrorOf("all"), HasSubstr("chmod go-w"));
  Write("read", "x", 0644);
  EXPECT_TRUE(ReadGuardedFile({.flag = "--x", .path = Path("read")}).ok());
  EXPECT_TRUE(IsReadableByAll(Path("read")));
  Write("mine", "x", 0640);
  EXPECT_FALSE(IsReadableByAll(Path("mine")));
}

TEST_F(WatchedFilesTest, InstallsWhatIsNewAndOnlyThat) {
  Write("a", "1");
  Write("b", "1");
  WatchedFiles files = Pair();
  ASSERT_TRUE(files.LoadFirst().ok());
  EXPECT_EQ(installed_, "1");
  EXPECT_FALSE(files.Poll().has_value());
  Write("a", "2");
  Write("b", "2");
  EXPECT_EQ(files.Poll(), absl::OkStatus());
  EXPECT_EQ(installed_, "2");
  EXPECT_FALSE(files.Poll().has_value());
}

TEST_F(WatchedFilesTest, AFirstMistakeIsAnError) {
  Write("a", "1");
  Write("b", "2");
  EXPECT_THAT(std::string(Pair().LoadFirst().message()), HasSubstr("not a pair"));
  std::filesystem::remove(Path("b"));
  EXPECT_THAT(std::string(Pair().LoadFirst().message()), HasSubstr("--b"));
}

TEST_F(WatchedFilesTest, ALaterMistakeIsToldOnceAndChangesNothing) {
  Write("a", "1");
  Write("b", "1");
  WatchedFiles files = Pair();
  ASSERT_TRUE(files.LoadFirst().ok());
  Write("a", "2");
  EXPECT_FALSE(files.Poll().has_value());  // the other one may be on its way
  EXPECT_EQ(files.Poll(), absl::InvalidArgumentError("not a pair"));
  EXPECT_FALSE(files.Poll().has_value());
  EXPECT_EQ(installed_, "1");
  std::filesystem::remove(Path("a"));
  EXPECT_FALSE(files.Poll().has_value());
  EXPECT_THAT(std::string(files.Poll()->message()), HasSubstr("No such file"));
  Write("a", "3");
  Write("b", "3");
  EXPECT_EQ(files.Poll(), absl::OkStatus());
  EXPECT_EQ(installed_, "3");
}

TEST_F(WatchedFilesTest, WhatBecomesRightByTimeAloneIsTaken) {
  Write("a", "1");
  bool is_valid = true;
  WatchedFiles files({{.flag = "--a", .path = Path("a")}}, [&](const std::vector<std::string>& texts) {
    if (!is_valid) return absl::InvalidArgumentError("not valid yet");
    installed_ = texts[0];
    return absl::OkStatus();
  });
  ASSERT_TRUE(files.LoadFirst().ok());
  Write("a", "2");
  is_valid = false;
  EXPECT_FALSE(files.Poll().has_value());
  EXPECT_EQ(files.Poll(), absl::InvalidArgumentError("not valid yet"));
  EXPECT_FALSE(files.Poll().has_value());
  is_valid = true;
  EXPECT_EQ(files.Poll(), absl::OkStatus());
  EXPECT_EQ(installed_, "2");
}

TEST_F(WatchedFilesTest, TwoFilesMayBeReplacedOneAfterTheOther) {
  Write("a", "1");
  Write("b", "1");
  WatchedFiles files = Pair();
  ASSERT_TRUE(files.LoadFirst().ok());
  Write("a", "2");
  EXPECT_FALSE(files.Poll().has_value());
  Write("b", "2");
  EXPECT_EQ(files.Poll(), absl::OkStatus());
  EXPECT_EQ(installed_, "2");
}

TEST_F(WatchedFilesTest, TheWatchPollsUntilItsEnd) {
  std::latch polled(3);
  std::atomic<int> count{0};
  std::atomic<bool> is_over{false};
  std::atomic<int> late{0};
  {
    const FileWatch watch({[&] {
                            if (is_over) ++late;
                            if (count++ < 3) polled.count_down();
                          }},
                          absl::Milliseconds(1));
    polled.wait();
  }
  is_over = true;
  absl::SleepFor(absl::Milliseconds(20));
  EXPECT_EQ(late, 0);
}

}  // namespace
}  // namespace cadre
