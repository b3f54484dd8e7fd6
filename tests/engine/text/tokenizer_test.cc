// What the golden data cannot say: errors, limits, options, files, time.
#include "engine/text/tokenizer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/time_limit.h"

namespace cadre {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

std::unique_ptr<Tokenizer> LoadLayout(const std::string& layout) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load("tests/golden/tokenizers/" + layout);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

// A vocabulary of four, with a gap before the special token.
json SmallTokenizer() {
  return json::parse(R"({
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<s>": 7}, "merges": ["a b"]},
    "added_tokens": [{"id": 7, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "decoder": {"type": "Fuse"}})");
}

std::unique_ptr<Tokenizer> ParseOk(const json& tokenizer_json, const json& config = nullptr) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::Parse(tokenizer_json.dump(), config.is_null() ? "" : config.dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

TEST(TokenizerTest, VocabularyLookUps) {
  const std::unique_ptr<Tokenizer> tokenizer = ParseOk(SmallTokenizer());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocab_size(), 8);
  EXPECT_EQ(tokenizer->TokenToId("ab"), 2);
  EXPECT_EQ(tokenizer->TokenToId("<s>"), 7);
  EXPECT_EQ(tokenizer->TokenToId("abc"), std::nullopt);
  EXPECT_EQ(tokenizer->IdToToken(2), "ab");
  for (const std::int32_t id : {-1, 3, 6, 8, INT32_MIN, INT32_MAX}) EXPECT_EQ(tokenizer->IdToToken(id), "") << id;
  EXPECT_TRUE(tokenizer->IsSpecial(7));
  for (const std::int32_t id : {-1, 2, 6, 8}) EXPECT_FALSE(tokenizer->IsSpecial(id)) << id;
}

TEST(TokenizerTest, IdsThatAreNoTokensDecodeToNothing) {
  const std::unique_ptr<Tokenizer> tokenizer = ParseOk(SmallTokenizer());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->Decode(Ids{-1, 2, 3, 6, 8, INT32_MIN, INT32_MAX, 0}), "aba");
  EXPECT_EQ(tokenizer->Decode(Ids{7, 0, 7}), "a");
  EXPECT_EQ(tokenizer->Decode(Ids{7, 0, 7}, /*skip_special_tokens=*/false), "<s>a<s>");
  EXPECT_EQ(tokenizer->Decode({}), "");
}

TEST(TokenizerTest, SpecialTokensInTextAreTextUnlessAskedFor) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadLayout("qwen2");
  ASSERT_NE(tokenizer, nullptr);
  const std::int32_t special = *tokenizer->TokenToId("<|im_start|>");
  const Ids plain = *tokenizer->Encode("a<|im_start|>b");
  EXPECT_EQ(std::count(plain.begin(), plain.end(), special), 0);
  EXPECT_EQ(tokenizer->Decode(plain), "a<|im_start|>b");
  const Ids parsed = *tokenizer->Encode("a<|im_start|>b", {.parse_special = true});
  EXPECT_EQ(std::count(parsed.begin(), parsed.end(), special), 1);
  // Added tokens that are not special are vocabulary like any other.
  const Ids think = *tokenizer->Encode("<think>");
  EXPECT_EQ(think, Ids{*tokenizer->TokenToId("<think>")});
}

TEST(TokenizerTest, RefusesTextThatIsNotUtf8OrTooLong) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadLayout("qwen2");
  ASSERT_NE(tokenizer, nullptr);
  for (const std::string_view text :
       {"\x80", "\xC3", "a\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xFF", "\xE4\xB8"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(tokenizer->Encode(text).status())) << text;
  }
  EXPECT_TRUE(tokenizer->Encode(std::string_view("\0", 1)).ok());
  const absl::Status too_long = tokenizer->Encode(std::string(kMaxEncodeBytes + 1, 'a')).status();
  EXPECT_TRUE(absl::IsInvalidArgument(too_long));
  EXPECT_EQ(too_long.message(), "text has 8388609 bytes, the limit is 8388608");
}

TEST(TokenizerTest, AMissingUnknownTokenIsAnErrorOfTheText) {
  json file = SmallTokenizer();
  file["model"]["unk_token"] = "<unk>";
  const std::unique_ptr<Tokenizer> tokenizer = ParseOk(file);
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(*tokenizer->Encode("ab"), Ids{2});
  EXPECT_TRUE(absl::IsInvalidArgument(tokenizer->Encode("abc").status()));
}

