#include "engine/text/utf8.h"

#include <string>

#include "gtest/gtest.h"

namespace cadre {
namespace {

std::string Lossy(std::string_view bytes) {
  std::string text;
  AppendValidUtf8(bytes, &text);
  return text;
}

TEST(Utf8Test, EveryCodePointThereAndBack) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c == 0xD800) c = 0xE000;
    std::string text;
    AppendCodePoint(c, &text);
    ASSERT_TRUE(IsValidUtf8(text)) << static_cast<unsigned>(c);
    std::size_t position = 0;
    ASSERT_EQ(NextCodePoint(text, &position), c);
    ASSERT_EQ(position, text.size());
    ASSERT_EQ(CountCodePoints(text), 1u);
    ASSERT_EQ(PreviousBoundary(text, text.size()), 0u);
    for (std::size_t size = 1; size < text.size(); ++size) {
      ASSERT_FALSE(IsValidUtf8(text.substr(0, size)));
      ASSERT_EQ(IncompleteSuffixSize(std::string(1, 'x').append(text, 0, size)), size);
    }
    ASSERT_EQ(IncompleteSuffixSize(text), 0u);
  }
}

TEST(Utf8Test, OverlongFormsSurrogatesAndTooLargeValuesAreInvalid) {
  for (const std::string_view bytes : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xED\xBF\xBF",
                                       "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFE", "\xFF"}) {
    EXPECT_FALSE(IsValidUtf8(bytes));
    EXPECT_EQ(IncompleteSuffixSize(bytes), 0u);
  }
}

// The examples of the Unicode Standard, section 3.9, tables 3-8 to 3-11.
TEST(Utf8Test, EachMaximalInvalidPartIsReplacedOnce) {
  EXPECT_EQ(Lossy("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA");
  EXPECT_EQ(Lossy("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA");
  EXPECT_EQ(Lossy("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA\uFFFD\uFFFDB");
  EXPECT_EQ(Lossy("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), "\uFFFD\uFFFD\uFFFD\uFFFDA");
  EXPECT_EQ(Lossy("caf\xC3"), "caf\uFFFD");
}

}  // namespace
}  // namespace cadre
