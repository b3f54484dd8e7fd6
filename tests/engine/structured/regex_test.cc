// Expressions against PCRE2, and what is refused.
#include "engine/text/regex.h"

#include <random>
#include <string>
#include <vector>

#include "engine/structured/byte_dfa.h"
#include "engine/structured/code_point_set.h"
#include "engine/structured/constraint_compiler.h"
#include "engine/text/utf8.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/structured_walk.h"

namespace cadre {
namespace {

using testing::HasSubstr;

ByteDfa Compile(std::string_view pattern, RegexExtent extent = RegexExtent::kWholeText) {
  absl::StatusOr<ByteDfa> dfa = CompileRegex(pattern, extent, CharacterCode::kUtf8);
  EXPECT_TRUE(dfa.ok()) << pattern << " " << dfa.status();
  return dfa.ok() ? *std::move(dfa) : ByteDfa({});
}

bool Matches(const Regex& regex, std::string_view text) {
  const auto found = regex.FindAll(text);
  EXPECT_TRUE(found.ok());
  return !found->empty();
}

TEST(CodePointSetTest, Utf8SequencesAreExactlyTheEncodings) {
  for (const CodePointRange range : {CodePointRange{0, 0xD7FF},
                                     {0xE000, 0x10FFFF},
                                     {0x7F, 0x80},
                                     {0x7FE, 0x801},
                                     {0x1234, 0x1234},
                                     {0x3FF, 0x13FF},
                                     {0xFFFE, 0x10001},
                                     {0x41, 0x10FFFF - 1}}) {
    if (range.first < 0xD800 && range.last > 0xDFFF) continue;
    const std::vector<ByteRangeSequence> sequences = Utf8Sequences(range);
    for (uint32_t c = 0; c <= kMaxCodePoint; c += c < 0x3000 ? 1 : 37) {
      if (c >= 0xD800 && c <= 0xDFFF) continue;
      std::string bytes;
      AppendCodePoint(c, &bytes);
      int num_matching = 0;
      for (const ByteRangeSequence& sequence : sequences) {
        bool matches = sequence.size() == bytes.size();
        for (size_t i = 0; matches && i < bytes.size(); ++i) {
          const auto byte = static_cast<uint8_t>(bytes[i]);
          matches = sequence[i].first <= byte && byte <= sequence[i].last;
        }
        num_matching += matches ? 1 : 0;
      }
      ASSERT_EQ(num_matching, range.first <= c && c <= range.last ? 1 : 0) << c;
    }
  }
}

TEST(CodePointSetTest, SetsAreNormalizedAndHaveNoSurrogates) {
  const CodePointSet set({{'x', 'z'}, {'a', 'c'}, {'d', 'f'}, {0xD000, 0xE000}});
  EXPECT_EQ(set.ranges(), (std::vector<CodePointRange>{{'a', 'f'}, {'x', 'z'}, {0xD000, 0xD7FF}, {0xE000, 0xE000}}));
  EXPECT_EQ(set.Complement().Complement().ranges(), set.ranges());
  EXPECT_TRUE(set.Minus(CodePointSet::All()).empty());
  EXPECT_EQ(set.Minus(CodePointSet({{'b', 'y'}})).ranges(),
            (std::vector<CodePointRange>{{'a', 'a'}, {'z', 'z'}, {0xD000, 0xD7FF}, {0xE000, 0xE000}}));
}

constexpr std::string_view kPatterns[] = {"",
                                          "a",
                                          "ab|cd|",
                                          "a*",
                                          "a+b?",
                                          "(ab)+",
                                          "a{2}",
                                          "a{2,}",
                                          "a{0,2}b",
                                          "(a|b){1,3}c",
                                          "[a-c]+",
                                          "[^a-c]",
                                          "[^a]*b",
                                          "a.c",
                                          "\\d+",
                                          "[\\d_]+",
                                          "a\\.b",
                                          "(?:a|bc)*d",
                                          "(?<n>a)(?P<m>b)",
                                          "a*?b+?",
                                          "a??b",
                                          "a{1,2}?b",
                                          "\\x61\\x62",
                                          "[\\x61-\\x63]",
                                          "é+",
                                          "[à-é]x",
                                          "[^x]é",
                                          "😀?a",
                                          "(a*)*b",
                                          "(a|)*b",
                                          "((a{0,2}){0,2}){0,2}",
                                          "a|ab|abc",
                                          "[a-]",
                                          "[-a]",
                                          "a\\|b",
                                          "[.*+]",
                                          "\\[a\\]",
                                          "(a(b(c(d)?)?)?)?",
                                          "a{",
                                          "a{x}",
                                          "{}",
                                          "]",
                                          "[a\\]b]+",
                                          "(^a|^b)c",
                                          "^(a|b)$",
                                          "(?:^a$|^b$)",
                                          "^",
                                          "$",
                                          "^$",
                                          "^a|b$",
                                          "a$|^b",
                                          "\\n",
                                          "[\\n\\t]",
                                          "\\s",
                                          "[^\\s]",
                                          "(a{3}){2}",
                                          "(?:)",
                                          "()",
                                          "a||b"};

TEST(RegexTest, AgreesWithPcre2OnRandomTexts) {
  constexpr std::string_view kAlphabet[] = {"a",
                                            "b",
                                            "c",
                                            "d",
                                            "x",
                                            "_",
                                            "1",
                                            "7",
                                            ".",
                                            "|",
                                            "[",
                                            "]",
                                            "*",
                                            "+",
                                            "-",
                                            "{",
                                            "}",
                                            " ",
                                            "\n",
                                            "\t",
                                            "\xC3\xA9",
                                            "\xC3\xA0",
                                            "\xF0\x9F\x98\x80"};
  std::mt19937_64 random(5);
  for (const std::string_view pattern : kPatterns) {
    SCOPED_TRACE(pattern);
    const ByteDfa whole = Compile(pattern);
    const ByteDfa search = Compile(pattern, RegexExtent::kSearch);
    const auto pcre_whole = Regex::CompilePcre2("(?:(?-m)\\A(?:" + std::string(pattern) + ")\\z)");
    const auto pcre_search = Regex::CompilePcre2("(?-m)" + std::string(pattern));
    ASSERT_TRUE(pcre_whole.ok() && pcre_search.ok());
    for (int i = 0; i < 400; ++i) {
      std::string text;
      // Few letters, so that texts match often.
      const size_t num_letters = 1 + random() % std::size(kAlphabet);
      const size_t first = random() % std::size(kAlphabet);
      for (size_t n = random() % 7; n > 0; --n)
        text += kAlphabet[(first + random() % num_letters) % std::size(kAlphabet)];
      if (pattern.find('$') != pattern.npos && text.ends_with("\n")) continue;  // PCRE2's $ also matches before it
      EXPECT_EQ(whole.Accepts(text), Matches(*pcre_whole, text)) << text;
      EXPECT_EQ(search.Accepts(text), Matches(*pcre_search, text)) << text;
    }
  }
}

TEST(RegexTest, DotIsAnyCharacterButALineEnd) {
  const ByteDfa dot = Compile(".");
  for (const std::string_view text : {"a", " ", "\t", "\xC3\xA9", "\xF0\x9F\x98\x80", "\x7F"})
    EXPECT_TRUE(dot.Accepts(text));
  for (const std::string_view text : {"", "\n", "\r", "\xE2\x80\xA8", "ab", "\xC3", "\x80", "\xED\xA0\x80"}) {
    EXPECT_FALSE(dot.Accepts(text)) << text;
  }
}

TEST(RegexTest, ClassesAreAscii) {
  EXPECT_TRUE(Compile("\\u0061\\u{62}\\u{1F600}").Accepts("ab\xF0\x9F\x98\x80"));
  EXPECT_TRUE(Compile("\\w\\d\\s").Accepts("a1 "));
  EXPECT_FALSE(Compile("\\w").Accepts("\xC3\xA9"));
  EXPECT_FALSE(Compile("\\d").Accepts("\xD9\xA3"));
  EXPECT_TRUE(Compile("\\W\\D\\S").Accepts("\xC3\xA9\xD9\xA3-"));
  // A no-break space is neither: dialects do not agree on it.
  EXPECT_FALSE(Compile("\\s").Accepts("\xC2\xA0"));
  EXPECT_FALSE(Compile("\\S").Accepts("\xC2\xA0"));
}

TEST(RegexTest, JsonCodeWritesCharactersInOneWay) {
  const auto dfa = CompileRegex("[\\u0000-\\u{10FFFF}]", RegexExtent::kWholeText, CharacterCode::kJsonString);
  for (const std::string_view text : {"a", "/", "\\\"", "\\\\", "\\n", "\\t", "\\b", "\\f", "\\r", "\\u0000", "\\u001f",
                                      "\\u001F", "\xC3\xA9", "\x7F"}) {
    EXPECT_TRUE(dfa->Accepts(text)) << text;
  }
  for (const std::string_view text : {"\"", "\\", "\n", "\\/", "\\u0061", "\\u000a", "\\u0020", "\\x"}) {
    EXPECT_FALSE(dfa->Accepts(text)) << text;
  }
}

TEST(ByteDfaTest, CombinationsAreWhatTheySay) {
  const ByteDfa a = Compile("[ab]{0,6}");
  const ByteDfa b = Compile(".*ab.*");
  const absl::StatusOr<ByteDfa> both = Intersect(a, b);
  const absl::StatusOr<ByteDfa> only_a = Subtract(a, b);
  const ByteDfa texts = ByteDfa::FromTexts({"ab", "abc", "", "b"});
  for (int bits = 0; bits < 3 * 3 * 3 * 3 * 3; ++bits) {
    std::string text;
    for (int rest = bits; rest > 0; rest /= 3) text += "abc"[rest % 3];
    EXPECT_EQ(both->Accepts(text), a.Accepts(text) && b.Accepts(text)) << text;
    EXPECT_EQ(only_a->Accepts(text), a.Accepts(text) && !b.Accepts(text)) << text;
    EXPECT_EQ(texts.Accepts(text), text == "ab" || text == "abc" || text.empty() || text == "b") << text;
  }
}

using Refusals = std::vector<std::pair<std::string_view, std::string_view>>;

void ExpectRefused(const Refusals& refusals, absl::StatusCode code) {
  for (const auto& [pattern, what] : refusals) {
    const auto dfa = CompileRegex(pattern, RegexExtent::kWholeText, CharacterCode::kUtf8);
    EXPECT_EQ(dfa.status().code(), code) << pattern;
    EXPECT_THAT(std::string(dfa.status().message()), HasSubstr(std::string(what))) << pattern;
  }
}

TEST(RegexTest, WhatIsNotSupportedIsRefusedByName) {
  ExpectRefused({{"a(?=b)", "look-around (?=...)"},
                 {"b(?!a)", "look-around (?!...)"},
                 {"(?!a(?=b))c", "look-around (?=...)"},
                 {"((?!a)b)", "look-around (?!...)"},
                 {"(?!a)b|c", "look-around in one of several alternatives"},
                 {"b|(?!a)c", "look-around (?!...)"},
                 {"(?<=a)b", "look-around (?<=...)"},
                 {"(?<!a)b", "look-around (?<!...)"},
                 {"(a)\\1", "back-references"},
                 {"(?P<x>a)(?P=x)", "back-reference (?P=...)"},
                 {"\\ba", "word boundary"},
                 {"\\p{L}", "Unicode property"},
                 {"(?i)a", "flags"},
                 {"(?>a)", "atomic group"},
                 {"a++", "possessive quantifier"},
                 {"[[:alpha:]]", "POSIX classes"},
                 {"[a&&b]", "set operations"},
                 {"a^b", "an anchor ^ or $ inside"},
                 {"(a$)b", "an anchor ^ or $ inside"},
                 {"\\Aa", "write ^ or $"},
                 {"\\012", "octal"}},
                absl::StatusCode::kUnimplemented);
}

TEST(RegexTest, WhatIsMalformedIsRefusedWithItsPlace) {
  ExpectRefused({{"a{,3}", "write {0,n}"},
                 {"\\q", "unknown escape \\q"},
                 {"*a", "without anything to repeat"},
                 {"a**", "two quantifiers"},
                 {"a{1}{2}", "two quantifiers in a row at byte 4"},
                 {"a*{2,3}", "two quantifiers"},
                 {"a+{99999}", "two quantifiers"},
                 {"(a", "a group does not end at byte 2"},
                 {"a)", "unmatched )"},
                 {"[a", "a class does not end"},
                 {"[]a]", "an empty class"},
                 {"[b-a]", "end is before its start"},
                 {"[\\d-z]", "a class as the end of a range"},
                 {"a{3,2}", "n less than m"},
                 {"a{10001}", "above the limit of 10000"},
                 {"\\uD800", "no character"},
                 {"\\x4", "hexadecimal digits are missing"},
                 {"\\", "a backslash at the end"},
                 {"^*", "an anchor cannot be repeated"},
                 {"(?=a)*b", "a look-around cannot be repeated"},
                 {"(?=a", "a group does not end at byte 4"},
                 {"\xC3", "not valid UTF-8"}},
                absl::StatusCode::kInvalidArgument);
}

TEST(RegexTest, LookAheadsAtTheStartHold) {
  for (const std::string_view pattern :
       {"(?=a)[ab]*", "(?!a)[ab]*", "^(?!ab)(?!b*$)[ab]{0,4}$", "(?=.*ab)(?=.*ba)[ab]*",
        "(?!^[-+.]*$)[-+]?[0-9]*[.]?[0-9]*", "(?!)a", "(?=)a", "(?!(?:a|bb)c)[abc]{2,4}", "(?=a|b$)[ab]{1,3}",
        "^(?![.])(?!.*[.][.])[a.]*[a]$"}) {
    const ByteDfa dfa = Compile(pattern);
    const auto pcre = Regex::CompilePcre2("(?:(?-m)\\A(?:" + std::string(pattern) + ")\\z)");
    constexpr std::string_view kSigns = "abc.-0";
    for (int code = 0; code < 6 * 6 * 6 * 6 * 6; ++code) {
      std::string text;
      for (int rest = code; rest > 0; rest /= 6) text += kSigns[static_cast<size_t>(rest % 6)];
      ASSERT_EQ(dfa.Accepts(text), Matches(*pcre, text)) << pattern << " " << text;
    }
  }
  // Each is cheap enough; all together are not.
  std::string many;
  for (int i = 0; i < 300; ++i) many += "(?!(a|b)*a(a|b){12})";
  const auto dfa = CompileRegex(many + "c", RegexExtent::kWholeText, CharacterCode::kUtf8);
  EXPECT_EQ(dfa.status().code(), absl::StatusCode::kResourceExhausted);
  // A part of the text that may begin anywhere has no start to look ahead from.
  const auto floating = CompileRegex("(?!a)b", RegexExtent::kSearch, CharacterCode::kUtf8);
  EXPECT_EQ(floating.status().code(), absl::StatusCode::kUnimplemented);
}

// Sizes far beyond any memory: these would not return if the limits came too late.
TEST(RegexTest, HostileExpressionsAreRefusedByALimit) {
  std::string nested = "a";
  for (int i = 0; i < 90; ++i) nested = "(" + nested + "){1,1000}";
  for (const std::string& pattern : {std::string("(a{1,1000}){1,1000}"), nested, std::string("(a|b)*a(a|b){40}"),
                                     std::string("(.*a){30}.{30}b.{30}")}) {
    const auto dfa = CompileRegex(pattern, RegexExtent::kWholeText, CharacterCode::kUtf8);
    EXPECT_EQ(dfa.status().code(), absl::StatusCode::kResourceExhausted) << pattern.substr(0, 60) << dfa.status();
  }
  const auto deep = CompileRegex(std::string(20000, '('), RegexExtent::kWholeText, CharacterCode::kUtf8);
  EXPECT_THAT(std::string(deep.status().message()), HasSubstr("nested deeper than 100"));
  const auto long_one =
      CompileRegex(std::string(kMaxRegexBytes + 1, 'a'), RegexExtent::kWholeText, CharacterCode::kUtf8);
  EXPECT_THAT(std::string(long_one.status().message()), HasSubstr("the limit is 32768"));
}

TEST(RegexTest, ConstraintsGenerateOnlyMatches) {
  const auto vocabulary = ByteVocabulary(JsonPieces());
  std::mt19937_64 random(8);
  for (const std::string_view pattern : kPatterns) {
    const CompiledConstraint constraint = ConstrainToRegex(pattern, vocabulary);
    if (Compile(pattern).states().size() == 1 && Compile(pattern).states()[0].edges.empty()) {
      EXPECT_EQ(constraint.status().message(), "only the empty text conforms") << pattern;
      continue;
    }
    ASSERT_TRUE(constraint.ok()) << pattern << constraint.status();
    const auto pcre = Regex::CompilePcre2("(?:(?-m)\\A(?:" + std::string(pattern) + ")\\z)");
    for (int i = 0; i < 30; ++i) {
      const WalkResult walk = RandomWalk(**constraint, *vocabulary, random, 1 + static_cast<int>(random() % 20));
      EXPECT_TRUE(!walk.is_finished || Matches(*pcre, walk.text)) << pattern << " " << walk.text;
    }
  }
}

}  // namespace
}  // namespace cadre
