// Masks against brute force, the life of a state, and the cache.
#include <algorithm>
#include <atomic>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/structured/constraint_cache.h"
#include "engine/structured/constraint_compiler.h"
#include "engine/structured/grammar_automaton.h"
#include "engine/structured/json_schema.h"
#include "engine/structured/token_masks.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/structured_walk.h"

namespace cadre {
namespace {

using testing::ElementsAre;

// Places in a grammar with whole stacks, one by one: what GrammarAutomaton computes with shared sets.
class PlainSimulation {
 public:
  explicit PlainSimulation(const Grammar& grammar) : grammar_(grammar) { Visit(grammar.start(), {}, &places_); }

  bool Advance(std::string_view bytes) {
    for (const char c : bytes) {
      const auto byte = static_cast<uint8_t>(c);
      std::set<Place> next;
      for (const auto& [state, stack] : places_) {
        for (const Grammar::ByteEdge& edge : grammar_.byte_edges(state)) {
          if (edge.first <= byte && byte <= edge.last) Visit(edge.to, stack, &next);
        }
      }
      places_ = std::move(next);
    }
    return !places_.empty();
  }
  bool accepts() const {
    return std::any_of(places_.begin(), places_.end(),
                       [&](const Place& place) { return grammar_.returns(place.first) && place.second.empty(); });
  }

 private:
  using Place = std::pair<int32_t, std::vector<int32_t>>;

  void Visit(int32_t state, const std::vector<int32_t>& stack, std::set<Place>* places) {
    if (std::ssize(stack) + grammar_.Need(state) > kMaxCallDepth || !places->insert({state, stack}).second) return;
    if (grammar_.returns(state) && !stack.empty()) {
      Visit(stack.back(), {stack.begin(), stack.end() - 1}, places);
    }
    for (const int32_t to : grammar_.jumps(state)) Visit(to, stack, places);
    for (const Grammar::CallEdge& call : grammar_.call_edges(state)) {
      if (std::ssize(stack) + call.need > kMaxCallDepth) continue;
      std::vector<int32_t> deeper = stack;
      if (!call.is_tail) deeper.push_back(call.to);
      Visit(call.callee, deeper, places);
    }
  }

  const Grammar& grammar_;
  std::set<Place> places_;
};

constexpr std::string_view kSchemas[] = {
    "{}",
    R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string","maxLength":6},"c":{"type":"number"}},
        "required":["b"]})",
    R"({"$ref":"#/$defs/N","$defs":{"N":{"type":"object","properties":{"n":{"$ref":"#/$defs/N"},
        "v":{"type":"array","items":{"$ref":"#/$defs/N"}}}}}})",
    R"({"anyOf":[{"type":"object","properties":{"a":{"type":"string"}}},
        {"type":"object","properties":{"a":{"type":"integer"},"ab":{}}},{"type":"array","items":{"type":"array"}}]})",
    R"({"type":"array","items":{"type":"array","items":{"type":"array","maxItems":2}}})",
    R"({"type":"object","additionalProperties":{"type":"string","pattern":"^[a-z]+é?$"}})",
};

// Tokens that cross as many borders as possible, so that they leave rules, and enter others.
std::vector<std::string> CrossingTokens() {
  std::vector<std::string> tokens = JsonPieces();
  for (const char* token : {"[[[[[[[[",
                            "]]]]]]]]",
                            "[[1],[2]]",
                            "{\"a\":1}",
                            "{\"a\":1},{\"a\":",
                            "\":{\"n\":{\"v\":[{",
                            "}]}}",
                            "],[",
                            "\"],[\"",
                            "1,2",
                            "1]",
                            "1}",
                            "12,\n",
                            "a\",\"b\":\"",
                            "\":\"\"}",
                            "\",\"",
                            "é\"",
                            "\xA9\",",
                            "true,",
                            "null]",
                            "1.5e",
                            "\\\"\"",
                            "}}}}}}}}}}",
                            "\n\n",
                            "\n ",
                            "[{}]",
                            "[]]",
                            "{},{}"}) {
    tokens.emplace_back(token);
  }
  return tokens;
}