TEST(TokenizerTest, ConfigAddsBosOnlyForTheLlamaClassWithoutATemplate) {
  const json config = {{"tokenizer_class", "LlamaTokenizerFast"}, {"add_bos_token", true}, {"bos_token", "<s>"}};
  EXPECT_EQ(*ParseOk(SmallTokenizer(), config)->Encode("ab"), (Ids{7, 2}));
  EXPECT_EQ(*ParseOk(SmallTokenizer(), config)->Encode("ab", {.add_special_tokens = false}), Ids{2});

  json both = config;
  both["add_eos_token"] = true;
  both["eos_token"] = {{"content", "<s>"}, {"lstrip", false}};
  EXPECT_EQ(*ParseOk(SmallTokenizer(), both)->Encode("ab"), (Ids{7, 2, 7}));

  json off = config;
  off["add_bos_token"] = false;
  EXPECT_EQ(*ParseOk(SmallTokenizer(), off)->Encode("ab"), Ids{2});

  json other_class = config;
  other_class["tokenizer_class"] = "Qwen2TokenizerFast";
  EXPECT_EQ(*ParseOk(SmallTokenizer(), other_class)->Encode("ab"), Ids{2});

  json with_template = SmallTokenizer();
  with_template["post_processor"] = json::parse(
      R"({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
          "special_tokens": {}})");
  EXPECT_EQ(*ParseOk(with_template, config)->Encode("ab"), Ids{2});

  json unknown = config;
  unknown["bos_token"] = "<bos>";
  EXPECT_TRUE(absl::IsInvalidArgument(Tokenizer::Parse(SmallTokenizer().dump(), unknown.dump()).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Tokenizer::Parse(SmallTokenizer().dump(), "{").status()));
}

TEST(TokenizerTest, LoadsFromAFolder) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "tokenizer_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  EXPECT_TRUE(absl::IsNotFound(Tokenizer::Load(folder).status()));
  std::ofstream(folder / "tokenizer.json") << SmallTokenizer();
  EXPECT_EQ(*(*Tokenizer::Load(folder))->Encode("ab"), Ids{2});
  std::ofstream(folder / "tokenizer_config.json")
      << R"({"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "bos_token": "<s>"})";
  EXPECT_EQ(*(*Tokenizer::Load(folder))->Encode("ab"), (Ids{7, 2}));
  std::ofstream(folder / "tokenizer_config.json") << "not JSON";
  EXPECT_TRUE(absl::IsInvalidArgument(Tokenizer::Load(folder).status()));
  std::filesystem::remove_all(folder);
}

TEST(TokenizerTest, OneTokenizerServesManyThreads) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadLayout("deepseek3");
  ASSERT_NE(tokenizer, nullptr);
  std::string text;
  for (int i = 0; i < 500; ++i) text += "The guild's price was 12345 coins; 织工们 \n\n";
  const Ids expected = *tokenizer->Encode(text);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& ids : results) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) ids = *tokenizer->Encode(text);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& ids : results) EXPECT_EQ(ids, expected);
}

double EncodeSeconds(const Tokenizer& tokenizer, const std::string& text) {
  const Stopwatch stopwatch;
  const absl::StatusOr<Ids> ids = tokenizer.Encode(text);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return stopwatch.Seconds();
}

std::string Repeat(std::string_view unit, std::size_t size) {
  std::string text;
  while (text.size() < size) text += unit;
  return text;
}

class WorstCaseTest : public testing::TestWithParam<const char*> {};

TEST_P(WorstCaseTest, TimeGrowsWithTheLengthAndNotWithItsSquare) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadLayout(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  for (const std::string_view unit :
       {" ", "a", "A", "7", "\n", "\r\n", "\t ", "'", "-", "\u3042", "\u0301", "\u0327\u0301", "\u2581", "\U0001F642",
        "ab ", "a1", "<", "\u0301\u0327\u0345", "word"}) {
    // Something at the end that no run of spaces can be merged with.
    const std::string text = Repeat(unit, 1 << 18) + "x";
    // Well under a second on one core; a quadratic step would take minutes.
    EXPECT_LT(EncodeSeconds(*tokenizer, text), 5 * kTimeFactor) << unit;
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, WorstCaseTest,
                         testing::Values("gpt2", "qwen2", "o200k", "deepseek2", "deepseek3", "mixtral_legacy",
                                         "mixtral_metaspace", "metaspace_unk"));

TEST(WorstCaseTest, DoublingTheTextDoublesTheTime) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadLayout("mixtral_legacy");
  ASSERT_NE(tokenizer, nullptr);
  const auto best_of_three = [&](std::size_t size) {
    double best = 1e9;
    for (int i = 0; i < 3; ++i) best = std::min(best, EncodeSeconds(*tokenizer, Repeat("the weavers ", size)));
    return best;
  };
  // Linear, with room for a busy machine; n squared would be 8.
  EXPECT_LT(best_of_three(1 << 20), 6 * best_of_three(1 << 18) + 0.05);
}

}  // namespace
}  // namespace cadre
