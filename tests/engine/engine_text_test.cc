// What clients read: text, stop strings, end tokens. The simulated model's tokens are spelled by a small vocabulary.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/text/tokenizer.h"
#include "tests/support/engine_harness.h"

namespace cadre {
namespace {

constexpr int32_t kVocabSize = 512;

// Token i reads "<i>"; the last is a special token; one is half of a two-byte character.
std::unique_ptr<Tokenizer> MakeTokenizer(int32_t half_character) {
  std::string vocab;
  for (int32_t i = 0; i < kVocabSize - 1; ++i) {
    // In the byte-level alphabet, Ã stands for the byte C3, which begins a character.
    absl::StrAppend(&vocab, i > 0 ? "," : "", "\"", i == half_character ? "Ã" : absl::StrCat("<", i, ">"), "\":", i);
  }
  const std::string json = absl::StrCat(
      R"({"added_tokens":[{"id":511,"content":"<|end|>","special":true,"single_word":false,"lstrip":false,)",
      R"("rstrip":false,"normalized":false}],"normalizer":null,"pre_tokenizer":null,"post_processor":null,)",
      R"("decoder":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false},)",
      R"("model":{"type":"BPE","vocab":{)", vocab, R"(},"merges":[]}})");
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Parse(json, "");
  CADRE_CHECK_EQ(tokenizer.status().ToString(), "OK");
  return *std::move(tokenizer);
}

class EngineTextTest : public testing::Test {
 protected:
  void SetUp() override {
    // So that a token, once named, ends the request where it is meant to.
    const std::set<int32_t> distinct(expected_.begin(), expected_.begin() + 8);
    ASSERT_EQ(distinct.size(), 8u);
  }
  // Runs one request for `prompt_` to its end; `expected_` is what the model says.
  FinishSummary Run(int32_t max_tokens, const std::function<void(Request&)>& edit = nullptr) {
    HarnessOptions options;
    options.tokenizer = tokenizer_.get();
    options.engine.eos_token_ids = eos_;
    EngineHarness harness(options);
    ticket_ = harness.MustSubmit(prompt_, max_tokens, [&](Request& request) {
      request.wants_text = true;
      if (edit) edit(request);
    });
    harness.RunUntilIdle();
    EXPECT_EQ(ticket_.sink->num_finished(), 1);
    EXPECT_TRUE(ticket_.sink->in_order());
    EXPECT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit().ToString();
    return ticket_.sink->summary();
  }
  // "<a><b>..." of the model's tokens [0, count).
  std::string Spelled(int32_t count) const {
    std::string text;
    for (int32_t i = 0; i < count; ++i) absl::StrAppend(&text, "<", expected_[static_cast<size_t>(i)], ">");
    return text;
  }
  std::string text() const { return ticket_.sink->text(); }

  const std::vector<int32_t> prompt_ = MakePrompt(6, 5);
  const std::vector<int32_t> expected_ = SimulatedRunner::ExpectedTokens(prompt_, 20, kVocabSize);
  std::unique_ptr<Tokenizer> tokenizer_ = MakeTokenizer(-1);
  std::vector<int32_t> eos_;
  Ticket ticket_;
};

TEST_F(EngineTextTest, TextFollowsTheTokens) {
  const FinishSummary summary = Run(8);
  EXPECT_EQ(summary.reason, FinishReason::kLength);
  EXPECT_EQ(text(), Spelled(8));
  EXPECT_EQ(text(), tokenizer_->Decode(ticket_.sink->token_ids()));
}

TEST_F(EngineTextTest, AStopStringAcrossTokensEndsTheRequest) {
  const std::string stop = absl::StrCat(">", "<", expected_[3], ">", "<");  // ends inside token 4
  const FinishSummary summary = Run(20, [&](Request& r) { r.sampling.stop_strings = {"never", stop}; });
  EXPECT_EQ(summary.reason, FinishReason::kStopString);
  EXPECT_EQ(summary.matched_stop, stop);
  EXPECT_EQ(summary.matched_token, -1);
  EXPECT_EQ(text() + ">", Spelled(3));  // the stop string began with the last character of token 2
  EXPECT_EQ(summary.usage.generated_tokens, 5);
  EXPECT_EQ(ticket_.sink->token_ids(), std::vector<int32_t>(expected_.begin(), expected_.begin() + 5));
}

TEST_F(EngineTextTest, AStopStringMayBeIncluded) {
  const std::string stop = absl::StrCat("<", expected_[2], ">");
  const FinishSummary summary = Run(20, [&](Request& r) {
    r.sampling.stop_strings = {stop};
    r.sampling.include_stop_string = true;
  });
  EXPECT_EQ(summary.matched_stop, stop);
  EXPECT_EQ(text(), Spelled(3));
}

TEST_F(EngineTextTest, HeldBackTextComesWithTheEnd) {
  const std::string never = absl::StrCat("<", expected_[4], ">!");
  const FinishSummary summary = Run(5, [&](Request& r) { r.sampling.stop_strings = {never}; });
  EXPECT_EQ(summary.reason, FinishReason::kLength);
  EXPECT_EQ(summary.text, absl::StrCat("<", expected_[4], ">"));
  EXPECT_EQ(text(), Spelled(5));
}

TEST_F(EngineTextTest, AnInterruptedRequestGetsItsHeldBackTextToo) {
  const std::string never = absl::StrCat("<", expected_[2], ">!");
  const FinishSummary summary = Run(20, [&](Request& r) {
    r.sampling.stop_strings = {never};
    r.deadline = r.arrival + absl::Milliseconds(25);  // seen after the third step
  });
  EXPECT_EQ(summary.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(summary.reason, FinishReason::kNone);
  EXPECT_EQ(text(), Spelled(3));
}

TEST_F(EngineTextTest, EndAndStopTokensAreCountedButNotRead) {
  eos_ = {expected_[6]};
  FinishSummary summary = Run(20);
  EXPECT_EQ(summary.reason, FinishReason::kEos);
  EXPECT_EQ(text(), Spelled(6));
  EXPECT_EQ(summary.usage.generated_tokens, 7);
  EXPECT_EQ(ticket_.sink->token_ids().size(), 7u);
  summary = Run(20, [&](Request& r) { r.sampling.stop_token_ids = {7, expected_[2]}; });
  EXPECT_EQ(summary.reason, FinishReason::kStopToken);
  EXPECT_EQ(text(), Spelled(2));
  summary = Run(20, [&](Request& r) { r.sampling.ignore_eos = true; });
  EXPECT_EQ(summary.reason, FinishReason::kLength);
  EXPECT_EQ(text(), Spelled(20));
}

TEST_F(EngineTextTest, HalfACharacterIsHeldBackAndReplacedAtTheEnd) {
  tokenizer_ = MakeTokenizer(expected_[3]);
  const FinishSummary summary = Run(4);
  EXPECT_EQ(summary.text, "\xEF\xBF\xBD");
  EXPECT_EQ(text(), Spelled(3) + "\xEF\xBF\xBD");
  EXPECT_EQ(text(), tokenizer_->Decode(ticket_.sink->token_ids()));
}

TEST_F(EngineTextTest, TextNeedsATokenizer) {
  EngineHarness harness;
  const Ticket ticket{.prompt = prompt_};
  Request request = harness.MakeRequest(ticket, 1);
  request.wants_text = true;
  EXPECT_EQ(harness.engine->Submit(std::move(request)).code(), absl::StatusCode::kInvalidArgument);
  request = harness.MakeRequest(ticket, 1);
  request.sampling.stop_strings = {"x"};
  EXPECT_EQ(harness.engine->Submit(std::move(request)).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace cadre
