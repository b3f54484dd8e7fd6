// What one mask may cost, in steps and in memory.
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/structured/constraint_compiler.h"
#include "engine/structured/json_schema.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/structured_walk.h"
#include "tests/support/time_limit.h"

namespace cadre {
namespace {

// Strings with even numbers of characters of different sets: which of them may still end is different for nearly every
// text, and each has its place in every state.
std::string ParitySchema(int count) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  std::mt19937_64 random(7);
  std::string schema = R"({"anyOf":[)";
  for (int i = 0; i < count; ++i) {
    std::string letters;
    for (size_t j = 0; j < kLetters.size(); ++j) {
      if (j == static_cast<size_t>(i) % kLetters.size() || random() % 2 == 0) letters += kLetters[j];
    }
    absl::StrAppend(&schema, i == 0 ? "" : ",", R"({"pattern":"^([^)", letters, "]*[", letters, "][^", letters, "]*[",
                    letters, "])*[^", letters, R"(]*$"})");
  }
  return schema + "]}";
}

std::shared_ptr<const TokenVocabulary> LetterVocabulary(int count) {
  std::mt19937_64 random(5);
  std::set<std::string> tokens;
  while (std::ssize(tokens) < count) {
    std::string token;
    for (size_t i = 2 + random() % 9; i > 0; --i)
      token += static_cast<char>((random() % 2 == 0 ? 'a' : 'A') + random() % 26);
    tokens.insert(token);
  }
  return ByteVocabulary({tokens.begin(), tokens.end()});
}

TEST(MaskLimitsTest, MasksThatTakeTooMuchAreRefused) {
  const auto vocabulary = LetterVocabulary(60'000);
  for (const int count : {90, 600}) {
    const Stopwatch time;
    const auto constraint = ConstrainToJsonSchema(ParitySchema(count), vocabulary);
    EXPECT_EQ(constraint.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(constraint.status().message()), testing::HasSubstr("takes more than 20000000 steps"));
    EXPECT_LT(time.Seconds(), 2 * kRefusalSeconds) << count;
  }
  // Many places at once are no harm where they soon lead to few.
  std::string wide = R"({"type":"object","properties":{"p":true)";
  for (int i = 0; i < 2000; ++i) absl::StrAppend(&wide, ",\"", vocabulary->token(300 + 20 * i).later, R"(":true)");
  const auto constraint = ConstrainToJsonSchema(wide + "}}", vocabulary);
  EXPECT_TRUE(constraint.ok()) << constraint.status();
}

// What one mask needs does not fit into the cache, however empty that is.
TEST(MaskLimitsTest, MasksLargerThanTheCacheAreExact) {
  constexpr int64_t kCacheBytes = 60'000;
  const auto vocabulary = LetterVocabulary(3000);
  const absl::StatusOr<Grammar> grammar = CompileJsonSchema(ParitySchema(9), vocabulary->spelled());
  ASSERT_TRUE(grammar.ok()) << grammar.status();
  const auto small = GrammarConstraint::Create(*grammar, vocabulary, kCacheBytes);
  const auto large = GrammarConstraint::Create(*grammar, vocabulary, int64_t{1} << 30);
  ASSERT_TRUE(small.ok() && large.ok());
  std::mt19937_64 random(3);
  const auto a = (*small)->Start();
  const auto b = (*large)->Start();
  const int64_t own_bytes = (*small)->memory_bytes();
  for (int step = 0; step < 12 && !a->done(); ++step) {
    const std::vector<int32_t> allowed = AllowedList(*a);
    ASSERT_EQ(allowed, AllowedList(*b)) << step;
    EXPECT_LT((*small)->memory_bytes(), own_bytes + 5 * kCacheBytes) << step;
    const int32_t chosen = allowed[random() % allowed.size()];
    a->Advance(chosen);
    b->Advance(chosen);
  }
  EXPECT_GT((*small)->num_flushes(), 0);
  EXPECT_GT((*large)->memory_bytes(), (*small)->memory_bytes() + 5 * kCacheBytes);
}

}  // namespace
}  // namespace cadre