std::vector<int32_t> BruteForce(const Grammar& grammar, const TokenVocabulary& vocabulary, const std::string& text) {
  std::vector<int32_t> allowed;
  PlainSimulation here(grammar);
  here.Advance(text);
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.IsEnd(id)) {
      if (here.accepts()) allowed.push_back(id);
      continue;
    }
    PlainSimulation there = here;
    if (there.Advance(vocabulary.token(id).later)) allowed.push_back(id);
  }
  return allowed;
}

TEST(TokenMasksTest, AreWhatTryingEveryTokenGives) {
  const auto vocabulary = ByteVocabulary(CrossingTokens());
  std::mt19937_64 random(21);
  for (const std::string_view schema : kSchemas) {
    SCOPED_TRACE(schema);
    const absl::StatusOr<Grammar> grammar = CompileJsonSchema(schema, vocabulary->spelled());
    ASSERT_TRUE(grammar.ok());
    const auto constraint = GrammarConstraint::Create(*grammar, vocabulary);
    for (int i = 0; i < 12; ++i) {
      const std::unique_ptr<ConstraintState> state = (*constraint)->Start();
      std::string text;
      for (int step = 0; step < 12 && !state->done(); ++step) {
        const std::vector<int32_t> allowed = AllowedList(*state);
        ASSERT_EQ(allowed, BruteForce(*grammar, *vocabulary, text)) << text;
        const int32_t chosen = allowed[random() % allowed.size()];
        text += vocabulary->token(chosen).later;
        state->Advance(chosen);
      }
    }
  }
}

TEST(TokenMasksTest, AreRightWhereTheDepthLimitCutsTokens) {
  const auto vocabulary = ByteVocabulary(CrossingTokens());
  const absl::StatusOr<Grammar> grammar = CompileJsonSchema(kSchemas[0], vocabulary->spelled());
  const auto constraint = GrammarConstraint::Create(*grammar, vocabulary);
  const std::unique_ptr<ConstraintState> state = (*constraint)->Start();
  std::string text;
  int num_steps = 0;
  for (; IsAllowed(*state, '['); ++num_steps) {
    if (num_steps > 115) {
      ASSERT_EQ(AllowedList(*state), BruteForce(*grammar, *vocabulary, text)) << num_steps;
    }
    state->Advance('[');
    text += '[';
  }
  EXPECT_GT(num_steps, 120);
}

TEST(GrammarConstraintTest, DroppingWhatIsKnownChangesNothing) {
  const auto vocabulary = ByteVocabulary(CrossingTokens());
  for (const std::string_view schema : kSchemas) {
    const absl::StatusOr<Grammar> grammar = CompileJsonSchema(schema, vocabulary->spelled());
    const auto roomy = GrammarConstraint::Create(*grammar, vocabulary);
    const auto tight = GrammarConstraint::Create(*grammar, vocabulary, /*max_cache_bytes=*/1);
    std::mt19937_64 random(4);
    // Two at a time, so that one drops what the other stands on.
    std::vector<std::unique_ptr<ConstraintState>> plain, dropped;
    for (int i = 0; i < 2; ++i) {
      plain.push_back((*roomy)->Start());
      dropped.push_back((*tight)->Start());
    }
    for (int step = 0; step < 80; ++step) {
      const size_t i = random() % 2;
      ASSERT_EQ(plain[i]->done(), dropped[i]->done());
      if (plain[i]->done()) continue;
      const std::vector<int32_t> allowed = AllowedList(*plain[i]);
      ASSERT_EQ(allowed, AllowedList(*dropped[i]));
      const int32_t chosen = allowed[random() % allowed.size()];
      plain[i]->Advance(chosen);
      dropped[i]->Advance(chosen);
    }
    EXPECT_EQ((*roomy)->num_flushes(), 0);
    EXPECT_GT((*tight)->num_flushes(), 0);
  }
}

