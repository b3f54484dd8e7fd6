// Every numeric field of a request, at its limits and around them.
#include "server/translate_sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "server/errors.h"
#include "server/request_limits.h"
#include "server/simulated_tokenizer.h"
#include "server/translate.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int32_t kVocab = 1000;
constexpr int32_t kContext = 100;
constexpr int32_t kIntMax = std::numeric_limits<int32_t>::max();
constexpr int32_t kIntMin = std::numeric_limits<int32_t>::min();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kTiny = std::numeric_limits<float>::denorm_min();
const float kNan = std::nanf("");

class TranslateSamplingTest : public ::testing::Test {
 protected:
  TranslateSamplingTest() {
    card_.limits = {.vocab_size = kVocab, .max_model_len = kContext, .num_kv_blocks = 64, .kv_block_size = 16};
    card_.engine.eos_token_ids = {2};
    request_.set_text("hello");
  }

  absl::StatusOr<Request> Translate(AnswerKind kind = AnswerKind::kStreamed) {
    return TranslateRequest(request_, card_, *tokenizer_, ChatSupport{}, kind);
  }

  void ExpectRefused(const std::string& field, const std::string& part, AnswerKind kind = AnswerKind::kStreamed) {
    const absl::Status status = Translate(kind).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field << " " << part;
    EXPECT_THAT(std::string(status.message()), HasSubstr(field + ": "));
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    EXPECT_EQ(ErrorReason(status), "INVALID_FIELD");
    EXPECT_LT(status.message().size(), 400u);
  }

  ModelCard card_;
  std::unique_ptr<Tokenizer> tokenizer_ = *MakeSimulatedTokenizer(kVocab);
  v1::GenerateRequest request_;
};

template <typename T>
struct Field {
  std::string path;
  std::function<void(v1::GenerateRequest&, T)> set;
  std::string limit;  // as the error tells it
  std::vector<T> good;
  std::vector<T> bad;
};

TEST_F(TranslateSamplingTest, FloatsAtTheirLimits) {
  const float above = std::nextafter(2.0f, 3.0f);
  const std::vector<Field<float>> fields = {
      {"sampling.temperature",
       [](auto& r, float v) { r.mutable_sampling()->set_temperature(v); },
       "[0, 10]",
       {0.0f, -0.0f, kTiny, 10.0f},
       {-kTiny, std::nextafter(10.0f, 11.0f), kInf, -kInf, kNan, 1e38f}},
      {"sampling.top_p",
       [](auto& r, float v) { r.mutable_sampling()->set_top_p(v); },
       "(0, 1]",
       {kTiny, 1.0f},
       {0.0f, -0.0f, -kTiny, std::nextafter(1.0f, 2.0f), kInf, -kInf, kNan, 1e38f}},
      {"sampling.min_p",
       [](auto& r, float v) { r.mutable_sampling()->set_min_p(v); },
       "[0, 1]",
       {0.0f, -0.0f, kTiny, 1.0f},
       {-kTiny, std::nextafter(1.0f, 2.0f), kInf, -kInf, kNan, 1e38f}},
      {"sampling.presence_penalty",
       [](auto& r, float v) { r.mutable_sampling()->set_presence_penalty(v); },
       "[-2, 2]",
       {0.0f, -0.0f, kTiny, 2.0f, -2.0f},
       {above, -above, kInf, -kInf, kNan, 1e38f}},
      {"sampling.frequency_penalty",
       [](auto& r, float v) { r.mutable_sampling()->set_frequency_penalty(v); },
       "[-2, 2]",
       {0.0f, -0.0f, kTiny, 2.0f, -2.0f},
       {above, -above, kInf, -kInf, kNan, 1e38f}},
      {"sampling.repetition_penalty",
       [](auto& r, float v) { r.mutable_sampling()->set_repetition_penalty(v); },
       "(0, 10]",
       {kTiny, 1.0f, 10.0f},
       {0.0f, -0.0f, -1.0f, std::nextafter(10.0f, 11.0f), kInf, -kInf, kNan, 1e38f}},
      {"sampling.logit_bias[7]",
       [](auto& r, float v) { (*r.mutable_sampling()->mutable_logit_bias())[7] = v; },
       "[-100, 100]",
       {0.0f, -0.0f, kTiny, 100.0f, -100.0f},
       {std::nextafter(100.0f, 101.0f), -101.0f, kInf, -kInf, kNan, 1e38f}},
  };
  for (const Field<float>& field : fields) {
    for (const float value : field.good) {
      field.set(request_, value);
      EXPECT_TRUE(Translate().ok()) << field.path << " " << value << " " << Translate().status();
    }
    for (const float value : field.bad) {
      field.set(request_, value);
      ExpectRefused(field.path, field.limit);
    }
    request_.clear_sampling();
  }
}

