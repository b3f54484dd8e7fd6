// Every tokenizer under tests/golden/tokenizers (and in the folders that CADRE_TOKENIZER_GOLDEN_DIR lists) against what
// the reference library recorded for it. tests/golden/tokenizers/README.md describes the files.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "engine/text/incremental_detokenizer.h"
#include "engine/text/normal_form.h"
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace cadre {
namespace {

using Ids = std::vector<std::int32_t>;

// A mistake in the tokenizer shows in hundreds of cases; the first ones say enough.
constexpr int kMaxFailures = 10;

std::vector<std::filesystem::path> GoldenFolders() {
  std::vector<std::filesystem::path> roots = {"tests/golden/tokenizers"};
  if (const char* extra = std::getenv("CADRE_TOKENIZER_GOLDEN_DIR"); extra != nullptr) {
    std::stringstream list(extra);
    for (std::string root; std::getline(list, root, ':');) roots.push_back(root);
  }
  std::vector<std::filesystem::path> folders;
  for (const std::filesystem::path& root : roots) {
    if (std::filesystem::exists(root / "cases.jsonl")) folders.push_back(root);
    if (!std::filesystem::is_directory(root)) continue;
    for (const auto& entry : std::filesystem::directory_iterator(root)) {
      if (std::filesystem::exists(entry.path() / "cases.jsonl")) folders.push_back(entry.path());
    }
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

class TokenizerGoldenTest : public testing::TestWithParam<std::filesystem::path> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(GetParam());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    std::ifstream file(GetParam() / "cases.jsonl");
    for (std::string line; std::getline(file, line);) cases_.push_back(nlohmann::json::parse(line));
    ASSERT_GE(cases_.size(), 100u);
  }

  Ids Encode(const std::string& text, bool add_special_tokens, bool parse_special) const {
    const absl::StatusOr<Ids> ids =
        tokenizer_->Encode(text, {.add_special_tokens = add_special_tokens, .parse_special = parse_special});
    EXPECT_TRUE(ids.ok()) << ids.status() << " for " << nlohmann::json(text);
    return ids.value_or(Ids());
  }

  std::string Stream(const Ids& ids, bool skip_special_tokens) const {
    IncrementalDetokenizer detokenizer(tokenizer_.get(), skip_special_tokens);
    std::string text;
    for (const std::int32_t id : ids) {
      const std::string piece = detokenizer.Append(id);
      EXPECT_TRUE(IsValidUtf8(piece)) << nlohmann::json(ids);
      text += piece;
    }
    return text + detokenizer.Flush();
  }

  template <typename Check>
  void ForEachCase(Check check) {
    int num_failures = 0;
    for (const nlohmann::json& golden : cases_) {
      if (!check(golden)) ++num_failures;
      ASSERT_LT(num_failures, kMaxFailures) << "and maybe more";
    }
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<nlohmann::json> cases_;
};

bool Same(const Ids& actual, const nlohmann::json& expected, const nlohmann::json& golden, const char* what) {
  EXPECT_EQ(nlohmann::json(actual).dump(), expected.dump()) << what << " of " << golden["text"];
  return nlohmann::json(actual) == expected;
}

TEST_P(TokenizerGoldenTest, EncodesAsRecorded) {
  ForEachCase([this](const nlohmann::json& golden) {
    if (!golden.contains("text")) return true;
    const std::string text = golden["text"];
    const nlohmann::json& ids = golden["ids"];
    return Same(Encode(text, false, false), ids, golden, "ids") &&
           Same(Encode(text, false, true), golden.value("parsed", ids), golden, "ids with special tokens parsed") &&
           Same(Encode(text, true, false), golden.value("framed", ids), golden, "ids with special tokens added");
  });
}

TEST_P(TokenizerGoldenTest, DecodesAsRecordedAtOnceAndInSteps) {
  ForEachCase([this](const nlohmann::json& golden) {
    const Ids ids = golden.contains("parsed") ? golden["parsed"] : golden["ids"];
    const std::string decoded = golden.value("decoded", golden.value("text", ""));
    const std::string decoded_all = golden.value("decoded_all", decoded);
    EXPECT_EQ(tokenizer_->Decode(ids, true), decoded) << golden;
    EXPECT_EQ(tokenizer_->Decode(ids, false), decoded_all) << golden;
    EXPECT_EQ(Stream(ids, true), decoded) << golden;
    EXPECT_EQ(Stream(ids, false), decoded_all) << golden;
    return tokenizer_->Decode(ids, true) == decoded && tokenizer_->Decode(ids, false) == decoded_all;
  });
}

TEST_P(TokenizerGoldenTest, EveryTokenHasItsId) {
  EXPECT_GT(tokenizer_->vocab_size(), 0);
  for (std::int32_t id = 0; id < tokenizer_->vocab_size(); ++id) {
    const std::string_view token = tokenizer_->IdToToken(id);
    EXPECT_TRUE(token.empty() || tokenizer_->TokenToId(token) == id) << token;
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, TokenizerGoldenTest, testing::ValuesIn(GoldenFolders()),
                         [](const testing::TestParamInfo<std::filesystem::path>& parameter) {
                           std::string name =
                               parameter.param.filename().string() + "_" + std::to_string(parameter.index);
                           std::replace_if(
                               name.begin(), name.end(),
                               [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
                           return name;
                         });

// A byte-level layout whose only normalizer is NFC loses nothing else. (That of gpt2 would, in its added token with
// accents: the decoder takes é for a letter of the byte alphabet.)
TEST(TokenizerRoundTripTest, DecodingAnEncodingGivesTheNormalForm) {
  for (const std::string layout : {"qwen2", "llama3", "o200k"}) {
    const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load("tests/golden/tokenizers/" + layout);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    std::ifstream file("tests/golden/tokenizers/" + layout + "/cases.jsonl");
    int num_texts = 0;
    for (std::string line; std::getline(file, line);) {
      const nlohmann::json golden = nlohmann::json::parse(line);
      if (!golden.contains("text")) continue;
      const std::string text = golden["text"];
      const absl::StatusOr<Ids> ids = (*tokenizer)->Encode(text);
      ASSERT_TRUE(ids.ok()) << ids.status();
      const std::string expected = layout == "qwen2" ? Normalize(text, NormalForm::kNfc) : text;
      EXPECT_EQ((*tokenizer)->Decode(*ids, true), expected) << golden["text"];
      ++num_texts;
    }
    EXPECT_GT(num_texts, 400);
  }
}

}  // namespace
}  // namespace cadre
