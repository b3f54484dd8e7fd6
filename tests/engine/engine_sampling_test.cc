// What a request may ask of its tokens, through the engine: constraints, time limits, echo, log probabilities.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/structured/grammar_constraint.h"
#include "engine/structured/json_schema.h"
#include "tests/support/engine_harness.h"
#include "tests/support/fake_constraint.h"
#include "tests/support/structured_walk.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(EngineSamplingTest, AConstraintEndsTheOutput) {
  EngineHarness harness;
  const Ticket ticket = harness.MustSubmit(MakePrompt(5, 1), 50, [](Request& request) {
    request.num_sequences = 2;
    request.constraint = std::make_shared<FakeConstraint>(512, [](const std::vector<int32_t>& output) {
      if (output.size() == 3) return std::vector<int32_t>{};
      return std::vector<int32_t>{static_cast<int32_t>(100 + output.size())};
    });
  });
  harness.RunUntilIdle();
  for (const auto& [index, sequence] : ticket.sink->sequences()) {
    EXPECT_THAT(sequence.token_ids, ElementsAre(100, 101, 102));
    EXPECT_EQ(sequence.summary.reason, FinishReason::kConstraintEnd);
  }
}

TEST(EngineSamplingTest, AnEndOfSequenceTokenThatTheConstraintPermitsEndsIt) {
  HarnessOptions options;
  options.engine.eos_token_ids = {7};
  EngineHarness harness(options);
  const Ticket ticket = harness.MustSubmit(MakePrompt(5, 1), 50, [](Request& request) {
    request.constraint = std::make_shared<FakeConstraint>(512, [](const std::vector<int32_t>& output) {
      return output.size() < 2 ? std::vector<int32_t>{42} : std::vector<int32_t>{7};
    });
  });
  harness.RunUntilIdle();
  EXPECT_THAT(ticket.sink->token_ids(), ElementsAre(42, 42, 7));
  EXPECT_EQ(ticket.sink->summary().reason, FinishReason::kEos);
}

TEST(EngineSamplingTest, ALanguageOfTheEmptySentenceEndsBeforeAnyWork) {
  EngineHarness harness;
  const Ticket ticket = harness.MustSubmit(MakePrompt(5, 1), 50, [](Request& request) {
    request.constraint =
        std::make_shared<FakeConstraint>(512, [](const std::vector<int32_t>&) { return std::vector<int32_t>{}; });
  });
  harness.RunUntilIdle();
  EXPECT_TRUE(ticket.sink->token_ids().empty());
  EXPECT_EQ(ticket.sink->num_started(), 1);
  EXPECT_EQ(ticket.sink->summary().reason, FinishReason::kConstraintEnd);
  EXPECT_EQ(harness.engine->Snapshot().finished_ok, 1);
}

// An ordinary beginning, and behind it strings that are told apart by what they may end with.
std::shared_ptr<const GrammarConstraint> CostlyConstraint() {
  std::string schema = R"({"properties":{"kind":{"anyOf":[)";
  for (int i = 0; i < 100; ++i) absl::StrAppend(&schema, R"({"pattern":"^.*w)", i, R"(z$"},)");
  schema += R"({"type":"null"}]}},"required":["kind"],"additionalProperties":false})";
  const auto vocabulary = ByteVocabulary(std::vector<std::string>(255, "w1"));
  absl::StatusOr<Grammar> grammar = CompileJsonSchema(schema, vocabulary->spelled());
  CADRE_CHECK(grammar.ok());
  constexpr int64_t kMaxSteps = 10'000;
  auto constraint = GrammarConstraint::Create(*std::move(grammar), vocabulary, kMaxConstraintCacheBytes,
                                              /*prepared_work=*/0, kMaxSteps);
  CADRE_CHECK(constraint.ok());
  return *constraint;
}

