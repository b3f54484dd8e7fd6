#include "server/tokenizer_archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/config_facts.h"
#include "server/errors.h"
#include "server/vllm_info.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class TokenizerArchiveTest : public ::testing::Test {
 protected:
  TokenizerArchiveTest() { std::filesystem::create_directories(folder_); }
  ~TokenizerArchiveTest() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }

  const std::filesystem::path folder_ =
      std::filesystem::path(::testing::TempDir()) /
      absl::StrCat("archive_", ::testing::UnitTest::GetInstance()->current_test_info()->name());
};

// Byte for byte what APPNOTE.TXT asks for; the end-to-end test has Python's zipfile read one.
TEST_F(TokenizerArchiveTest, OneFileIsTwoHeadersAndAnEnd) {
  Write("merges.txt", "ab");
  const auto archive = MakeTokenizerArchive(folder_);
  ASSERT_TRUE(archive.ok()) << archive.status();
  EXPECT_EQ(archive->zip.size(), (30u + 10 + 2) + (46 + 10) + 22);
  EXPECT_TRUE(archive->zip.starts_with("PK\3\4"));
  EXPECT_EQ(archive->zip.substr(30, 12), "merges.txtab");
  EXPECT_EQ(archive->zip.substr(14, 4), "\x6d\x48\x83\x9e");  // CRC-32 of "ab", 0x9e83486d
  EXPECT_EQ(archive->sha256.size(), 64u);
}

TEST_F(TokenizerArchiveTest, TakesWhatATokenizerIsMadeOf) {
  for (const char* name : {"tokenizer.json", "config.json", "chat_template.jinja", "spiece.model"}) Write(name, "x");
  for (const char* name : {"model.safetensors", "secret.txt", "README.md"}) Write(name, "private");
  const auto archive = MakeTokenizerArchive(folder_);
  ASSERT_TRUE(archive.ok()) << archive.status();
  for (const char* name : {"tokenizer.json", "config.json", "chat_template.jinja", "spiece.model"}) {
    EXPECT_THAT(archive->zip, HasSubstr(name));
  }
  EXPECT_THAT(archive->zip, Not(HasSubstr("private")));
}

TEST_F(TokenizerArchiveTest, TheSameFilesGiveTheSameBytes) {
  Write("vocab.json", "{}");
  const auto before = MakeTokenizerArchive(folder_);
  Write("vocab.json", "{}");
  const auto after = MakeTokenizerArchive(folder_);
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_EQ(before->sha256, after->sha256);
  Write("vocab.json", "{ }");
  EXPECT_NE(MakeTokenizerArchive(folder_)->sha256, before->sha256);
}

TEST_F(TokenizerArchiveTest, NothingToSendIsAnError) {
  Write("model.safetensors", "x");
  EXPECT_EQ(ErrorReason(MakeTokenizerArchive(folder_).status()), "NO_TOKENIZER_FILES");
  EXPECT_EQ(ErrorReason(MakeTokenizerArchive("").status()), "NO_TOKENIZER_FILES");
}

TEST_F(TokenizerArchiveTest, HasNoMoreFilesThanClientsTake) {
  for (size_t i = 0; i < kMaxArchiveFiles; ++i) Write(absl::StrCat(i, ".jinja"), "x");
  EXPECT_TRUE(MakeTokenizerArchive(folder_).ok());
  Write("one_more.jinja", "x");
  EXPECT_EQ(MakeTokenizerArchive(folder_).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(TokenizerArchiveTest, ConfigFactsAreWhatTheFileSays) {
  Write("config.json", R"({"architectures": ["OlmoeForCausalLM"], "bos_token_id": 3, "pad_token_id": null})");
  const auto facts = ReadConfigFacts(folder_);
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_THAT(facts->architectures, ElementsAre("OlmoeForCausalLM"));
  EXPECT_EQ(facts->bos_token_id, 3);
  EXPECT_FALSE(facts->pad_token_id.has_value());
  Write("config.json", "[]");
  EXPECT_EQ(ReadConfigFacts(folder_).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(VllmInfo, TellsSamplingDefaultsThatDiffer) {
  GenerationDefaults defaults;
  EXPECT_EQ(SamplingDefaultsJson(defaults), "");
  defaults.temperature = 0.7f;
  defaults.top_k = 20;
  EXPECT_EQ(SamplingDefaultsJson(defaults), R"({"temperature":0.7,"top_k":20})");
}

TEST(CounterRate, IsOfAtLeastASecond) {
  CounterRate rate;
  const absl::Time start = absl::FromUnixSeconds(1000);
  EXPECT_EQ(rate.Observe(50, start), 0);
  EXPECT_EQ(rate.Observe(80, start + absl::Milliseconds(500)), 0);
  EXPECT_EQ(rate.Observe(250, start + absl::Seconds(2)), 100);
  EXPECT_EQ(rate.Observe(9999, start + absl::Milliseconds(2500)), 100);
}

}  // namespace
}  // namespace cadre
