// What one mask may cost, in steps and in memory.
#include <fstream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/json.h"
#include "engine/structured/constraint_compiler.h"
#include "engine/structured/grammar_automaton.h"
#include "engine/structured/json_schema.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/structured_walk.h"
#include "tests/support/time_limit.h"

namespace cadre {
namespace {

// Strings with even numbers of characters of different sets: which of them may still end is different for nearly every
// text, and each has its place in every state.
std::vector<std::string> Parities(int count) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  std::mt19937_64 random(7);
  std::vector<std::string> patterns;
  for (int i = 0; i < count; ++i) {
    std::string letters;
    for (size_t j = 0; j < kLetters.size(); ++j) {
      if (j == static_cast<size_t>(i) % kLetters.size() || random() % 2 == 0) letters += kLetters[j];
    }
    patterns.push_back(
        absl::StrCat("^([^", letters, "]*[", letters, "][^", letters, "]*[", letters, "])*[^", letters, "]*$"));
  }
  return patterns;
}

std::string AnyOf(const std::vector<std::string>& patterns) {
  std::string schema = R"({"anyOf":[)";
  for (size_t i = 0; i < patterns.size(); ++i) {
    absl::StrAppend(&schema, i == 0 ? "" : ",", R"({"pattern":")", patterns[i], R"("})");
  }
  return schema + "]}";
}

std::string ParitySchema(int count) { return AnyOf(Parities(count)); }

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
  // Objects, each of which may contain them all: the first mask finds no room.
  std::string nested = R"({"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"type":"null"})";
  for (int i = 0; i < 1500; ++i) {
    absl::StrAppend(&nested, R"(,{"properties":{"a":{"$ref":"#/$defs/a"},"b)", i, R"(":true}})");
  }
  const Stopwatch time;
  const absl::Status status =
      ConstrainToJsonSchema(nested + "]}}}", ByteVocabulary({R"({"a":{"a":{"a":{"a":{"a":)"})).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("bytes: too many alternatives"));
  EXPECT_LT(time.Seconds(), 2 * kRefusalSeconds);
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

using testing::HasSubstr;
constexpr auto kTooMuch = absl::StatusCode::kResourceExhausted;

// {"kkk...": a string that matches one of `patterns`}: so far behind the start that no mask is made there beforehand.
constexpr size_t kPrefixBytes = 5000;
std::string BehindPrefix(const std::vector<std::string>& patterns) {
  const std::string key(kPrefixBytes, 'k');
  return absl::StrCat(R"({"properties":{")", key, R"(":)", AnyOf(patterns), R"(},"required":[")", key,
                      R"("],"additionalProperties":false})");
}

void AdvanceBytes(ConstraintState& state, std::string_view bytes) {
  for (const char c : bytes) state.Advance(static_cast<uint8_t>(c));
}

void AdvancePrefix(ConstraintState& state) {
  AdvanceBytes(state, absl::StrCat("{\"", std::string(kPrefixBytes, 'k'), "\":\""));
}

// Strings of letters whose length is a multiple of one of many numbers: every letter leads to the same places, which
// are new for a long time.
std::vector<std::string> Cycles() {
  std::vector<std::string> patterns;
  patterns.reserve(326);
  for (int i = 0; i < 300; ++i) patterns.push_back(absl::StrCat("^([a-zA-Z]{", 100 + i, "})*$"));
  for (char c = 'a'; c <= 'z'; ++c) patterns.push_back(absl::StrCat("^", std::string(1, c), "$"));  // told apart
  return patterns;
}

// The engine has one thread for everyone: what a mask takes is limited wherever it is made.
TEST(MaskLimitsTest, MasksThatAreMadeWhileGeneratingAreLimited) {
  const auto vocabulary = LetterVocabulary(32'000);
  const auto constraint = ConstrainToJsonSchema(BehindPrefix(Parities(600)), vocabulary);
  ASSERT_TRUE(constraint.ok()) << constraint.status();
  const auto state = (*constraint)->Start();
  EXPECT_TRUE(state->AllowedTokens().ok());
  AdvancePrefix(*state);
  for (int visit = 0; visit < 2; ++visit) {
    const Stopwatch time;
    const absl::Status status = state->AllowedTokens().status();
    EXPECT_EQ(status.code(), kTooMuch) << visit;
    EXPECT_THAT(std::string(status.message()), HasSubstr("more than 20000000 steps"));
    EXPECT_LT(time.Seconds(), kRefusalSeconds) << visit;
  }
  // Another sequence of the same constraint goes on.
  const auto other = (*constraint)->Start();
  EXPECT_TRUE(other->AllowedTokens().ok());
  other->Advance('{');
  EXPECT_TRUE(IsAllowed(*other, '"'));
}

// What needs more memory than the constraint may take is begun again and again, within the same limit of steps, and
// refused when the states on the way to one token are too large.
TEST(MaskLimitsTest, WalksAfreshAreLimited) {
  const auto vocabulary = ByteVocabulary({std::string(4096, 'a')});
  const absl::StatusOr<Grammar> grammar = CompileJsonSchema(BehindPrefix(Cycles()), vocabulary->spelled());
  ASSERT_TRUE(grammar.ok()) << grammar.status();
  struct Case {
    int64_t cache_bytes;
    int64_t mask_work;
    const char* error;
  };
  for (const Case& test :
       {Case{4 << 20, 400'000'000, "bytes: too many alternatives"}, Case{1, 4'000'000, "more than 4000000 steps"}}) {
    const auto constraint = GrammarConstraint::Create(*grammar, vocabulary, test.cache_bytes, 0, test.mask_work);
    ASSERT_TRUE(constraint.ok()) << constraint.status();
    const auto state = (*constraint)->Start();
    AdvancePrefix(*state);
    const Stopwatch time;
    const absl::Status status = state->AllowedTokens().status();
    EXPECT_EQ(status.code(), kTooMuch);
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.error));
    EXPECT_LT(time.Seconds(), kRefusalSeconds);
  }
}

