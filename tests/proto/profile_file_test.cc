#include "proto/profile_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>

namespace cadre {
namespace {

using ::testing::HasSubstr;

v1::ExpertProfile SomeProfile() {
  v1::ExpertProfile profile;
  profile.set_model_fingerprint("qwen3_moe/4x64/4x16/2");
  profile.set_format_version(1);
  profile.set_tokens(1234);
  for (int i = 0; i < 64; ++i) profile.add_assignments(i * i);
  return profile;
}

TEST(ProfileFile, GivesBackWhatWasWritten) {
  const std::string path =
      (std::filesystem::path(::testing::TempDir()) / ("cadre-profile-" + std::to_string(getpid()))).string();
  ASSERT_TRUE(WriteProfile(SomeProfile(), path).ok());
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
  const auto read = ReadProfileFile(path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->SerializeAsString(), SomeProfile().SerializeAsString());
  std::filesystem::remove(path);
}

TEST(ProfileFile, EveryDamageIsSeen) {
  const std::string bytes = EncodeProfile(SomeProfile());
  ASSERT_TRUE(DecodeProfile(bytes).ok());
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int bit : {0, 3, 7}) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      EXPECT_FALSE(DecodeProfile(damaged).ok()) << "byte " << i << ", bit " << bit;
    }
  }
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(DecodeProfile(bytes.substr(0, size)).ok()) << size;
  EXPECT_FALSE(DecodeProfile(bytes + "x").ok());
}

TEST(ProfileFile, SaysWhatIsWrong) {
  std::string bytes = EncodeProfile(SomeProfile());
  bytes[8] = 2;
  EXPECT_THAT(std::string(DecodeProfile(bytes).status().message()), HasSubstr("has version 2; version 1 is read"));
  EXPECT_THAT(std::string(DecodeProfile("hello").status().message()), HasSubstr("is no profile"));
  const auto absent = ReadProfileFile("/nonexistent/file");
  EXPECT_THAT(std::string(absent.status().message()), HasSubstr("/nonexistent/file: No such file"));
}

TEST(ProfileFile, HugeFilesAreNotRead) {
  const std::string path =
      (std::filesystem::path(::testing::TempDir()) / ("cadre-huge-" + std::to_string(getpid()))).string();
  std::ofstream(path).close();
  std::filesystem::resize_file(path, kMaxProfileBytes + 1);
  EXPECT_THAT(std::string(ReadProfileFile(path).status().message()), HasSubstr("more than 16777216 bytes"));
  std::filesystem::remove(path);
}

TEST(ProfileFile, WhatHasNoEndIsNotReadToIt) {
  EXPECT_THAT(std::string(ReadProfileFile("/dev/zero").status().message()),
              HasSubstr("/dev/zero has more than 16777216"));
  EXPECT_THAT(std::string(ReadProfileFile("/dev/null").status().message()), HasSubstr("/dev/null is no profile"));
  EXPECT_FALSE(ReadProfileFile(::testing::TempDir()).ok());
}

TEST(ProfileFile, LeavesNothingBehindWhereItCannotWrite) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / ("cadre-folder-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder / "occupied");
  EXPECT_THAT(std::string(WriteProfile(SomeProfile(), folder).message()), HasSubstr("cannot write"));
  EXPECT_FALSE(std::filesystem::exists(folder.string() + ".partial"));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace cadre
