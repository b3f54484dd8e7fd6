#include "engine/text/incremental_detokenizer.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"
#include "gtest/gtest.h"

namespace cadre {
namespace {

constexpr const char* kByteLevelLayouts[] = {"bailing", "deepseek2", "deepseek3", "gpt2", "llama3", "o200k", "qwen2"};
constexpr const char* kOtherLayouts[] = {"metaspace_unk", "mixtral_legacy", "mixtral_metaspace", "word_prefix",
                                         "word_suffix"};

std::unique_ptr<Tokenizer> LoadLayout(const std::string& layout) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load("tests/golden/tokenizers/" + layout);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::int32_t IdOf(const Tokenizer& tokenizer, std::string_view token) {
  const std::optional<std::int32_t> id = tokenizer.TokenToId(token);
  EXPECT_TRUE(id.has_value()) << token;
  return id.value_or(-1);
}

class RandomIdsTest : public testing::TestWithParam<const char*> {};

TEST_P(RandomIdsTest, PiecesAreWholeCharactersAndAddUpToTheWhole) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadLayout(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  std::mt19937 random(11);
  const int bound = tokenizer->vocab_size() + 5;
  for (int trial = 0; trial < 2000; ++trial) {
    const bool skip_special_tokens = random() % 2 == 0;
    IncrementalDetokenizer detokenizer(tokenizer.get(), skip_special_tokens);
    std::vector<std::int32_t> ids;
    std::string text;
    for (unsigned i = random() % 24; i > 0; --i) {
      // Single bytes and special tokens lie at the start of the vocabulary; most trouble is there.
      const int limit = random() % 2 == 0 ? 300 : bound;
      ids.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(limit)) - 1);
      const std::string piece = detokenizer.Append(ids.back());
      ASSERT_TRUE(IsValidUtf8(piece));
      text += piece;
      // A sequence may end anywhere: what was sent so far is the start of what the whole decode says.
      const std::string whole = tokenizer->Decode(ids, skip_special_tokens);
      ASSERT_EQ(whole.substr(0, text.size()), text);
    }
    ASSERT_EQ(text + detokenizer.Flush(), tokenizer->Decode(ids, skip_special_tokens));
  }
}

INSTANTIATE_TEST_SUITE_P(ByteLevel, RandomIdsTest, testing::ValuesIn(kByteLevelLayouts));
INSTANTIATE_TEST_SUITE_P(Other, RandomIdsTest, testing::ValuesIn(kOtherLayouts));

TEST(IncrementalDetokenizerTest, HoldsHalfACharacter) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadLayout("qwen2");
  ASSERT_NE(tokenizer, nullptr);
  // U+1F600 is F0 9F 98 80; in the byte alphabet these are U+F0, U+0141, U+013A, U+0122.
  IncrementalDetokenizer detokenizer(tokenizer.get(), true);
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "\u00F0")), "");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "\u0141")), "");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "\u013A")), "");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "\u0122")), "\U0001F600");
  EXPECT_EQ(detokenizer.Flush(), "");
}

TEST(IncrementalDetokenizerTest, WhatNeverBecomesACharacterIsReplaced) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadLayout("qwen2");
  ASSERT_NE(tokenizer, nullptr);
  IncrementalDetokenizer detokenizer(tokenizer.get(), true);
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "\u00F0")), "");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "\u0141")), "");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "a")), "\uFFFDa");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "\u0141")), "\uFFFD");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "\u00C3")), "");
  EXPECT_EQ(detokenizer.Flush(), "\uFFFD");
}

TEST(IncrementalDetokenizerTest, HoldsARunOfFallbackBytesUntilItEnds) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadLayout("mixtral_legacy");
  ASSERT_NE(tokenizer, nullptr);
  IncrementalDetokenizer detokenizer(tokenizer.get(), true);
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "a")), "a");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "<0xC3>")), "");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "<0xA9>")), "");
  // One more byte would have spoiled the whole run.
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "b")), "\u00E9b");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "<0xC3>")), "");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "<0xA9>")), "");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "<0xC3>")), "");
  EXPECT_EQ(detokenizer.Flush(), "\uFFFD\uFFFD\uFFFD");
}

TEST(IncrementalDetokenizerTest, StripsTheSpaceAtTheStartOnly) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadLayout("mixtral_metaspace");
  ASSERT_NE(tokenizer, nullptr);
  IncrementalDetokenizer detokenizer(tokenizer.get(), true);
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "<s>")), "");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "\u2581t")), "t");
  EXPECT_EQ(detokenizer.Append(IdOf(*tokenizer, "\u2581t")), " t");
}

TEST(IncrementalDetokenizerTest, SpecialTokensAreShownOnRequest) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadLayout("qwen2");
  ASSERT_NE(tokenizer, nullptr);
  const std::int32_t special = IdOf(*tokenizer, "<|im_end|>");
  EXPECT_EQ(IncrementalDetokenizer(tokenizer.get(), true).Append(special), "");
  EXPECT_EQ(IncrementalDetokenizer(tokenizer.get(), false).Append(special), "<|im_end|>");
}

TEST(IncrementalDetokenizerTest, CanBeMovedInTheMiddleOfACharacter) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadLayout("qwen2");
  ASSERT_NE(tokenizer, nullptr);
  IncrementalDetokenizer first(tokenizer.get(), true);
  EXPECT_EQ(first.Append(IdOf(*tokenizer, "\u00C3")), "");
  IncrementalDetokenizer second = std::move(first);
  EXPECT_EQ(second.Append(IdOf(*tokenizer, "\u00A9")), "\u00E9");
}

}  // namespace
}  // namespace cadre
