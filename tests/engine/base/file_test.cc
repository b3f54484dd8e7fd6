#include "engine/base/file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_dir.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

// A disk that gives at most three bytes a call, is interrupted every other time, and breaks at byte `g_broken_at`.
int g_calls = 0;
off_t g_broken_at = 0;
const char kDisk[] = "abcdefghijklmnopqrstuvwxyz";

ssize_t FlakyPread(int /*fd*/, void* out, size_t size, off_t offset) {
  if (++g_calls % 2 == 1) {
    errno = EINTR;
    return -1;
  }
  if (offset >= g_broken_at) {
    errno = EIO;
    return -1;
  }
  const size_t left = offset >= 26 ? 0 : static_cast<size_t>(26 - offset);
  const size_t n = std::min({size, left, size_t{3}});
  std::memcpy(out, kDisk + offset, n);
  return static_cast<ssize_t>(n);
}

std::string ReadFlaky(int64_t offset, size_t size, absl::Status* status) {
  std::string text(size, '\0');
  *status = internal::ReadFully(&FlakyPread, 0, "disk", offset, std::as_writable_bytes(std::span(text)));
  return text;
}

TEST(ReadFullyTest, GoesOnAfterShortReadsAndInterrupts) {
  g_broken_at = 1000;
  absl::Status status;
  EXPECT_EQ(ReadFlaky(2, 20, &status), "cdefghijklmnopqrstuv");
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(ReadFlaky(0, 0, &status), "");
  EXPECT_TRUE(status.ok()) << status;
}

TEST(ReadFullyTest, SaysWhereTheFileEnded) {
  g_broken_at = 1000;
  absl::Status status;
  ReadFlaky(20, 10, &status);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), "disk: ends at byte 26, expected 4 more bytes");
}

TEST(ReadFullyTest, SaysWhereTheDiskFailed) {
  g_broken_at = 9;
  absl::Status status;
  ReadFlaky(0, 26, &status);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("disk: Input/output error"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("reading at byte 9"));
}

TEST(InputFileTest, ReadsAnywhereInAFile) {
  const TempDir dir;
  WriteFile(dir.path() / "f", "0123456789");
  const absl::StatusOr<InputFile> file = InputFile::Open(dir.path() / "f");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->size_bytes(), 10);
  std::string text(4, '\0');
  ASSERT_TRUE(file->ReadAt(3, std::as_writable_bytes(std::span(text))).ok());
  EXPECT_EQ(text, "3456");
  EXPECT_EQ(file->ReadAt(7, std::as_writable_bytes(std::span(text))).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(file->ReadAt(100, std::as_writable_bytes(std::span(text))).code(), absl::StatusCode::kDataLoss);
}

TEST(InputFileTest, OpensRegularFilesOnly) {
  const TempDir dir;
  ASSERT_EQ(mkfifo((dir.path() / "fifo").c_str(), 0600), 0);
  std::filesystem::create_directory(dir.path() / "folder");
  std::filesystem::create_symlink("/dev/zero", dir.path() / "link_to_device");
  std::filesystem::create_symlink("fifo", dir.path() / "link_to_fifo");
  for (const char* name : {"fifo", "folder", "link_to_device", "link_to_fifo"}) {
    const absl::Status status = InputFile::Open(dir.path() / name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("not a regular file"));
  }
  EXPECT_EQ(InputFile::Open("/dev/null").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(InputFile::Open(dir.path() / "none").status().code(), absl::StatusCode::kNotFound);
  std::filesystem::create_symlink("loop", dir.path() / "loop");
  EXPECT_FALSE(InputFile::Open(dir.path() / "loop").ok());
}

TEST(InputFileTest, FollowsLinksToFiles) {
  const TempDir dir;
  WriteFile(dir.path() / "blob", "x");
  std::filesystem::create_symlink("blob", dir.path() / "link");
  EXPECT_EQ(InputFile::Open(dir.path() / "link")->size_bytes(), 1);
}

TEST(InputFileTest, NoticesAChange) {
  const TempDir dir;
  WriteFile(dir.path() / "f", "0123456789");
  const absl::StatusOr<InputFile> file = InputFile::Open(dir.path() / "f");
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(file->CheckUnchanged().ok());
  std::filesystem::resize_file(dir.path() / "f", 9);
  const absl::Status status = file->CheckUnchanged();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("(10 bytes then, 9 bytes now)"));
}

TEST(InputFileTest, MovesItsDescriptor) {
  const TempDir dir;
  WriteFile(dir.path() / "a", "aaa");
  WriteFile(dir.path() / "b", "bb");
  std::vector<InputFile> files;
  for (const char* name : {"a", "b"}) files.push_back(*InputFile::Open(dir.path() / name));
  std::string text(2, '\0');
  ASSERT_TRUE(files[0].ReadAt(0, std::as_writable_bytes(std::span(text))).ok());
  EXPECT_EQ(text, "aa");
  files[0] = std::move(files[1]);
  EXPECT_EQ(files[0].size_bytes(), 2);
  ASSERT_TRUE(files[0].ReadAt(0, std::as_writable_bytes(std::span(text))).ok());
  EXPECT_EQ(text, "bb");
}

TEST(ReadFileToStringTest, RefusesALargeFileBeforeReadingIt) {
  const TempDir dir;
  WriteFile(dir.path() / "f", "0123456789");
  EXPECT_EQ(*ReadFileToString(dir.path() / "f", 10), "0123456789");
  const absl::Status status = ReadFileToString(dir.path() / "f", 9).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("has 10 bytes, limit is 9"));
}

}  // namespace
}  // namespace cadre
