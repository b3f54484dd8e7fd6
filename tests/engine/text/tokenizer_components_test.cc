// Single components against what the reference library recorded for them (tests/golden/tokenizers/components.jsonl),
// and every character class against the reference's (unicode_classes.json).
#include <cstddef>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/text/decoder.h"
#include "engine/text/normalizer.h"
#include "engine/text/pattern.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/regex.h"
#include "engine/text/unicode_classes.h"
#include "engine/text/utf8.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace cadre {
namespace {

using nlohmann::json;

constexpr const char* kComponentsFile = "tests/golden/tokenizers/components.jsonl";
constexpr const char* kClassesFile = "tests/golden/tokenizers/unicode_classes.json";

// Calls `check(component, cases)` for each line about a component of that stage.
template <typename Check>
void ForEachComponentOf(const std::string& stage, int min_components, Check check) {
  std::ifstream file(kComponentsFile);
  int num_components = 0;
  for (std::string line; std::getline(file, line);) {
    const json row = json::parse(line);
    if (!row.contains(stage)) continue;
    ++num_components;
    SCOPED_TRACE(row[stage].dump());
    ASSERT_NO_FATAL_FAILURE(check(row[stage], row["cases"]));
  }
  EXPECT_GE(num_components, min_components);
}

TEST(TokenizerComponentsTest, Normalizers) {
  ForEachComponentOf("normalizer", 20, [](const json& component, const json& cases) {
    const absl::StatusOr<Normalizer> normalizer = Normalizer::Parse(component, "normalizer");
    ASSERT_TRUE(normalizer.ok()) << normalizer.status();
    for (const json& golden : cases) {
      NormalizedText text{golden[0]};
      ASSERT_TRUE(normalizer->Apply(&text).ok());
      ASSERT_EQ(json(text.text).dump(), golden[1].dump()) << golden[0];
    }
  });
}

TEST(TokenizerComponentsTest, PreTokenizers) {
  ForEachComponentOf("pre_tokenizer", 90, [](const json& component, const json& cases) {
    const absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::Parse(component, "pre_tokenizer");
    ASSERT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
    for (const json& golden : cases) {
      const std::string text = golden[0];
      std::vector<std::string> texts;
      const absl::Status status = pre_tokenizer->Split({text, /*is_at_origin=*/true}, [&texts](TextPiece piece) {
        texts.emplace_back(piece.text);
        return absl::OkStatus();
      });
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_EQ(json(texts).dump(), golden[1].dump()) << golden[0];
    }
  });
}

TEST(TokenizerComponentsTest, Decoders) {
  ForEachComponentOf("decoder", 19, [](const json& component, const json& cases) {
    const absl::StatusOr<Decoder> decoder = Decoder::Parse(component, "decoder");
    ASSERT_TRUE(decoder.ok()) << decoder.status();
    for (const json& golden : cases) {
      DecodeStream stream = decoder->NewStream();
      std::string text;
      for (const std::string token : golden[0]) text += stream.Append(token);
      text += stream.Finish();
      ASSERT_EQ(json(text).dump(), golden[1].dump()) << golden[0];
    }
  });
}

TEST(TokenizerComponentsTest, Regexes) {
  ForEachComponentOf("regex", 70, [](const json& pattern, const json& cases) {
    const absl::StatusOr<Regex> regex = Regex::Compile(pattern.get<std::string>());
    ASSERT_TRUE(regex.ok()) << regex.status();
    for (const json& golden : cases) {
      const std::string text = golden[0];
      const absl::StatusOr<std::vector<TextSpan>> matches = regex->FindAll(text);
      ASSERT_TRUE(matches.ok()) << matches.status();
      // The reference does not replace inside the empty text.
      ASSERT_EQ(text.empty() ? text : ReplaceMatches(text, *matches, "\u2588"), golden[1]) << golden[0];
      json spans = json::array();
      for (const TextSpan& match : *matches) {
        if (match.begin != match.end) spans.push_back({match.begin, match.end});
      }
      ASSERT_EQ(spans.dump(), golden[2].dump()) << golden[0];
    }
  });
}

constexpr std::size_t kNumCodePoints = 0x110000;

std::vector<bool> MembersOf(const Regex& member) {
  std::vector<bool> members(kNumCodePoints);
  for (char32_t c = 0; c < kNumCodePoints; ++c) {
    if (c == 0xD800) c = 0xE000;
    std::string text;
    AppendCodePoint(c, &text);
    const absl::StatusOr<std::vector<TextSpan>> matches = member.FindAll(text);
    members[c] = matches.ok() && !matches->empty();
  }
  return members;
}

std::vector<bool> MembersOf(const json& ranges) {
  std::vector<bool> members(kNumCodePoints);
  for (const json& range : ranges) {
    for (std::size_t c = range[0]; c <= range[1]; ++c) members[c] = true;
  }
  return members;
}

absl::StatusOr<Regex> ClassNamed(const std::string& name) {
  if (name == "Digits") return Regex::CompilePcre2(absl::StrCat("[", NumericClass(), "]"));
  if (name == "Whitespace") return Regex::CompilePcre2(absl::StrCat("[", PlainWordClass(), "]"));
  if (name == "WhitespaceSplit") return Regex::CompilePcre2(absl::StrCat("[", WhiteSpaceClass(), "]"));
  if (name == "Punctuation") {
    return Regex::CompilePcre2(absl::StrCat("(?![", PunctuationExclusions(), "])[", PunctuationClass(), "]"));
  }
  return Regex::Compile(name);
}

// The known differences: U+1171E moved from Mn to Mc in Unicode 16, and PCRE2 10.42 has it in the older category.
bool IsKnownDifference(const std::string& name, std::size_t code_point) {
  return code_point == 0x1171E && (name == "\\p{Mn}" || name == "\\p{Mc}");
}

TEST(TokenizerComponentsTest, ClassesHoldTheSameCharacters) {
  const json classes = json::parse(std::ifstream(kClassesFile));
  EXPECT_GE(classes.size(), 49u);
  for (const auto& [name, ranges] : classes.items()) {
    const absl::StatusOr<Regex> regex = ClassNamed(name);
    ASSERT_TRUE(regex.ok()) << name << ": " << regex.status();
    const std::vector<bool> actual = MembersOf(*regex);
    const std::vector<bool> expected = MembersOf(ranges);
    for (std::size_t c = 0; c < kNumCodePoints; ++c) {
      if (actual[c] == expected[c] || IsKnownDifference(name, c)) continue;
      ADD_FAILURE() << name << " and code point " << std::hex << c << ": the reference says " << expected[c];
      break;
    }
  }
}

}  // namespace
}  // namespace cadre
