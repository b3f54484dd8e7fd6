#include "server/translate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "engine/request/refusal.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/errors.h"
#include "server/request_limits.h"
#include "server/simulated_tokenizer.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kVocab = 1000;
constexpr int32_t kContext = 100;

class TranslateTest : public ::testing::Test {
 protected:
  TranslateTest() {
    card_.name = "m";
    card_.limits = {.vocab_size = kVocab, .max_model_len = kContext, .num_kv_blocks = 64, .kv_block_size = 16};
    request_.set_text("hello");
  }

  absl::StatusOr<Request> Translate() { return TranslateRequest(request_, card_, *tokenizer_, ChatSupport{}); }

  // The request is refused, and the violation names `field` and tells `part`.
  void ExpectRefused(const std::string& field, const std::string& part) {
    const absl::Status status = Translate().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(field + ": "));
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    EXPECT_FALSE(ErrorReason(status).empty());
  }

  ModelCard card_;
  std::unique_ptr<Tokenizer> tokenizer_ = *MakeSimulatedTokenizer(kVocab);
  v1::GenerateRequest request_;
};

TEST_F(TranslateTest, UnsetFieldsTakeTheModelsDefaults) {
  card_.defaults.temperature = 0.6f;
  card_.defaults.top_k = 20;
  card_.defaults.top_p = 0.95f;
  card_.defaults.min_p = 0.01f;
  card_.defaults.max_new_tokens = 33;
  const Request request = *Translate();
  EXPECT_EQ(request.sampling.temperature, 0.6f);
  EXPECT_EQ(request.sampling.top_k, 20);
  EXPECT_EQ(request.sampling.top_p, 0.95f);
  EXPECT_EQ(request.sampling.min_p, 0.01f);
  EXPECT_EQ(request.sampling.max_tokens, 33);
  EXPECT_TRUE(request.sampling.skip_special_tokens);
  EXPECT_TRUE(request.wants_text);
}

// So many that one message holds them: tokens x sequences x layers x K.
TEST_F(TranslateTest, ChoicesOfTheRouterAreBounded) {
  card_.limits.num_moe_layers = 64;
  card_.limits.top_k = 64;
  request_.clear_text();
  request_.mutable_token_ids()->mutable_ids()->Resize(32, 5);
  request_.mutable_stopping()->set_max_tokens(32);
  request_.mutable_sampling()->set_n(2);
  EXPECT_FALSE(Translate()->wants_routed_experts);
  request_.mutable_output()->set_routed_experts(true);
  EXPECT_TRUE(Translate()->wants_routed_experts) << "2^19";
  request_.mutable_stopping()->set_max_tokens(33);
  ExpectRefused("output.routed_experts",
                "65 tokens of 2 sequences with 4096 choices each: 532480, the limit is 524288");
}

// A record as a finished event told it.
TEST_F(TranslateTest, RecordedChoicesAreReplayed) {
  card_.limits.num_moe_layers = 1;
  card_.limits.num_experts = 4;
  card_.limits.top_k = 2;
  card_.limits.can_replay_routing = true;
  request_.clear_text();
  request_.mutable_token_ids()->mutable_ids()->Resize(3, 5);
  request_.mutable_stopping()->set_max_tokens(2);
  EXPECT_EQ(Translate()->replay, nullptr);
  v1::RoutedExperts& record = *request_.mutable_replay_routing()->mutable_record();
  record.set_first_position(1);
  record.set_num_layers(1);
  record.set_top_k(2);
  for (const int32_t id : {0, 3, 2, 1, 1, 0}) record.add_expert_ids(id);
  for (int i = 0; i < 6; ++i) record.add_weights(0.5f);
  for (const v1::ReplayWeights weights : {v1::REPLAY_WEIGHTS_UNSPECIFIED, v1::REPLAY_WEIGHTS_ROUTER}) {
    request_.mutable_replay_routing()->set_weights(weights);
    const Request request = *Translate();
    ASSERT_NE(request.replay, nullptr);
    EXPECT_EQ(request.replay->first_position, 1);
    EXPECT_EQ(request.replay->record.expert_ids, (std::vector<int32_t>{0, 3, 2, 1, 1, 0}));
    EXPECT_FALSE(request.replay->uses_recorded_weights);
    EXPECT_TRUE(request.replay->record.weights.empty());
  }
  request_.mutable_replay_routing()->set_weights(v1::REPLAY_WEIGHTS_RECORDED);
  EXPECT_TRUE(Translate()->replay->uses_recorded_weights);
  EXPECT_EQ(Translate()->replay->record.weights, std::vector<float>(6, 0.5f));

  record.set_expert_ids(4, 4);
  ExpectRefused("replay_routing.record.expert_ids[4]", "4 is not in [0, 4)");
  record.set_expert_ids(4, 1);
  record.set_first_position(2);
  ExpectRefused("replay_routing.record.expert_ids", "positions 2 to 4, the request computes 0 to 3");
  record.set_first_position(1);
  record.clear_weights();
  ExpectRefused("replay_routing.record.weights", "0 weights for 6 ids");
  request_.mutable_replay_routing()->set_weights(static_cast<v1::ReplayWeights>(7));
  ExpectRefused("replay_routing.weights", "7 is no value of ReplayWeights");
  request_.mutable_replay_routing()->set_weights(v1::REPLAY_WEIGHTS_ROUTER);
  EXPECT_TRUE(Translate().ok()) << "without weights";
  record.mutable_expert_ids()->Resize(static_cast<int>(kMaxRoutedChoices) + 1, 0);
  ExpectRefused("replay_routing.record.expert_ids", "524289 choices, the limit is 524288");
  record.mutable_expert_ids()->Resize(6, 0);
  record.mutable_weights()->Resize(static_cast<int>(kMaxRoutedChoices) + 1, 0);
  ExpectRefused("replay_routing.record.weights", "524289 weights, the limit is 524288");
  request_.mutable_replay_routing()->clear_record();
  ExpectRefused("replay_routing.record.num_layers", "0, the model has 1 MoE layers");
  card_.limits.can_replay_routing = false;
  EXPECT_EQ(Translate().status().code(), absl::StatusCode::kFailedPrecondition);
}