TEST_F(TranslateSamplingTest, IntegersAtTheirLimits) {
  request_.mutable_output()->set_logprobs(true);
  const std::vector<Field<int32_t>> fields = {
      {"sampling.n",
       [](auto& r, int32_t v) { r.mutable_sampling()->set_n(v); },
       "[1, 128]",
       {1, 2, 128},
       {0, -1, 129, kIntMax, kIntMin}},
      {"output.top_logprobs",
       [](auto& r, int32_t v) { r.mutable_output()->set_top_logprobs(v); },
       "[0, 20]",
       {0, 20},
       {-1, 21, kIntMax, kIntMin}},
      {"output.prompt_logprobs",
       [](auto& r, int32_t v) { r.mutable_output()->set_prompt_logprobs(v); },
       "[0, 20]",
       {0, 20},
       {-1, 21, kIntMax, kIntMin}},
      {"scheduling.priority",
       [](auto& r, int32_t v) { r.mutable_scheduling()->set_priority(v); },
       "[-100, 100]",
       {-100, 0, 100},
       {-101, 101, kIntMax, kIntMin}},
  };
  for (const Field<int32_t>& field : fields) {
    for (const int32_t value : field.good) {
      field.set(request_, value);
      EXPECT_TRUE(Translate().ok()) << field.path << " " << value << " " << Translate().status();
    }
    for (const int32_t value : field.bad) {
      field.set(request_, value);
      ExpectRefused(field.path, std::to_string(value) + " is not in " + field.limit);
    }
    field.set(request_, field.good[0]);
  }
}

TEST_F(TranslateSamplingTest, EveryFieldArrives) {
  v1::SamplingParams& sampling = *request_.mutable_sampling();
  sampling.set_presence_penalty(0.5f);
  sampling.set_frequency_penalty(-0.25f);
  sampling.set_repetition_penalty(1.25f);
  sampling.set_n(3);
  (*sampling.mutable_logit_bias())[9] = 1.0f;
  (*sampling.mutable_logit_bias())[4] = -1.0f;
  for (const int32_t id : {8, 3, 8}) sampling.add_allowed_token_ids(id);
  request_.mutable_stopping()->set_min_tokens(4);
  v1::OutputOptions& output = *request_.mutable_output();
  output.set_logprobs(true);
  output.set_top_logprobs(5);
  output.set_prompt_logprobs(0);
  output.set_echo(true);
  v1::SchedulingOptions& scheduling = *request_.mutable_scheduling();
  scheduling.set_priority(-7);
  scheduling.mutable_time_limit()->set_nanos(5'000'000);
  scheduling.set_tenant("team-a");
  scheduling.set_cache_salt("s");
  const Request request = *Translate();
  EXPECT_EQ(request.sampling.presence_penalty, 0.5f);
  EXPECT_EQ(request.sampling.frequency_penalty, -0.25f);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.25f);
  EXPECT_THAT(request.sampling.logit_bias, ElementsAre(LogitBias{4, -1.0f}, LogitBias{9, 1.0f}));
  EXPECT_THAT(request.sampling.allowed_token_ids, ElementsAre(3, 8));
  EXPECT_EQ(request.sampling.min_tokens, 4);
  EXPECT_TRUE(request.sampling.logprobs);
  EXPECT_EQ(request.sampling.top_logprobs, 5);
  EXPECT_EQ(request.num_sequences, 3);
  EXPECT_EQ(request.prompt_logprobs, 0);
  EXPECT_TRUE(request.echo);
  EXPECT_EQ(request.priority, -7);
  EXPECT_EQ(request.time_limit, absl::Milliseconds(5));
  EXPECT_EQ(request.tenant, "team-a");
  EXPECT_EQ(request.cache_salt, "s");
}