TEST(GrammarConstraintTest, EndTokensAreAllowedExactlyWhereTheTextIsASentence) {
  const auto vocabulary = ByteVocabulary({"aa"});
  const int32_t end = vocabulary->end_ids()[0];
  const CompiledConstraint constraint = ConstrainToRegex("a{2,4}", vocabulary);
  const std::unique_ptr<ConstraintState> state = (*constraint)->Start();
  EXPECT_THAT(AllowedList(*state), ElementsAre('a', 256));
  state->Advance(256);
  EXPECT_THAT(AllowedList(*state), ElementsAre('a', 256, end));
  EXPECT_FALSE(state->done());
  state->Advance('a');
  EXPECT_THAT(AllowedList(*state), ElementsAre('a', end));
  state->Advance('a');
  EXPECT_TRUE(state->done());
  EXPECT_THAT(AllowedList(*state), ElementsAre(end));
  const std::unique_ptr<ConstraintState> other = (*constraint)->Start();
  other->Advance(256);
  other->Advance(end);
  EXPECT_TRUE(other->done());
}

TEST(GrammarConstraintTest, CharactersMayBeCutByTokens) {
  // U+20AC is E2 82 AC, U+1F600 F0 9F 98 80.
  const auto vocabulary = ByteVocabulary({"\xE2\x82", "x\xE2", "\x82\xAC", "\xAC\xF0\x9F", "\x98\x80"});
  const CompiledConstraint constraint = ConstrainToRegex("x?€😀", vocabulary);
  const std::unique_ptr<ConstraintState> state = (*constraint)->Start();
  EXPECT_THAT(AllowedList(*state), ElementsAre('x', 0xE2, 256, 257));
  state->Advance(256);
  EXPECT_THAT(AllowedList(*state), ElementsAre(0xAC, 259));
  state->Advance(259);
  EXPECT_THAT(AllowedList(*state), ElementsAre(0x98, 260));
  state->Advance(260);
  EXPECT_TRUE(state->done());
}

// A vocabulary of the given tokens, without single bytes but those among them.
std::shared_ptr<const TokenVocabulary> Vocabulary(std::vector<TokenVocabulary::Token> tokens) {
  const auto end = static_cast<int32_t>(tokens.size());
  tokens.push_back({});
  return std::make_shared<const TokenVocabulary>(std::move(tokens), std::vector<int32_t>{end});
}

