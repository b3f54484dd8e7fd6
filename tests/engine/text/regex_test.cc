#include "engine/text/regex.h"

#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace cadre {
namespace {

std::vector<TextSpan> MatchesOf(std::string_view pattern, std::string_view text) {
  const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  if (!regex.ok()) return {};
  const absl::StatusOr<std::vector<TextSpan>> matches = regex->FindAll(text);
  EXPECT_TRUE(matches.ok()) << matches.status();
  return matches.value_or(std::vector<TextSpan>());
}

TEST(RegexTest, FindsMatchesLeftToRight) {
  EXPECT_EQ(MatchesOf(R"(\d+)", "a12b3"), (std::vector<TextSpan>{{1, 3}, {4, 5}}));
  EXPECT_EQ(MatchesOf(R"(\p{L}+)", "\u00E9t\u00E9 x"), (std::vector<TextSpan>{{0, 5}, {6, 7}}));
  EXPECT_TRUE(MatchesOf("x", "").empty());
}

TEST(RegexTest, AnEmptyMatchRightAfterAMatchIsPassedOver) {
  EXPECT_EQ(MatchesOf("a*", "baac"), (std::vector<TextSpan>{{0, 0}, {1, 3}, {4, 4}}));
  EXPECT_EQ(MatchesOf("", "\u00E9x"), (std::vector<TextSpan>{{0, 0}, {2, 2}, {3, 3}}));
}

TEST(RegexTest, WhiteSpaceIsUnicodes) {
  EXPECT_EQ(MatchesOf(R"(\s)", "\u0085").size(), 1u);
  EXPECT_EQ(MatchesOf(R"([\s])", "\u3000").size(), 1u);
  // The Mongolian vowel separator was white space until Unicode 6.2, and to PCRE2's own \s still is.
  EXPECT_TRUE(MatchesOf(R"(\s)", "\u180E").empty());
  EXPECT_EQ(MatchesOf(R"([^\s])", "\u180E").size(), 1u);
  EXPECT_EQ(MatchesOf(R"(\S)", "\u180E").size(), 1u);
}

TEST(RegexTest, LiteralsHaveNoSyntax) {
  const absl::StatusOr<Regex> regex = Regex::CompileLiteral("a.*(");
  ASSERT_TRUE(regex.ok());
  EXPECT_EQ(*regex->FindAll("xa.*(y"), (std::vector<TextSpan>{{1, 5}}));
}

TEST(RegexTest, RefusesWhatTheEnginesUnderstandDifferently) {
  for (const std::string_view pattern :
       {R"((a)\1)",     R"((?<name>a))", R"(a(?i)b)", R"((?m:a))",    R"((?s:a))",   R"((?x) a)",      "(*UCP)a",
        R"(\b)",        R"(\B)",         R"(\G)",     R"(\K)",        R"(\R)",       R"(\X)",          R"(\Qa\E)",
        R"(\p{Alpha})", R"(\p{^L})",     R"(\pL)",    R"(\p{Khmer})", "[[:alpha:]]", "[a-z&&[aeiou]]", "[a[b]]",
        R"([\W])",      R"([\P{L}])",    R"([\D])",   R"([\d-z])",    R"([!-\d])",   "[]a]",           "a{2}?",
        "a{1,2}+",      "a{,2}",         R"(\xE9)",   R"(\012)",      R"(\cA)",      R"(\M-a)",        R"((?~abc))",
        "(?#x)a",       R"(\g<1>)"}) {
    const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
    EXPECT_EQ(regex.status().code(), absl::StatusCode::kUnimplemented) << pattern << ": " << regex.status();
  }
}

TEST(RegexTest, MalformedPatternsAreInvalid) {
  for (const std::string_view pattern :
       {"(", ")", "[", "[a", "[z-a]", "a**", "*a", "(?:", "(?<=a*)b", "\\", R"(\x{110000})", R"(\x{D800})", "a{2,1}"}) {
    const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
    EXPECT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument) << pattern << ": " << regex.status();
  }
  EXPECT_FALSE(Regex::Compile(R"(\x{}|\x{zz}|\x{4)").ok());
  EXPECT_TRUE(absl::IsInvalidArgument(Regex::Compile(std::string(100'000, 'a')).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Regex::CompileLiteral(std::string(100'000, 'a')).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Regex::Compile(std::string(1000, '(') + std::string(1000, ')')).status()));
}

TEST(RegexTest, TooMuchWorkIsAnErrorAndNoSplit) {
  const absl::StatusOr<Regex> regex = Regex::Compile("(a|aa)+$");
  ASSERT_TRUE(regex.ok());
  const absl::StatusOr<std::vector<TextSpan>> matches = regex->FindAll(std::string(5000, 'a') + "b");
  EXPECT_TRUE(absl::IsInvalidArgument(matches.status())) << matches.status();
  // And the next text is not affected.
  EXPECT_EQ(*regex->FindAll("aaa"), (std::vector<TextSpan>{{0, 3}}));
}

TEST(RegexTest, OnePatternServesManyThreads) {
  const absl::StatusOr<Regex> regex = Regex::Compile(R"(\p{L}+|\d{1,3}|\s+(?!\S)|\s+)");
  ASSERT_TRUE(regex.ok());
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "word " + std::to_string(i) + "\n";
  const std::vector<TextSpan> expected = *regex->FindAll(text);
  std::vector<std::vector<TextSpan>> found(4);
  std::vector<std::thread> threads;
  for (std::vector<TextSpan>& matches : found) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) matches = *regex->FindAll(text);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<TextSpan>& matches : found) EXPECT_EQ(matches, expected);
}

}  // namespace
}  // namespace cadre