TEST(EngineSamplingTest, AConstraintThatTakesTooMuchFailsItsRequestAlone) {
  EngineHarness harness;
  const auto costly = CostlyConstraint();
  const Ticket before = harness.MustSubmit(MakePrompt(5, 1), 40);
  const Ticket failed = harness.MustSubmit(MakePrompt(9, 2), 100, [&](Request& request) {
    request.num_sequences = 2;
    request.constraint = costly;
  });
  const Ticket constrained = harness.MustSubmit(MakePrompt(5, 3), 3, [&](Request& r) { r.constraint = costly; });
  const Ticket after = harness.MustSubmit(MakePrompt(5, 4), 40);
  harness.RunUntilIdle();
  EXPECT_EQ(failed.sink->num_finished(), 1);
  for (const auto& [index, sequence] : failed.sink->sequences()) {
    EXPECT_EQ(sequence.summary.status.code(), absl::StatusCode::kResourceExhausted) << index;
    EXPECT_THAT(std::string(sequence.summary.status.message()), HasSubstr("more than 10000 steps"));
    EXPECT_EQ(sequence.summary.reason, FinishReason::kNone);
    EXPECT_GE(sequence.token_ids.size(), std::string_view("{\"kind\":").size());
  }
  EXPECT_EQ(before.sink->token_ids(), harness.Expected(before, 40));
  EXPECT_EQ(after.sink->token_ids(), harness.Expected(after, 40));
  EXPECT_EQ(constrained.sink->summary().reason, FinishReason::kLength);
  EXPECT_EQ(harness.engine->Snapshot().finished_failed, 1);
  EXPECT_EQ(harness.engine->Snapshot().finished_ok, 3);
  // What the model computed is sound.
  EXPECT_TRUE(harness.runner->scrubbed.empty());
}

// Any token at first, and then an error; counts how often it was asked.
class FailingConstraint final : public TokenConstraint {
 public:
  std::unique_ptr<ConstraintState> Start() const override { return std::make_unique<State>(&num_asked_); }
  int num_asked() const { return num_asked_; }

 private:
  class State final : public ConstraintState {
   public:
    explicit State(int* num_asked) : num_asked_(*num_asked) {}
    absl::StatusOr<std::span<const uint64_t>> AllowedTokens() override {
      ++num_asked_;
      if (num_tokens_ > 0) return absl::ResourceExhaustedError("too much");
      return std::span<const uint64_t>(all_);
    }
    void Advance(int32_t /*token_id*/) override { ++num_tokens_; }
    bool done() const override { return false; }

   private:
    const std::vector<uint64_t> all_ = std::vector<uint64_t>(8, ~uint64_t{0});  // 512 tokens
    int& num_asked_;
    int num_tokens_ = 0;
  };

  mutable int num_asked_ = 0;  // by the engine's thread
};