// One that was not made is longer on the wire.
TEST_F(TranslateTest, ChoicesThatMayBeMissingAreBoundedAtTheirLongest) {
  card_.limits.num_moe_layers = 64;
  card_.limits.top_k = 64;
  card_.limits.min_k = 1;
  request_.clear_text();
  request_.mutable_token_ids()->mutable_ids()->Resize(32, 5);
  request_.mutable_stopping()->set_max_tokens(32);
  request_.mutable_output()->set_routed_experts(true);
  EXPECT_TRUE(Translate()->wants_routed_experts) << "2^18";
  request_.mutable_stopping()->set_max_tokens(33);
  ExpectRefused("output.routed_experts", "266240, the limit is 262144");

  v1::RoutedExperts longest;
  longest.mutable_expert_ids()->Resize(kMaxVaryingRoutedChoices, kNoExpert);
  longest.mutable_weights()->Resize(kMaxVaryingRoutedChoices, 0.0f);
  EXPECT_LT(longest.ByteSizeLong(), 4u << 20);
  longest.mutable_expert_ids()->Clear();
  longest.mutable_expert_ids()->Resize(kMaxRoutedChoices, (1 << 14) - 1);
  longest.mutable_weights()->Resize(kMaxRoutedChoices, 1.0f);
  EXPECT_LT(longest.ByteSizeLong(), 4u << 20);
}

TEST_F(TranslateTest, AClientIsNotBlamedForADefaultOfTheModel) {
  card_.defaults.temperature = 50.0f;
  EXPECT_EQ(Translate()->sampling.temperature, 50.0f);
  request_.mutable_sampling()->set_temperature(50.0f);
  ExpectRefused("sampling.temperature", "[0, 10]");
}

TEST_F(TranslateTest, SetFieldsArriveAsTheyAre) {
  v1::SamplingParams* sampling = request_.mutable_sampling();
  sampling->set_temperature(1.5f);
  sampling->set_top_k(3);
  sampling->set_top_p(0.25f);
  sampling->set_min_p(0.125f);
  sampling->set_seed(std::numeric_limits<uint64_t>::max());
  v1::StopConditions* stopping = request_.mutable_stopping();
  stopping->set_max_tokens(17);
  stopping->add_stop_strings("\n\n");
  stopping->add_stop_token_ids(kVocab - 1);
  stopping->set_ignore_eos(true);
  stopping->set_include_stop_string(true);
  request_.mutable_output()->set_skip_special_tokens(false);
  const Request request = *Translate();
  SamplingParams expected;
  expected.max_tokens = 17;
  expected.temperature = 1.5f;
  expected.top_k = 3;
  expected.top_p = 0.25f;
  expected.min_p = 0.125f;
  expected.seed = std::numeric_limits<uint64_t>::max();
  expected.stop_strings = {"\n\n"};
  expected.stop_token_ids = {kVocab - 1};
  expected.ignore_eos = true;
  expected.include_stop_string = true;
  expected.skip_special_tokens = false;
  EXPECT_EQ(request.sampling, expected);
  EXPECT_EQ(request.prompt, (std::vector<int32_t>{'h', 'e', 'l', 'l', 'o'}));
}

