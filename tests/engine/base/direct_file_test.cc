#include "engine/base/direct_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tests/support/temp_dir.h"

namespace cadre {
namespace {

using testing::HasSubstr;

class DirectFileTest : public testing::Test {
 protected:
  static constexpr int64_t kBlock = DirectFile::kAlignment;
  static constexpr int64_t kSize = 2 * DirectFile::kBufferBytes + 1234;

  void SetUp() override {
    bytes_.resize(kSize);
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = std::byte(i * 7 + i / 251);
    Write(path_, bytes_.size());
    file_.emplace(InputFile::Open(path_).value());
    auto direct = DirectFile::Open(*file_);
    // Whether files can be read past the page cache is up to the file system of the temporary directory: tmpfs cannot.
    if (direct.status().code() == absl::StatusCode::kFailedPrecondition) GTEST_SKIP() << direct.status();
    ASSERT_TRUE(direct.ok()) << direct.status();
    direct_.emplace(*std::move(direct));
  }

  void Write(const std::filesystem::path& path, size_t size) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes_.data()), static_cast<std::streamsize>(size));
  }

  const TempDir dir_;
  const std::filesystem::path path_ = dir_.path() / "file";
  std::vector<std::byte> bytes_;
  std::optional<InputFile> file_;
  std::optional<DirectFile> direct_;
};

TEST_F(DirectFileTest, ReadsWhatIsThereFromAnyByteToAny) {
  for (const int64_t begin : {int64_t{0}, int64_t{1}, kBlock - 1, kBlock, kBlock + 1, kSize - 5000}) {
    for (const int64_t size : {int64_t{0}, int64_t{1}, kBlock - 1, kBlock, kBlock + 1, int64_t{4999},
                               DirectFile::kBufferBytes - 1, DirectFile::kBufferBytes + 1, kSize}) {
      if (begin + size > kSize) continue;
      std::vector<std::byte> out(static_cast<size_t>(size) + 1, std::byte{0xee});
      const absl::Status status = direct_->ReadAt(begin, std::span(out).first(static_cast<size_t>(size)));
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_TRUE(std::equal(out.begin(), out.end() - 1, bytes_.begin() + begin)) << begin << " + " << size;
      EXPECT_EQ(out.back(), std::byte{0xee}) << "nothing behind it";
    }
  }
}

TEST_F(DirectFileTest, AFileThatEndsIsAnError) {
  std::vector<std::byte> out(100);
  EXPECT_TRUE(direct_->ReadAt(kSize - 100, out).ok());
  for (const int64_t begin : {kSize - 99, kSize, kSize + 3 * kBlock}) {
    const absl::Status status = direct_->ReadAt(begin, out);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << begin;
    EXPECT_THAT(status.message(), HasSubstr("ends at byte"));
  }
  std::filesystem::resize_file(path_, 10);
  EXPECT_EQ(direct_->ReadAt(kBlock, out).code(), absl::StatusCode::kDataLoss);
}

TEST_F(DirectFileTest, AnotherFileOfTheNameIsRefused) {
  std::filesystem::rename(path_, dir_.path() / "old");
  Write(path_, 10);
  const absl::Status status = DirectFile::Open(*file_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("another file has taken its name"));
}

}  // namespace
}  // namespace cadre
