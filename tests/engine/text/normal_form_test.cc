// The forms themselves are compared with the reference in tokenizer_components_test; here is what that cannot show.
#include "engine/text/normal_form.h"

#include <string>

#include "gtest/gtest.h"
#include "tests/support/time_limit.h"

namespace cadre {
namespace {

TEST(NormalFormTest, ComposesAndDecomposes) {
  EXPECT_EQ(Normalize("e\u0301", NormalForm::kNfc), "\u00E9");
  EXPECT_EQ(Normalize("\u00E9", NormalForm::kNfd), "e\u0301");
  EXPECT_EQ(Normalize("\uFB01 \u00BD", NormalForm::kNfkc), "fi 1\u20442");
  EXPECT_EQ(Normalize("\u1100\u1161\u11A8", NormalForm::kNfc), "\uAC01");
  EXPECT_EQ(Normalize("plain", NormalForm::kNfkd), "plain");
}

TEST(NormalFormTest, HangulTrailingBaseIsNoConsonant) {
  EXPECT_EQ(Normalize("\uAC00\u11A7", NormalForm::kNfc), "\uAC00\u11A7");
}

TEST(NormalFormTest, CharactersNewerThanTheReferenceKnowsPassThrough) {
  // Decomposes since Unicode 13, and its parts compose.
  EXPECT_EQ(Normalize("\U00011938", NormalForm::kNfd), "\U00011938");
  EXPECT_EQ(Normalize("\U00011935\U00011930", NormalForm::kNfc), "\U00011935\U00011930");
  EXPECT_EQ(Normalize("\u32FF", NormalForm::kNfkc), "\u32FF");
}

TEST(NormalFormTest, LowercaseLooksAtOneCharacter) {
  EXPECT_EQ(ToLowercase("\u0391\u03A3"), "\u03B1\u03C3");
  EXPECT_EQ(ToLowercase("\u0130I"), "i\u0307i");
  EXPECT_EQ(ToLowercase("\u1C89"), "\u1C8A");
}

TEST(NormalFormTest, MarksOfOneClassKeepTheirOrder) {
  std::string above;
  for (int i = 0; i < 100; ++i) above += i % 3 == 0 ? "\u0302" : "\u0300";
  EXPECT_EQ(Normalize("x" + above + "\u0323", NormalForm::kNfd), "x\u0323" + above);
}

TEST(NormalFormTest, ALongRunOfMarksInTheWrongOrderTakesNoLongerThanOthers) {
  std::string marks = "a";
  for (int i = 0; i < 200'000; ++i) marks += i % 2 == 0 ? "\u0301" : "\u0327";
  const Stopwatch stopwatch;
  const std::string composed = Normalize(marks, NormalForm::kNfc);
  // Sorting by exchange of neighbors would take minutes.
  EXPECT_LT(stopwatch.Seconds(), 5 * kTimeFactor);
  EXPECT_EQ(composed.substr(0, 6), "\u00E1\u0327\u0327");
}

}  // namespace
}  // namespace cadre