TEST_F(TranslateTest, MaxTokensReachesToTheEndOfTheContext) {
  EXPECT_EQ(Translate()->sampling.max_tokens, kContext - 5);
  card_.defaults.max_new_tokens = 5000;  // advice, so it gives way
  EXPECT_EQ(Translate()->sampling.max_tokens, kContext - 5);
  card_.limits.num_kv_blocks = 2;  // a pool smaller than the context
  EXPECT_EQ(Translate()->sampling.max_tokens, 32 - 5);
  card_.limits.num_kv_blocks = 64;
  request_.mutable_stopping()->set_max_tokens(kContext - 5);
  EXPECT_EQ(Translate()->sampling.max_tokens, kContext - 5);
  request_.mutable_stopping()->set_max_tokens(kContext - 4);
  ExpectRefused("stopping.max_tokens", "limit of 100");
  EXPECT_EQ(ErrorReason(Translate().status()), "CONTEXT_LENGTH_EXCEEDED");
  request_.mutable_stopping()->set_max_tokens(std::numeric_limits<int32_t>::max());
  ExpectRefused("stopping.max_tokens", "2147483647");
  request_.mutable_stopping()->set_max_tokens(0);
  ExpectRefused("stopping.max_tokens", "0 is less than 1");
  request_.mutable_stopping()->set_max_tokens(-1);
  ExpectRefused("stopping.max_tokens", "-1 is less than 1");
}

TEST_F(TranslateTest, FloatsStayInTheirRanges) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {-0.001f, 10.001f, inf, -inf, std::nanf(""), 1e38f}) {
    request_.mutable_sampling()->set_temperature(bad);
    ExpectRefused("sampling.temperature", "[0, 10]");
  }
  for (const float good : {0.0f, -0.0f, 1e-40f, 1e-5f}) {
    request_.mutable_sampling()->set_temperature(good);
    EXPECT_EQ(Translate()->sampling.temperature, 0.0f) << good;
  }
  request_.mutable_sampling()->set_temperature(10.0f);
  EXPECT_TRUE(Translate().ok());
  for (const float bad : {0.0f, -0.5f, 1.0001f, inf, std::nanf("")}) {
    request_.mutable_sampling()->set_top_p(bad);
    ExpectRefused("sampling.top_p", "(0, 1]");
  }
  request_.mutable_sampling()->set_top_p(1.0f);
  for (const float bad : {-0.1f, 1.1f, inf, std::nanf("")}) {
    request_.mutable_sampling()->set_min_p(bad);
    ExpectRefused("sampling.min_p", "[0, 1]");
  }
}

TEST_F(TranslateTest, TopK) {
  request_.mutable_sampling()->set_top_k(-1);
  EXPECT_EQ(Translate()->sampling.top_k, 0);
  request_.mutable_sampling()->set_top_k(std::numeric_limits<int32_t>::max());
  EXPECT_TRUE(Translate().ok());
  request_.mutable_sampling()->set_top_k(-2);
  ExpectRefused("sampling.top_k", "-2");
  request_.mutable_sampling()->set_top_k(std::numeric_limits<int32_t>::min());
  ExpectRefused("sampling.top_k", "-2147483648");
}

TEST_F(TranslateTest, StopStrings) {
  for (int i = 0; i < kMaxStopStrings; ++i) request_.mutable_stopping()->add_stop_strings(std::string(1024, 'x'));
  EXPECT_TRUE(Translate().ok());
  request_.mutable_stopping()->add_stop_strings("x");
  ExpectRefused("stopping.stop_strings", "17 strings, the limit is 16");
  request_.mutable_stopping()->clear_stop_strings();
  request_.mutable_stopping()->add_stop_strings("ok");
  request_.mutable_stopping()->add_stop_strings(std::string(1025, 'x'));
  ExpectRefused("stopping.stop_strings[1]", "1025 bytes, the limit is 1024");
  *request_.mutable_stopping()->mutable_stop_strings(1) = "";
  ExpectRefused("stopping.stop_strings[1]", "is empty");
  *request_.mutable_stopping()->mutable_stop_strings(1) = "x";
  request_.mutable_output()->set_text(false);
  ExpectRefused("stopping.stop_strings", "output.text");
}

TEST_F(TranslateTest, StopTokens) {
  request_.mutable_stopping()->add_stop_token_ids(0);
  request_.mutable_stopping()->add_stop_token_ids(kVocab);
  ExpectRefused("stopping.stop_token_ids[1]", "1000 is not in [0, 1000)");
  request_.mutable_stopping()->set_stop_token_ids(1, -1);
  ExpectRefused("stopping.stop_token_ids[1]", "-1 is not in [0, 1000)");
  request_.mutable_stopping()->clear_stop_token_ids();
  for (int i = 0; i <= kMaxStopTokenIds; ++i) request_.mutable_stopping()->add_stop_token_ids(i);
  ExpectRefused("stopping.stop_token_ids", "65 ids, the limit is 64");
}