TEST_F(TranslateSamplingTest, TheRepetitionPenaltyOfTheModelIsTheDefault) {
  card_.defaults.repetition_penalty = 1.05f;
  EXPECT_EQ(Translate()->sampling.repetition_penalty, 1.05f);
  request_.mutable_sampling()->set_repetition_penalty(1.0f);
  EXPECT_EQ(Translate()->sampling.repetition_penalty, 1.0f);
}

TEST_F(TranslateSamplingTest, ListsOfIds) {
  for (const int32_t bad : {-1, kVocab, kIntMax, kIntMin}) {
    request_.mutable_sampling()->clear_logit_bias();
    (*request_.mutable_sampling()->mutable_logit_bias())[bad] = 1.0f;
    ExpectRefused("sampling.logit_bias", std::to_string(bad) + " is not in [0, 1000)");
  }
  card_.limits.vocab_size = kIntMax;
  request_.mutable_sampling()->clear_logit_bias();
  for (int32_t id = 0; id < kMaxLogitBiasEntries; ++id) (*request_.mutable_sampling()->mutable_logit_bias())[id] = 1;
  EXPECT_TRUE(Translate().ok());
  (*request_.mutable_sampling()->mutable_logit_bias())[kMaxLogitBiasEntries] = 1;
  ExpectRefused("sampling.logit_bias", "1025 entries, the limit is 1024");
  request_.clear_sampling();
  for (int32_t id = 0; id < kMaxAllowedTokenIds; ++id) request_.mutable_sampling()->add_allowed_token_ids(id);
  EXPECT_TRUE(Translate().ok());
  request_.mutable_sampling()->add_allowed_token_ids(5);
  ExpectRefused("sampling.allowed_token_ids", "65537 ids, the limit is 65536");
  card_.limits.vocab_size = kVocab;
  request_.mutable_sampling()->clear_allowed_token_ids();
  for (const int32_t id : {5, kVocab}) request_.mutable_sampling()->add_allowed_token_ids(id);
  ExpectRefused("sampling.allowed_token_ids[1]", "1000 is not in [0, 1000)");
}

TEST_F(TranslateSamplingTest, MinTokens) {
  request_.mutable_stopping()->set_max_tokens(10);
  for (const int32_t good : {0, 10}) {
    request_.mutable_stopping()->set_min_tokens(good);
    EXPECT_EQ(Translate()->sampling.min_tokens, good);
  }
  for (const int32_t bad : {11, kIntMax}) {
    request_.mutable_stopping()->set_min_tokens(bad);
    ExpectRefused("stopping.min_tokens", std::to_string(bad) + " is not in [0, 10]");
  }
  for (const int32_t bad : {-1, kIntMin}) {
    request_.mutable_stopping()->set_min_tokens(bad);
    ExpectRefused("stopping.min_tokens", std::to_string(bad) + " is less than 0");
  }
}

TEST_F(TranslateSamplingTest, WhatContradictsItselfIsRefused) {
  request_.mutable_output()->set_top_logprobs(1);
  ExpectRefused("output.top_logprobs", "need output.logprobs");
  request_.clear_output();
  request_.mutable_sampling()->add_allowed_token_ids(2);  // end of sequence
  request_.mutable_sampling()->add_allowed_token_ids(9);
  request_.mutable_stopping()->add_stop_token_ids(9);
  EXPECT_TRUE(Translate().ok());
  request_.mutable_stopping()->set_min_tokens(1);
  ExpectRefused("sampling.allowed_token_ids", "only end-of-sequence and stop tokens");
  request_.mutable_stopping()->set_ignore_eos(true);
  EXPECT_TRUE(Translate().ok());
}

