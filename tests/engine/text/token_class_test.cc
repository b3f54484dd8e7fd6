#include "engine/text/token_class.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/tokenizer.h"

namespace cadre {
namespace {

TEST(TokenClass, IsToldByTheText) {
  const std::vector<std::pair<std::string, TokenClass>> cases = {
      {" ", TokenClass::kWhitespace},
      {"\n\n\t", TokenClass::kWhitespace},
      {"\u00a0", TokenClass::kWhitespace},
      {"42", TokenClass::kDigits},
      {" 7", TokenClass::kDigits},
      {"3.14", TokenClass::kDigits},
      {"\u0663", TokenClass::kDigits},  // Arabic-Indic three
      {",", TokenClass::kPunctuation},
      {" \"...", TokenClass::kPunctuation},
      {"\u3002", TokenClass::kPunctuation},  // ideographic full stop
      {"\u2014", TokenClass::kPunctuation},  // em dash
      {"{", TokenClass::kCode},
      {" +=", TokenClass::kCode},
      {"();", TokenClass::kCode},
      {"my_name", TokenClass::kCode},
      {"getName", TokenClass::kCode},
      {"<div", TokenClass::kCode},
      {" the", TokenClass::kLatin},
      {"The", TokenClass::kLatin},
      {"HTTP", TokenClass::kLatin},
      {"stra\u00dfe", TokenClass::kLatin},
      {"don't", TokenClass::kLatin},
      {"x2", TokenClass::kLatin},
      {"\u0434\u043e\u043c", TokenClass::kCyrillic},
      {" \u03bb\u03cc\u03b3\u03bf\u03c2", TokenClass::kGreek},
      {"\u0643\u062a\u0627\u0628", TokenClass::kArabic},
      {"\u05e9\u05dc\u05d5\u05dd", TokenClass::kHebrew},
      {"\u0928\u092e\u0938\u094d\u0924\u0947", TokenClass::kIndic},
      {"\u6f22\u5b57", TokenClass::kHan},
      {"\u3072\u3089", TokenClass::kKana},
      {"\u30ab\u30ca", TokenClass::kKana},
      {"\ud55c\uae00", TokenClass::kHangul},
      {"\u0e44\u0e17\u0e22", TokenClass::kOther},  // Thai
      {"\U0001f600", TokenClass::kOther},
      {"\u20ac", TokenClass::kOther},  // a symbol that is not code's
      {"\xe6\xbc", TokenClass::kBytes},
      {"a\xff", TokenClass::kBytes},
  };
  for (const auto& [text, expected] : cases) {
    EXPECT_EQ(TokenClassName(ClassifyTokenText(text)), TokenClassName(expected)) << '"' << text << '"';
  }
}

TEST(TokenClass, EveryClassHasANameOfItsOwn) {
  std::set<std::string_view> names;
  for (int i = 0; i < kNumTokenClasses; ++i) names.insert(TokenClassName(static_cast<TokenClass>(i)));
  EXPECT_EQ(names.size(), static_cast<size_t>(kNumTokenClasses));
  EXPECT_EQ(TokenClassName(TokenClass::kOther), "other");
}

TEST(TokenClass, AVocabularyIsClassifiedOnce) {
  const auto tokenizer = Tokenizer::Load("models/demo");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const int32_t size = (*tokenizer)->vocab_size();
  const std::vector<uint8_t> classes = ClassifyVocabulary(**tokenizer, size + 3);
  ASSERT_EQ(classes.size(), static_cast<size_t>(size + 3));
  for (int32_t id = size; id < size + 3; ++id) EXPECT_EQ(classes[static_cast<size_t>(id)], 0);
  const auto class_of = [&](std::string_view text) {
    const auto ids = (*tokenizer)->Encode(text, {.add_special_tokens = false});
    return static_cast<TokenClass>(classes[static_cast<size_t>(ids->back())]);
  };
  EXPECT_EQ(class_of("a"), TokenClass::kLatin);
  EXPECT_EQ(class_of("a."), TokenClass::kPunctuation);
  EXPECT_EQ(class_of("a\n"), TokenClass::kWhitespace);
}

}  // namespace
}  // namespace cadre