TEST_F(TranslateTest, Prompts) {
  request_.set_text("");
  ExpectRefused("text", "empty");
  request_.set_text(std::string(kMaxPromptBytes + 1, 'a'));
  ExpectRefused("text", "1048577 bytes, the limit is 1048576");
  request_.set_text(std::string(kContext, 'a'));
  ExpectRefused("text", "100 tokens, the limit is 99");
  EXPECT_EQ(ErrorReason(Translate().status()), "CONTEXT_LENGTH_EXCEEDED");
  request_.set_text(std::string(kContext - 1, 'a'));
  EXPECT_EQ(Translate()->sampling.max_tokens, 1);
  request_.mutable_prompt()->set_truncate_prompt_tokens(0);
  ExpectRefused("prompt.truncate_prompt_tokens", "0 is less than 1");
  request_.clear_prompt();

  request_.mutable_token_ids();
  ExpectRefused("token_ids.ids", "no tokens");
  for (const int32_t bad : {-1, kVocab, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()}) {
    request_.mutable_token_ids()->clear_ids();
    request_.mutable_token_ids()->add_ids(5);
    request_.mutable_token_ids()->add_ids(bad);
    ExpectRefused("token_ids.ids[1]", std::to_string(bad));
  }
  request_.clear_input();
  ExpectRefused("input", "set text, token_ids or chat");
}

TEST_F(TranslateTest, ATokenOfTheTokenizerAloneIsRefused) {
  card_.limits.vocab_size = 'l';  // the model has fewer tokens than its tokenizer
  ExpectRefused("text", "not in the model's vocabulary");
}

TEST(FinishErrorTest, ACostlyConstraintIsTheClientsToChange) {
  FinishSummary summary;
  summary.status = absl::ResourceExhaustedError("finding the tokens takes more than 7 steps");
  summary.usage.generated_tokens = 12;
  const absl::Status error = FinishError(summary, "my-id");
  EXPECT_EQ(error.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(error), "CONSTRAINT_TOO_COSTLY");
  EXPECT_EQ(error.message(),
            "structured_output, after 12 generated tokens: finding the tokens takes more than 7 steps");
  EXPECT_FALSE(ErrorRetryDelay(error).has_value());  // the same request would fail again
}

TEST(FinishErrorTest, AnExpertThatCannotBeReadIsNotTheEndOfTheServer) {
  FinishSummary summary;
  summary.status = MakeRefusal(Refusal::kExpertUnavailable, absl::StatusCode::kUnavailable, "/a/path: no such sector");
  const absl::Status error = FinishError(summary, "my-id");
  EXPECT_EQ(error.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ErrorReason(error), "EXPERT_UNAVAILABLE");
  EXPECT_THAT(std::string(error.message()), testing::HasSubstr("my-id"));
  EXPECT_THAT(std::string(error.message()), testing::Not(testing::HasSubstr("/a/path")));
  EXPECT_TRUE(ErrorRetryDelay(error).has_value());
}

TEST(TimingsTest, ASequenceThatNeverLeftTheQueueDoesNotHideWhenAnotherDid) {
  RequestTimings parked;
  parked.total = absl::Seconds(5);
  RequestTimings started = parked;
  started.queue = absl::Seconds(2);
  EXPECT_EQ(CoverBoth(started, parked).queue, absl::Seconds(2));
  EXPECT_EQ(CoverBoth(parked, started).queue, absl::Seconds(2));
  EXPECT_EQ(CoverBoth(parked, started).total, absl::Seconds(5));
}

TEST(RequestIdTest, VisibleAsciiOfBoundedLength) {
  EXPECT_EQ(*ChooseRequestId("abc-1/~", "other"), "abc-1/~");
  EXPECT_EQ(*ChooseRequestId("", "from-metadata"), "from-metadata");
  EXPECT_EQ(ChooseRequestId("", "not good\n")->size(), 16u);
  EXPECT_NE(*ChooseRequestId("", ""), *ChooseRequestId("", ""));
  EXPECT_TRUE(ChooseRequestId(std::string(128, 'x'), "").ok());
  for (const std::string& bad : {std::string(129, 'x'), std::string("a b"), std::string("a\n"), std::string("\xC3\xA9"),
                                 std::string(1 << 20, '%')}) {
    const absl::Status status = ChooseRequestId(bad, "").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_LT(status.message().size(), 400u);
  }
}

}  // namespace
}  // namespace cadre