TEST(GrammarConstraintTest, WhatTheVocabularyCannotSpellIsNeverEntered) {
  const auto vocabulary = Vocabulary({{"a", "a"}, {"ab", "ab"}, {"c", "c"}});
  // "ab" would need a "b" to go on: there is none.
  const CompiledConstraint constraint = ConstrainToRegex("abbc|ac|cab", vocabulary);
  const std::unique_ptr<ConstraintState> state = (*constraint)->Start();
  EXPECT_THAT(AllowedList(*state), ElementsAre(0));
  state->Advance(0);
  EXPECT_THAT(AllowedList(*state), ElementsAre(2));
  EXPECT_EQ(ConstrainToRegex("b+", vocabulary).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ConstrainToChoices({"bb", "xyz"}, vocabulary).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(GrammarConstraintTest, ASpaceThatTheDecoderStripsMayComeFirst) {
  const auto vocabulary = Vocabulary({{"a", "a"}, {"", " "}, {"a", " a"}, {" ", "  "}, {"b", "b"}});
  const CompiledConstraint constraint = ConstrainToRegex("ab a", vocabulary);
  const std::unique_ptr<ConstraintState> state = (*constraint)->Start();
  EXPECT_THAT(AllowedList(*state), ElementsAre(0, 1, 2));  // "a", and " " and " a" behind the stripped space
  state->Advance(1);
  EXPECT_THAT(AllowedList(*state), ElementsAre(0));  // nothing more is stripped
  state->Advance(0);
  state->Advance(4);
  EXPECT_THAT(AllowedList(*state), ElementsAre(1, 2));
  state->Advance(2);
  EXPECT_TRUE(state->done());
}

TEST(GrammarConstraintTest, NoRuleIsCalledWhoseCallerCouldNotGoOn) {
  // list = "(" [list] ("x" deep | "w") ")", where `deep` needs four calls more.
  GrammarBuilder builder;
  const int32_t list = builder.AddState();
  const int32_t opened = builder.AddText(list, "(");
  const int32_t middle = builder.AddState();
  builder.AddCall(opened, list, middle);
  builder.AddJump(opened, middle);
  const auto letter = [&](const char* text) {
    const int32_t rule = builder.AddState();
    builder.SetReturn(builder.AddText(rule, text));
    return rule;
  };
  int32_t deep = letter("d");
  for (int i = 0; i < 3; ++i) {
    const int32_t outer = builder.AddState();
    const int32_t behind = builder.AddState();
    builder.AddCall(builder.AddText(outer, "<"), deep, behind);
    builder.SetReturn(builder.AddText(behind, ">"));
    deep = outer;
  }
  const int32_t behind_x = builder.AddState();
  const int32_t behind_deep = builder.AddState();
  const int32_t behind_w = builder.AddState();
  builder.AddCall(middle, letter("x"), behind_x);
  builder.AddCall(behind_x, deep, behind_deep);
  builder.SetReturn(builder.AddText(behind_deep, ")"));
  builder.AddCall(middle, letter("w"), behind_w);
  builder.SetReturn(builder.AddText(behind_w, ")"));
  const absl::StatusOr<Grammar> grammar = builder.Build(list, ByteSet().set(), nullptr);
  ASSERT_TRUE(grammar.ok()) << grammar.status();

  const auto vocabulary = ByteVocabulary();
  const auto constraint = GrammarConstraint::Create(*grammar, vocabulary);
  bool is_cut = false;
  for (int depth = 1; depth <= kMaxCallDepth; ++depth) {
    const std::unique_ptr<ConstraintState> state = (*constraint)->Start();
    for (int i = 0; i < depth && IsAllowed(*state, '('); ++i) state->Advance('(');
    ASSERT_TRUE(IsAllowed(*state, 'w'));
    if (!IsAllowed(*state, 'x')) {
      is_cut = true;
      continue;
    }
    for (const char c : std::string_view("x<<<d>>>)")) {
      ASSERT_TRUE(IsAllowed(*state, c)) << depth << c;
      state->Advance(c);
    }
  }
  EXPECT_TRUE(is_cut);
}

TEST(GrammarConstraintTest, StatesAreIndependentAndMayBeUsedByManyThreads) {
  const auto vocabulary = ByteVocabulary(JsonPieces());
  const CompiledConstraint constraint = ConstrainToJsonSchema(kSchemas[1], vocabulary);
  const auto run = [&](uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string texts;
    for (int i = 0; i < 10; ++i) texts += RandomWalk(**constraint, *vocabulary, random, 20).text;
    return texts;
  };
  std::vector<std::string> alone(4), together(4);
  for (size_t i = 0; i < 4; ++i) alone[i] = run(i);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 4; ++i) threads.emplace_back([&, i] { together[i] = run(i); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(together, alone);
}

class ConstraintCacheTest : public testing::Test {
 protected:
  ConstraintCache::VocabularyMaker Maker() {
    return [this] {
      ++num_vocabularies_;
      return absl::StatusOr<std::shared_ptr<const TokenVocabulary>>(ByteVocabulary());
    };
  }
  std::atomic<int> num_vocabularies_ = 0;
};

TEST_F(ConstraintCacheTest, CompilesOnceForMany) {
  ConstraintCache cache(Maker());
  std::vector<std::shared_ptr<const GrammarConstraint>> found(8);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < found.size(); ++i) {
    threads.emplace_back([&, i] {
      CompiledConstraint constraint = cache.Get(ConstraintCache::Kind::kRegex, {"(a|b){1,300}c"});
      if (constraint.ok()) found[i] = *constraint;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_NE(found[0], nullptr);
  for (const auto& constraint : found) EXPECT_EQ(constraint, found[0]);
  EXPECT_EQ(cache.stats().num_compiled, 1);
  EXPECT_EQ(cache.stats().num_hits, 7);
  EXPECT_EQ(num_vocabularies_, 1);
}

TEST_F(ConstraintCacheTest, KindsAndTextsAreDistinct) {
  ConstraintCache cache(Maker());
  using Kind = ConstraintCache::Kind;
  EXPECT_NE(*cache.Get(Kind::kRegex, {"1"}), *cache.Get(Kind::kJsonSchema, {"true"}));
  EXPECT_NE(*cache.Get(Kind::kRegex, {"1"}), *cache.Get(Kind::kChoices, {"1"}));
  EXPECT_NE(*cache.Get(Kind::kChoices, {"a:1:b"}), *cache.Get(Kind::kChoices, {"a", "b"}));
  EXPECT_EQ(*cache.Get(Kind::kChoices, {"a", "b"}), *cache.Get(Kind::kChoices, {"a", "b"}));
}

TEST_F(ConstraintCacheTest, RefusalsAreKept) {
  ConstraintCache cache(Maker());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(cache.Get(ConstraintCache::Kind::kRegex, {"("}).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(cache.stats().num_compiled, 1);
}

TEST_F(ConstraintCacheTest, DropsTheLeastRecentlyUsed) {
  ConstraintCache cache(Maker(), {.max_bytes = 256 << 20, .max_entries = 2});
  using Kind = ConstraintCache::Kind;
  const auto a = *cache.Get(Kind::kRegex, {"a+"});
  const auto b = *cache.Get(Kind::kRegex, {"b+"});
  EXPECT_EQ(*cache.Get(Kind::kRegex, {"a+"}), a);
  EXPECT_TRUE(cache.Get(Kind::kRegex, {"c+"}).ok());  // drops b
  EXPECT_EQ(*cache.Get(Kind::kRegex, {"a+"}), a);
  EXPECT_NE(*cache.Get(Kind::kRegex, {"b+"}), b);
  EXPECT_EQ(cache.stats().num_entries, 2);
  EXPECT_EQ(cache.stats().num_compiled, 4);
  // What was dropped still serves those who have it.
  const std::unique_ptr<ConstraintState> state = b->Start();
  EXPECT_TRUE(IsAllowed(*state, 'b'));
}

TEST_F(ConstraintCacheTest, KeepsToItsBytes) {
  ConstraintCache cache(Maker(), {.max_bytes = 300'000, .max_entries = 1000});
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(cache.Get(ConstraintCache::Kind::kChoices, {std::string(1000, 'a') + std::to_string(i)}).ok());
    ASSERT_LE(cache.stats().num_bytes, 300'000);
  }
  EXPECT_LT(cache.stats().num_entries, 100);
}

TEST_F(ConstraintCacheTest, WithFewerBytesItDropsTheLeastRecentlyUsedAtOnce) {
  ConstraintCache cache(Maker(), {.max_bytes = 3'000'000, .max_entries = 1000});
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(cache.Get(ConstraintCache::Kind::kChoices, {std::string(1000, 'a') + std::to_string(i)}).ok());
  }
  const int64_t num_bytes = cache.stats().num_bytes;
  cache.SetMaxBytes(num_bytes / 2);
  EXPECT_LE(cache.stats().num_bytes, num_bytes / 2);
  EXPECT_GT(cache.stats().num_entries, 0);
  cache.Clear();
  EXPECT_EQ(cache.stats().num_entries, 0);
  EXPECT_EQ(cache.stats().num_bytes, 0);
  cache.SetMaxBytes(int64_t{1} << 40);
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(cache.Get(ConstraintCache::Kind::kChoices, {std::string(1000, 'a') + std::to_string(i)}).ok());
    ASSERT_LE(cache.stats().num_bytes, 3'000'000) << "never more than it was made for";
  }
}

TEST(ChoicesTest, ListsAreChecked) {
  const auto vocabulary = ByteVocabulary();
  EXPECT_EQ(ConstrainToChoices({}, vocabulary).status().message(), "no choices");
  EXPECT_EQ(ConstrainToChoices({"a", ""}, vocabulary).status().message(), "choice 1 is empty");
  EXPECT_EQ(ConstrainToChoices({"\xC3"}, vocabulary).status().message(), "choice 0 is not valid UTF-8");
  EXPECT_EQ(ConstrainToChoices({std::string(kMaxChoiceBytes + 1, 'a')}, vocabulary).status().message(),
            "262145 bytes of choices, the limit is 262144");
  std::mt19937_64 random(1);
  const CompiledConstraint constraint = ConstrainToChoices({"yes", "no", "yes, of course"}, vocabulary);
  for (const char* text : {"yes", "no", "yes, of course"})
    EXPECT_TRUE(Accepts(**constraint, *vocabulary, text, random));
  for (const char* text : {"ye", "yes,", "noo", ""}) EXPECT_FALSE(Accepts(**constraint, *vocabulary, text, random));
}

}  // namespace
}  // namespace cadre
