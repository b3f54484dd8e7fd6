#include "server/translate_vllm.h"

#include <gmock/gmock.h>
#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/errors.h"
#include "server/field_support.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

vllm_api::GenerateRequest Ids(std::vector<uint32_t> ids = {1, 2, 3}) {
  vllm_api::GenerateRequest wire;
  wire.mutable_tokenized()->mutable_input_ids()->Assign(ids.begin(), ids.end());
  return wire;
}

v1::GenerateRequest Translated(const vllm_api::GenerateRequest& wire) {
  v1::GenerateRequest request;
  const absl::Status status = TranslateVllmRequest(wire, &request);
  EXPECT_TRUE(status.ok()) << status;
  // What comes out is what the own API supports.
  EXPECT_TRUE(RefuseUnsupportedFields(request).ok()) << RefuseUnsupportedFields(request);
  return request;
}

// A large request is not held twice: what both protos have alike changes hands.
TEST(TranslateVllm, TextsAndListsAreMovedNotCopied) {
  vllm_api::GenerateRequest wire;
  wire.set_text(std::string(1000, 't'));
  vllm_api::SamplingParams& params = *wire.mutable_sampling_params();
  params.add_stop(std::string(1000, 's'));
  params.set_regex(std::string(1000, 'r'));
  const char* const text = wire.text().data();
  const char* const stop = params.stop(0).data();
  const char* const regex = params.regex().data();
  v1::GenerateRequest request;
  ASSERT_TRUE(TranslateVllmRequest(std::move(wire), &request).ok());
  EXPECT_EQ(request.text().data(), text);
  EXPECT_EQ(request.stopping().stop_strings(0).data(), stop);
  EXPECT_EQ(request.structured_output().regex().data(), regex);

  vllm_api::GenerateRequest with_choices = Ids();
  with_choices.mutable_sampling_params()->mutable_choice()->add_choices(std::string(1000, 'c'));
  const char* const choice = with_choices.sampling_params().choice().choices(0).data();
  ASSERT_TRUE(TranslateVllmRequest(std::move(with_choices), &request).ok());
  EXPECT_EQ(request.structured_output().choices().choices(0).data(), choice);
}

// Where that protocol cannot tell zero from unset, zero is its default, which need not be zero.
TEST(TranslateVllm, ZerosAreThatProtocolsDefaults) {
  const v1::GenerateRequest request = Translated(Ids());
  EXPECT_THAT(request.token_ids().ids(), ElementsAre(1, 2, 3));
  EXPECT_EQ(request.sampling().temperature(), 1.0f);
  EXPECT_EQ(request.sampling().top_p(), 1.0f);
  EXPECT_TRUE(request.sampling().has_top_k());
  EXPECT_EQ(request.sampling().top_k(), 0);
  EXPECT_EQ(request.sampling().repetition_penalty(), 1.0f);
  EXPECT_EQ(request.sampling().n(), 1);
  EXPECT_FALSE(request.sampling().has_seed());
  EXPECT_FALSE(request.stopping().has_max_tokens());
  EXPECT_FALSE(request.output().text());
  EXPECT_FALSE(request.output().logprobs());
  EXPECT_FALSE(request.has_structured_output());
}

TEST(TranslateVllm, TakesEveryFieldOver) {
  vllm_api::GenerateRequest wire = Ids();
  wire.set_request_id("r-1");
  wire.mutable_tokenized()->set_original_text("is not read");
  wire.set_data_parallel_rank(0);
  vllm_api::SamplingParams& params = *wire.mutable_sampling_params();
  params.set_temperature(0.0f);
  params.set_top_p(0.25f);
  params.set_top_k(7);
  params.set_min_p(0.125f);
  params.set_frequency_penalty(0.5f);
  params.set_presence_penalty(-0.5f);
  params.set_repetition_penalty(1.5f);
  params.set_max_tokens(9);
  params.set_min_tokens(2);
  params.add_stop("END");
  params.add_stop_token_ids(5);
  params.set_skip_special_tokens(true);
  params.set_ignore_eos(true);
  params.set_n(3);
  params.set_logprobs(4);
  params.set_prompt_logprobs(0);
  params.set_seed(11);
  (*params.mutable_logit_bias())[3] = -2.5f;
  params.set_truncate_prompt_tokens(2);
  params.set_spaces_between_special_tokens(true);
  params.set_include_stop_str_in_output(true);
  params.set_grammar_from_first_token(true);

  const v1::GenerateRequest request = Translated(wire);
  EXPECT_EQ(request.request_id(), "r-1");
  EXPECT_TRUE(request.sampling().has_temperature());
  EXPECT_EQ(request.sampling().temperature(), 0.0f);
  EXPECT_EQ(request.sampling().top_p(), 0.25f);
  EXPECT_EQ(request.sampling().top_k(), 7);
  EXPECT_EQ(request.sampling().min_p(), 0.125f);
  EXPECT_EQ(request.sampling().frequency_penalty(), 0.5f);
  EXPECT_EQ(request.sampling().presence_penalty(), -0.5f);
  EXPECT_EQ(request.sampling().repetition_penalty(), 1.5f);
  EXPECT_EQ(request.sampling().n(), 3);
  EXPECT_EQ(request.sampling().seed(), 11u);
  EXPECT_EQ(request.sampling().logit_bias().at(3), -2.5f);
  EXPECT_EQ(request.stopping().max_tokens(), 9);
  EXPECT_EQ(request.stopping().min_tokens(), 2);
  EXPECT_THAT(request.stopping().stop_strings(), ElementsAre("END"));
  EXPECT_THAT(request.stopping().stop_token_ids(), ElementsAre(5));
  EXPECT_TRUE(request.stopping().ignore_eos());
  // Stop strings need the text, which nobody is told.
  EXPECT_TRUE(request.output().text());
  EXPECT_TRUE(request.output().skip_special_tokens());
  EXPECT_TRUE(request.output().logprobs());
  EXPECT_EQ(request.output().top_logprobs(), 4);
  EXPECT_TRUE(request.output().has_prompt_logprobs());
  EXPECT_EQ(request.prompt().truncate_prompt_tokens(), 2);
}

