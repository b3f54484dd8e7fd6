#include "engine/text/stop_matcher.h"

#include <cstddef>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/utf8.h"
#include "gtest/gtest.h"
#include "tests/support/time_limit.h"

namespace cadre {
namespace {

// What a matcher says to a text that comes in the given pieces.
struct Outcome {
  std::string text;
  std::optional<std::string> matched;

  bool operator==(const Outcome&) const = default;
};

Outcome Feed(StopMatcher matcher, const std::vector<std::string>& pieces) {
  Outcome outcome;
  for (const std::string& piece : pieces) {
    StopMatcher::Result result = matcher.Append(piece);
    outcome.text += result.text;
    if (result.matched.has_value()) outcome.matched = result.matched;
  }
  outcome.text += matcher.Flush();
  return outcome;
}

Outcome NaiveSearch(std::string_view text, const std::vector<std::string>& stops, bool include_stop_string) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::string longest;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop) && stop.size() > longest.size()) longest = stop;
    }
    if (longest.empty()) continue;
    return {std::string(text.substr(0, include_stop_string ? end : end - longest.size())), longest};
  }
  return {std::string(text), std::nullopt};
}

TEST(StopMatcherTest, CutsAtTheStartOfTheStopString) {
  EXPECT_EQ(Feed(StopMatcher({"\n\nUser:"}), {"Hi.\n", "\nUs", "er: what"}), (Outcome{"Hi.", "\n\nUser:"}));
}

TEST(StopMatcherTest, CutsBehindItWhenItIsIncluded) {
  EXPECT_EQ(Feed(StopMatcher({"END"}, /*include_stop_string=*/true), {"the E", "ND is near"}),
            (Outcome{"the END", "END"}));
}

TEST(StopMatcherTest, WithoutStopStringsNothingIsHeldBack) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.Append("abc").text, "abc");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, EmptyStopStringsAreIgnored) {
  EXPECT_EQ(Feed(StopMatcher({"", "x"}), {"abxc"}), (Outcome{"ab", "x"}));
  EXPECT_EQ(Feed(StopMatcher({""}), {"ab"}), (Outcome{"ab", std::nullopt}));
}

TEST(StopMatcherTest, HoldsBackNoMoreThanCouldMatch) {
  StopMatcher matcher({"abcd", "xy"});
  EXPECT_EQ(matcher.Append("zab").text, "z");
  EXPECT_EQ(matcher.Append("c").text, "");
  EXPECT_EQ(matcher.Append("x").text, "abc");
  EXPECT_EQ(matcher.Append("z").text, "xz");
  EXPECT_EQ(matcher.Append("abc").text, "");
  EXPECT_EQ(matcher.Flush(), "abc");
}

TEST(StopMatcherTest, TheMatchThatEndsFirstWins) {
  // "hers" starts first, but "er" is complete before it.
  EXPECT_EQ(Feed(StopMatcher({"hers", "er"}), {"ushers"}), (Outcome{"ush", "er"}));
}

TEST(StopMatcherTest, AmongMatchesThatEndTogetherTheLongestWins) {
  EXPECT_EQ(Feed(StopMatcher({"e", "she", "he"}), {"ushe"}), (Outcome{"u", "she"}));
  EXPECT_EQ(Feed(StopMatcher({"e", "she", "he"}), {"u", "s", "h", "e"}), (Outcome{"u", "she"}));
}

TEST(StopMatcherTest, SaysNothingAfterAMatch) {
  StopMatcher matcher({"stop"});
  EXPECT_EQ(matcher.Append("a stop b").matched, "stop");
  EXPECT_EQ(matcher.Append("stop").text, "");
  EXPECT_EQ(matcher.Append("stop").matched, std::nullopt);
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, EmitsWholeCharactersOnly) {
  const std::string text = "a\xF0\x9F\x99\x82 \xE4\xB8\xAD\xE6\x96\x87 \xC3\xA9\xC3\xA8!";
  for (std::size_t size = 1; size <= text.size(); ++size) {
    StopMatcher matcher({"\xF0\x9F\x99\x83", "\xE6\x96\x87x", "\xC3\xA9\xC3\xA9"});
    std::string sent;
    for (std::size_t position = 0; position < text.size(); position += size) {
      const std::string piece = matcher.Append(text.substr(position, size)).text;
      EXPECT_TRUE(IsValidUtf8(piece)) << size;
      sent += piece;
    }
    EXPECT_EQ(sent + matcher.Flush(), text) << size;
  }
}

TEST(StopMatcherTest, AgreesWithNaiveSearchHoweverTheTextIsCut) {
  std::mt19937 random(3);
  const auto random_string = [&random](int max_size) {
    std::string text;
    for (unsigned i = random() % static_cast<unsigned>(max_size + 1); i > 0; --i) text += "ab\xC3\xA9"[random() % 4];
    return text;
  };
  int num_matched = 0;
  for (int trial = 0; trial < 20'000; ++trial) {
    std::vector<std::string> stops;
    for (unsigned i = random() % 5; i > 0; --i) stops.push_back(random_string(6));
    const bool include_stop_string = random() % 2 == 0;
    std::vector<std::string> pieces;
    std::string text;
    for (unsigned i = random() % 8; i > 0; --i) {
      pieces.push_back(random_string(4));
      text += pieces.back();
    }
    const Outcome outcome = Feed(StopMatcher(stops, include_stop_string), pieces);
    ASSERT_EQ(outcome, NaiveSearch(text, stops, include_stop_string)) << trial;
    num_matched += outcome.matched.has_value() ? 1 : 0;
  }
  EXPECT_GT(num_matched, 2000);
}

// Text on which every stop string is nearly found over and over.
double SecondsFor(int num_stops) {
  std::vector<std::string> stops;
  for (int i = 0; i < num_stops; ++i) stops.push_back(std::string(100, 'a') + std::to_string(i));
  StopMatcher matcher(stops);
  const std::string piece(1000, 'a');
  const Stopwatch stopwatch;
  for (int i = 0; i < 2000; ++i) EXPECT_FALSE(matcher.Append(piece).matched.has_value());
  return stopwatch.Seconds();
}

TEST(StopMatcherTest, CostDoesNotGrowWithTheNumberOfStopStrings) {
  const double few = SecondsFor(1);
  const double many = SecondsFor(2000);
  // A matcher that tries each string would take 2000 times as long; the bound leaves room for a busy machine.
  EXPECT_LT(many, 50 * few + 0.5);
}

}  // namespace
}  // namespace cadre