// What people write is far below the limit, also where nothing was made beforehand.
TEST(MaskLimitsTest, OrdinarySchemasNeedATenth) {
  std::ifstream file("tests/engine/structured/schemas.json");
  const auto vocabulary = LetterVocabulary(100'000);
  std::mt19937_64 random(8);
  for (const nlohmann::ordered_json& test : nlohmann::ordered_json::parse(file)) {
    SCOPED_TRACE(test["name"]);
    const absl::StatusOr<Grammar> grammar = CompileJsonSchema(test["schema"].dump(), vocabulary->spelled());
    ASSERT_TRUE(grammar.ok()) << grammar.status();
    const auto constraint =
        GrammarConstraint::Create(*grammar, vocabulary, kMaxConstraintCacheBytes, 0, kMaxMaskWork / 10);
    ASSERT_TRUE(constraint.ok()) << constraint.status();
    const auto state = (*constraint)->Start();
    for (int step = 0; step < 60 && !state->done(); ++step) {
      ASSERT_TRUE(state->AllowedTokens().ok()) << state->AllowedTokens().status();
      const std::vector<int32_t> allowed = AllowedList(*state);
      state->Advance(allowed[random() % allowed.size()]);
    }
  }
}

// One look at a long token is a look at many places, bytes and classes; one move at many places.
TEST(MaskLimitsTest, RunsAndMovesStopOnTheWay) {
  const absl::StatusOr<Grammar> grammar = CompileJsonSchema(AnyOf(Cycles()), ByteVocabulary()->spelled());
  ASSERT_TRUE(grammar.ok()) << grammar.status();
  constexpr int kLetters = 3;  // of byte_runs.h
  constexpr int32_t kLength = 1000;
  constexpr int64_t kSlack = 20'000;  // a state or two
  StepMeter meter;
  GrammarAutomaton automaton(&*grammar, &meter);
  const int32_t in_string = automaton.Next(automaton.Start(), '"');

  meter.Limit(100);
  int64_t before = meter.steps();
  EXPECT_EQ(automaton.Next(in_string, 'A'), GrammarAutomaton::kUnfinished);
  EXPECT_LT(meter.steps() - before, 200);
  meter.Limit(kMaxMaskWork);
  const int32_t behind = automaton.Next(in_string, 'A');
  ASSERT_NE(behind, GrammarAutomaton::kUnfinished);

  meter.Limit(100'000);
  before = meter.steps();
  int32_t reach = 0;
  EXPECT_FALSE(automaton.HasRun(behind, kLetters, kLength, &reach));
  EXPECT_TRUE(meter.is_exhausted());
  EXPECT_LT(meter.steps() - before, 100'200);

  const int64_t max_bytes = automaton.memory_bytes() + (1 << 20);
  automaton.LimitMemory(max_bytes);
  meter.Limit(kMaxMaskWork);
  EXPECT_FALSE(automaton.HasRun(behind, kLetters, kLength, &reach));
  EXPECT_TRUE(automaton.is_full());
  EXPECT_LT(automaton.memory_bytes(), max_bytes + kSlack);

  // What was given up leaves nothing behind.
  automaton.LimitMemory(INT64_MAX);
  meter.Limit(10 * kMaxMaskWork);
  EXPECT_TRUE(automaton.HasRun(behind, kLetters, kLength, &reach));
  GrammarAutomaton fresh(&*grammar, &meter);
  GrammarAutomaton::Imported imported;
  EXPECT_EQ(automaton.Import(fresh, fresh.Next(fresh.Next(fresh.Start(), '"'), 'A'), &imported), behind);
}

TEST(MaskLimitsTest, AdvancingIsLimitedAndFailsTheNextMask) {
  const auto vocabulary = ByteVocabulary({std::string(4000, 'a') + "!"});
  std::vector<std::string> patterns = {"^[a-z]*!$"};
  for (int i = 0; i < 300; ++i) patterns.push_back(absl::StrCat("^([a-z]{", 100 + i, "})*!$"));
  const absl::StatusOr<Grammar> grammar = CompileJsonSchema(BehindPrefix(patterns), vocabulary->spelled());
  ASSERT_TRUE(grammar.ok()) << grammar.status();
  for (const int64_t work : {int64_t{100'000}, kMaxMaskWork}) {
    const auto constraint = GrammarConstraint::Create(*grammar, vocabulary, kMaxConstraintCacheBytes, 0, work);
    ASSERT_TRUE(constraint.ok()) << constraint.status();
    const auto state = (*constraint)->Start();
    AdvancePrefix(*state);
    state->Advance(256);
    // Nothing but a quotation mark may follow, which takes no work.
    EXPECT_EQ(state->AllowedTokens().status().code(), work < kMaxMaskWork ? kTooMuch : absl::StatusCode::kOk);
    EXPECT_FALSE(state->done());
  }
}

}  // namespace
}  // namespace cadre