TEST_F(TranslateSamplingTest, TimeLimits) {
  struct Case {
    int64_t seconds;
    int32_t nanos;
    bool is_good;
  };
  const Case cases[] = {{0, 1, true},
                        {1, 0, true},
                        {315'576'000'000, 0, true},
                        {0, 0, false},
                        {-1, 0, false},
                        {0, -1, false},
                        {1, -1, false},
                        {1, 1'000'000'000, false},
                        {315'576'000'001, 0, false},
                        {std::numeric_limits<int64_t>::max(), 0, false},
                        {std::numeric_limits<int64_t>::min(), 0, false}};
  for (const Case& c : cases) {
    request_.mutable_scheduling()->mutable_time_limit()->set_seconds(c.seconds);
    request_.mutable_scheduling()->mutable_time_limit()->set_nanos(c.nanos);
    if (c.is_good) {
      EXPECT_EQ(Translate()->time_limit, absl::Seconds(c.seconds) + absl::Nanoseconds(c.nanos));
    } else {
      ExpectRefused("scheduling.time_limit", "is not a positive duration");
    }
  }
}

TEST_F(TranslateSamplingTest, LabelsAreShortAndVisible) {
  for (const bool is_tenant : {true, false}) {
    const auto set = [&](const std::string& label) {
      is_tenant ? request_.mutable_scheduling()->set_tenant(label)
                : request_.mutable_scheduling()->set_cache_salt(label);
    };
    const std::string field = is_tenant ? "scheduling.tenant" : "scheduling.cache_salt";
    for (const std::string& good : {std::string(), std::string("../a%s"), std::string(128, 'x')}) {
      set(good);
      EXPECT_TRUE(Translate().ok()) << good;
    }
    for (const std::string& bad : {std::string(129, 'x'), std::string("a b"), std::string("a\nb"), std::string("\x7F"),
                                   std::string("\xC3\xA9"), std::string(1 << 20, 'x'), std::string(1, '\0')}) {
      set(bad);
      ExpectRefused(field, "is not up to 128 visible ASCII characters");
    }
    request_.clear_scheduling();
  }
}

TEST_F(TranslateSamplingTest, MemoryOfTheAnswerIsBounded) {
  card_.limits = {.vocab_size = kVocab, .max_model_len = 200'000, .num_kv_blocks = 20'000, .kv_block_size = 16};
  request_.mutable_sampling()->set_n(128);
  request_.mutable_output()->set_logprobs(true);
  request_.mutable_output()->set_top_logprobs(20);
  // A stream holds no more than its outbox; one message holds everything.
  EXPECT_TRUE(Translate().ok());
  const int64_t per_token = kAnswerBytesPerToken + 21 * kAnswerBytesPerDetail;
  const auto most = static_cast<int32_t>(kMaxAnswerBytes / (128 * per_token));
  request_.mutable_stopping()->set_max_tokens(most);
  EXPECT_TRUE(Translate(AnswerKind::kCollected).ok());
  request_.mutable_stopping()->set_max_tokens(most + 1);
  ExpectRefused("stopping.max_tokens", "the limit is 67108864", AnswerKind::kCollected);
  EXPECT_TRUE(Translate().ok());
  // The details of a prompt come in one message in any case.
  request_.set_text(std::string(kMaxAnswerBytes / per_token, 'a'));
  request_.mutable_output()->set_prompt_logprobs(20);
  EXPECT_TRUE(Translate().ok()) << Translate().status();
  ExpectRefused("output.prompt_logprobs", "the limit is 67108864", AnswerKind::kStreamedBySequence);
  request_.mutable_text()->append("a");
  ExpectRefused("output.prompt_logprobs", "the limit is 67108864");
  // What is sent for each sequence is charged for each.
  request_.mutable_text()->resize(kMaxAnswerBytes / (128 * per_token));
  EXPECT_TRUE(Translate(AnswerKind::kStreamedBySequence).ok());
  request_.mutable_text()->append("a");
  ExpectRefused("output.prompt_logprobs", "the limit is 67108864", AnswerKind::kStreamedBySequence);
  request_.mutable_text()->resize(kMaxAnswerBytes / per_token + 1, 'a');
  request_.mutable_output()->clear_prompt_logprobs();
  request_.mutable_output()->set_echo(true);
  ExpectRefused("output.echo", "the limit is 67108864");
}

}  // namespace
}  // namespace cadre