// Their request fails with the first of them, and everybody waits while they are looked at.
TEST(EngineSamplingTest, TheSiblingsOfOneThatFailsAreNotAsked) {
  EngineHarness harness;
  const auto constraint = std::make_shared<FailingConstraint>();
  const Ticket ticket = harness.MustSubmit(MakePrompt(5, 1), 50, [&](Request& request) {
    request.num_sequences = 8;
    request.constraint = constraint;
  });
  harness.RunUntilIdle();
  EXPECT_EQ(ticket.sink->summary().status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(constraint->num_asked(), 2) << "the first one's first token, and its second";
}

TEST(EngineSamplingTest, TheTimeLimitEndsNormallyWithWhatThereIs) {
  EngineHarness harness;  // 10 ms a step
  const Ticket ticket = harness.MustSubmit(MakePrompt(5, 1), 50, [](Request& request) {
    request.num_sequences = 2;
    request.time_limit = absl::Milliseconds(35);
  });
  harness.RunUntilIdle();
  ASSERT_EQ(ticket.sink->sequences().size(), 2u);
  for (const auto& [index, sequence] : ticket.sink->sequences()) {
    EXPECT_TRUE(sequence.summary.status.ok());
    EXPECT_EQ(sequence.summary.reason, FinishReason::kTimeLimit);
    EXPECT_EQ(sequence.token_ids, harness.Expected(ticket, static_cast<int32_t>(sequence.token_ids.size())));
  }
  EXPECT_GE(ticket.sink->token_ids().size(), 4u);
  EXPECT_EQ(harness.engine->Snapshot().finished_ok, 1);
}

TEST(EngineSamplingTest, TheTimeLimitOfAWaitingRequestIsAnEmptyAnswer) {
  HarnessOptions options;
  options.engine.max_num_seqs = 1;
  EngineHarness harness(options);
  const Ticket first = harness.MustSubmit(MakePrompt(5, 1), 20);
  const Ticket ticket = harness.MustSubmit(MakePrompt(5, 2), 50, [](Request& request) {
    request.echo = true;
    request.time_limit = absl::Milliseconds(35);
  });
  while (harness.engine->Step()) ASSERT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
  EXPECT_TRUE(ticket.sink->in_order());
  EXPECT_EQ(ticket.sink->num_started(), 1);
  EXPECT_EQ(ticket.sink->token_ids(), ticket.prompt) << "the prompt alone is repeated";
  EXPECT_TRUE(ticket.sink->summary().status.ok());
  EXPECT_EQ(ticket.sink->summary().reason, FinishReason::kTimeLimit);
  EXPECT_EQ(ticket.sink->summary().usage.generated_tokens, 0);
  EXPECT_EQ(first.sink->token_ids(), harness.Expected(first, 20));
  EXPECT_EQ(harness.engine->Snapshot().finished_ok, 2);
  EXPECT_EQ(harness.engine->Snapshot().kv_blocks_in_use, 0);
}

TEST(EngineSamplingTest, ADeadlineThatHasPassedTooIsTheError) {
  EngineHarness harness;
  const Ticket ticket = harness.MustSubmit(MakePrompt(5, 1), 50, [](Request& request) {
    request.time_limit = absl::Milliseconds(35);
    request.deadline = request.arrival + absl::Milliseconds(35);
  });
  harness.RunUntilIdle();
  EXPECT_EQ(ticket.sink->summary().status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(EngineSamplingTest, EchoRepeatsThePromptInFrontOfEverySequence) {
  EngineHarness harness;
  const Ticket ticket = harness.MustSubmit(MakePrompt(5, 1), 3, [](Request& request) {
    request.num_sequences = 2;
    request.echo = true;
    request.sampling.logprobs = true;
  });
  harness.RunUntilIdle();
  std::vector<int32_t> expected = ticket.prompt;
  for (const int32_t token : harness.Expected(ticket, 3)) expected.push_back(token);
  ASSERT_EQ(ticket.sink->sequences().size(), 2u);
  for (const auto& [index, sequence] : ticket.sink->sequences()) {
    EXPECT_EQ(sequence.token_ids, expected);
    EXPECT_EQ(sequence.summary.usage.generated_tokens, 3);
    ASSERT_EQ(sequence.logprobs.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(sequence.logprobs[i].token_id, expected[i]);
      EXPECT_EQ(sequence.logprobs[i].rank, i < ticket.prompt.size() ? 0 : 1);
    }
  }
}

TEST(EngineSamplingTest, IdsOutsideTheVocabularyAreRefused) {
  EngineHarness harness;
  const auto refuses = [&](auto edit) {
    Ticket ticket{.prompt = MakePrompt(3, 1)};
    Request request = harness.MakeRequest(ticket, 5);
    edit(request);
    return harness.engine->Submit(std::move(request)).code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refuses([](Request& request) { request.sampling.allowed_token_ids = {512}; }));
  EXPECT_TRUE(refuses([](Request& request) { request.sampling.stop_token_ids = {-1}; }));
  EXPECT_TRUE(refuses([](Request& request) { request.sampling.logit_bias = {{512, 1.0f}}; }));
  EXPECT_TRUE(refuses([](Request& request) { request.num_sequences = 0; }));
}

TEST(EngineSamplingTest, AnEndOfSequenceTokenBeyondTheVocabularyIsNeverMasked) {
  HarnessOptions options;
  options.engine.eos_token_ids = {-1, 512, 100000};
  EngineHarness harness(options);
  const Ticket ticket =
      harness.MustSubmit(MakePrompt(5, 1), 10, [](Request& request) { request.sampling.min_tokens = 5; });
  harness.RunUntilIdle();
  EXPECT_EQ(ticket.sink->token_ids(), harness.Expected(ticket, 10));
}

}  // namespace
}  // namespace cadre