TEST(TranslateVllm, TextIsAPromptToo) {
  vllm_api::GenerateRequest wire;
  wire.set_text("hello");
  EXPECT_EQ(Translated(wire).text(), "hello");
}

TEST(TranslateVllm, TheSeedMinusOneIsNone) {
  vllm_api::GenerateRequest wire = Ids();
  wire.mutable_sampling_params()->set_seed(-1);
  EXPECT_FALSE(Translated(wire).sampling().has_seed());
  wire.mutable_sampling_params()->set_seed(0);
  EXPECT_TRUE(Translated(wire).sampling().has_seed());
}

TEST(TranslateVllm, MoreThanAllTokensIsAllOfThem) {
  vllm_api::GenerateRequest wire = Ids();
  wire.mutable_sampling_params()->set_top_k(0xFFFFFFFF);
  EXPECT_EQ(Translated(wire).sampling().top_k(), 0x7FFFFFFF);
}

TEST(TranslateVllm, ConstraintsKeepTheirKind) {
  vllm_api::GenerateRequest wire = Ids();
  wire.mutable_sampling_params()->set_json_schema("{}");
  EXPECT_EQ(Translated(wire).structured_output().json_schema(), "{}");
  wire.mutable_sampling_params()->set_regex("a+");
  EXPECT_EQ(Translated(wire).structured_output().regex(), "a+");
  wire.mutable_sampling_params()->mutable_choice()->add_choices("yes");
  EXPECT_THAT(Translated(wire).structured_output().choices().choices(), ElementsAre("yes"));
  wire.mutable_sampling_params()->set_json_object(true);
  EXPECT_EQ(Translated(wire).structured_output().json_schema(), R"({"type":"object"})");
  wire.mutable_sampling_params()->set_json_object(false);
  EXPECT_FALSE(Translated(wire).has_structured_output());
}

struct Refusal {
  std::string field;
  absl::StatusCode code;
  std::function<void(vllm_api::GenerateRequest*)> set;
};

class RefusedField : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedField, IsNamed) {
  vllm_api::GenerateRequest wire = Ids();
  GetParam().set(&wire);
  v1::GenerateRequest request;
  const absl::Status status = TranslateVllmRequest(wire, &request);
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().field));
}

void AddUnknown(google::protobuf::Message* message, int number) {
  message->GetReflection()->MutableUnknownFields(message)->AddVarint(number, 1);
}

constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
INSTANTIATE_TEST_SUITE_P(
    TranslateVllm, RefusedField,
    ::testing::Values(
        Refusal{"kv_transfer_params", kUnimplemented, [](auto* w) { w->mutable_kv_transfer_params(); }},
        Refusal{"mm_inputs", kUnimplemented, [](auto* w) { w->mutable_mm_inputs(); }},
        Refusal{"extra_mm_inputs", kUnimplemented, [](auto* w) { w->add_extra_mm_inputs(); }},
        Refusal{"kv_transfer_params_json", kUnimplemented, [](auto* w) { w->set_kv_transfer_params_json(""); }},
        Refusal{"media_refs", kUnimplemented, [](auto* w) { w->mutable_media_refs(); }},
        Refusal{"sampling_params.grammar", kUnimplemented,
                [](auto* w) { w->mutable_sampling_params()->set_grammar("root ::= x"); }},
        Refusal{"sampling_params.structural_tag", kUnimplemented,
                [](auto* w) { w->mutable_sampling_params()->set_structural_tag("{}"); }},
        Refusal{"sampling_params.99", kUnimplemented, [](auto* w) { AddUnknown(w->mutable_sampling_params(), 99); }},
        Refusal{"tokenized.98", kUnimplemented, [](auto* w) { AddUnknown(w->mutable_tokenized(), 98); }},
        Refusal{"97", kUnimplemented, [](auto* w) { AddUnknown(w, 97); }},
        Refusal{"data_parallel_rank", kInvalid, [](auto* w) { w->set_data_parallel_rank(1); }},
        Refusal{"input", kInvalid, [](auto* w) { w->clear_input(); }},
        Refusal{"tokenized.input_ids[1]: 4294967295", kInvalid,
                [](auto* w) { w->mutable_tokenized()->set_input_ids(1, 0xFFFFFFFF); }},
        Refusal{"sampling_params.max_tokens: 2147483648", kInvalid,
                [](auto* w) { w->mutable_sampling_params()->set_max_tokens(0x80000000); }},
        Refusal{"sampling_params.n: 2147483648", kInvalid,
                [](auto* w) { w->mutable_sampling_params()->set_n(0x80000000); }}));

// What nobody knows may come by the million: an error names a few, and each once.
TEST(TranslateVllm, ManyUnknownFieldsAreNamedUpToALimit) {
  vllm_api::GenerateRequest wire = Ids();
  wire.mutable_mm_inputs();
  for (int repeat = 0; repeat < 3; ++repeat) AddUnknown(&wire, 50);
  for (int number = 1000; number < 301'000; ++number) AddUnknown(wire.mutable_sampling_params(), number);
  AddUnknown(wire.mutable_sampling_params()->mutable_choice(), 77);
  v1::GenerateRequest request;
  const absl::Status status = TranslateVllmRequest(wire, &request);
  EXPECT_EQ(status.code(), kUnimplemented);
  EXPECT_THAT(std::string(status.message()),
              StartsWith("not supported by this release: mm_inputs, 50, sampling_params.1000, sampling_params.1001, "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("sampling_params.1013, and more;"));
  const google::rpc::Status details = ToWireStatus(status);
  google::rpc::BadRequest bad_request;
  ASSERT_TRUE(details.details(details.details_size() - 1).UnpackTo(&bad_request));
  EXPECT_EQ(bad_request.field_violations_size(), static_cast<int>(kMaxUnsupportedNames));

  // As many as are named: there are no more.
  wire.mutable_sampling_params()->Clear();
  for (int number = 1000; number < 1014; ++number) AddUnknown(wire.mutable_sampling_params(), number);
  for (int repeat = 0; repeat < 1000; ++repeat) AddUnknown(wire.mutable_sampling_params(), 1007);
  const absl::Status all = TranslateVllmRequest(wire, &request);
  EXPECT_THAT(std::string(all.message()), HasSubstr("sampling_params.1013;"));
  EXPECT_THAT(std::string(all.message()), Not(HasSubstr("and more")));
}

TEST(TranslateVllm, ErrorsUseItsNames) {
  EXPECT_EQ(VllmFieldName("token_ids.ids[4]"), "tokenized.input_ids[4]");
  EXPECT_EQ(VllmFieldName("stopping.stop_strings[2]"), "sampling_params.stop[2]");
  EXPECT_EQ(VllmFieldName("stopping.max_tokens"), "sampling_params.max_tokens");
  EXPECT_EQ(VllmFieldName("sampling.temperature"), "sampling_params.temperature");
  EXPECT_EQ(VllmFieldName("output.top_logprobs"), "sampling_params.logprobs");
  EXPECT_EQ(VllmFieldName("structured_output.choices.choices"), "sampling_params.choice.choices");
  EXPECT_EQ(VllmFieldName("structured_output.regex"), "sampling_params.regex");
  EXPECT_EQ(VllmFieldName("request_id"), "request_id");
}

TEST(RenameFields, RenamesInMessageAndDetails) {
  const absl::Status renamed = RenameFields(InvalidField("sampling.top_p", "2 is not in (0, 1]"), &VllmFieldName);
  EXPECT_EQ(renamed.message(), "sampling_params.top_p: 2 is not in (0, 1]");
  const google::rpc::Status wire = ToWireStatus(renamed);
  EXPECT_EQ(wire.message(), renamed.message());
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad_request;
  ASSERT_EQ(wire.details_size(), 2);
  ASSERT_TRUE(wire.details(0).UnpackTo(&info));
  ASSERT_TRUE(wire.details(1).UnpackTo(&bad_request));
  EXPECT_EQ(info.metadata().at("field"), "sampling_params.top_p");
  EXPECT_EQ(bad_request.field_violations(0).field(), "sampling_params.top_p");
}

TEST(RenameFields, LeavesOtherErrorsAlone) {
  EXPECT_EQ(RenameFields(absl::UnavailableError("draining"), &VllmFieldName), absl::UnavailableError("draining"));
  EXPECT_TRUE(RenameFields(absl::OkStatus(), &VllmFieldName).ok());
}

}  // namespace
}  // namespace cadre
