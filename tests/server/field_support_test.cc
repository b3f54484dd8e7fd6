#include "server/field_support.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>

#include "cadre/v1/expert_service.pb.h"
#include "cadre/v1/generation_service.pb.h"
#include "cadre/v1/model_service.pb.h"
#include "server/errors.h"

namespace cadre {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using ::testing::HasSubstr;

bool IsOurs(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field.is_repeated() &&
         field.message_type()->file()->package() == "cadre.v1";
}

// Sets the field to something that is neither its default nor a value that asks for nothing.
void SetUnusual(Message* message, const FieldDescriptor* field) {
  const Reflection* reflection = message->GetReflection();
  if (field->is_repeated()) {
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return reflection->AddInt32(message, field, 7);
      case FieldDescriptor::CPPTYPE_INT64:
        return reflection->AddInt64(message, field, 7);
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return reflection->AddDouble(message, field, 0.7);
      case FieldDescriptor::CPPTYPE_FLOAT:
        return reflection->AddFloat(message, field, 0.7f);
      case FieldDescriptor::CPPTYPE_STRING:
        return reflection->AddString(message, field, "x");
      case FieldDescriptor::CPPTYPE_MESSAGE:  // maps, too
        reflection->AddMessage(message, field);
        return;
      default:
        FAIL() << "teach this test to set " << field->full_name();
    }
  }
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection->SetInt32(message, field, 7);
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection->SetInt64(message, field, 7);
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->SetUInt64(message, field, 7);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection->SetFloat(message, field, 0.7f);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->SetDouble(message, field, 0.7);
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->SetBool(message, field, true);
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection->SetEnumValue(message, field, 1);
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->SetString(message, field, "x");
    case FieldDescriptor::CPPTYPE_MESSAGE:
      reflection->MutableMessage(message, field);
      return;
    default:
      FAIL() << "teach this test to set " << field->full_name();
  }
}

// Calls `visit` with the path of every field below `type` and a request in which that field alone is set.
void ForEachField(const Message& prototype, const std::vector<const FieldDescriptor*>& parents, const Descriptor& type,
                  const std::function<void(const std::string&, const Message&)>& visit) {
  for (int i = 0; i < type.field_count(); ++i) {
    std::vector<const FieldDescriptor*> path = parents;
    path.push_back(type.field(i));
    if (IsOurs(*type.field(i))) {
      ForEachField(prototype, path, *type.field(i)->message_type(), visit);
      continue;
    }
    const std::unique_ptr<Message> request(prototype.New());
    Message* message = request.get();
    std::string name;
    for (size_t depth = 0; depth + 1 < path.size(); ++depth) {
      name += path[depth]->name() + ".";
      message = message->GetReflection()->MutableMessage(message, path[depth]);
    }
    SetUnusual(message, path.back());
    visit(name + path.back()->name(), *request);
  }
}

// Every path of `request` that passes.
std::set<std::string> AcceptedFields(const Message& prototype) {
  std::set<std::string> accepted;
  ForEachField(prototype, {}, *prototype.GetDescriptor(), [&](const std::string& path, const Message& request) {
    const absl::Status status = RefuseUnsupportedFields(request);
    if (status.ok()) {
      accepted.insert(path);
      return;
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << path;
    EXPECT_EQ(ErrorReason(status), "UNSUPPORTED_FIELD") << path;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  });
  return accepted;
}

TEST(FieldSupportTest, EveryFieldOfAGenerationIsSupportedOrRefusedByName) {
  const std::vector<std::string> told = SupportedGenerateFields();
  const std::set<std::string> supported(told.begin(), told.end());
  EXPECT_EQ(AcceptedFields(v1::GenerateRequest()), supported);
  EXPECT_EQ(AcceptedFields(v1::GenerateTextRequest()), supported);
  // Each of these has a test of what it does, in generation_service_test or translate_test.
  EXPECT_EQ(supported, (std::set<std::string>{"request_id",
                                              "model",
                                              "text",
                                              "token_ids.ids",
                                              "chat.messages",
                                              "chat.add_generation_prompt",
                                              "chat.tools",
                                              "chat.documents",
                                              "chat.template_arguments",
                                              "chat.continue_final_message",
                                              "prompt.add_special_tokens",
                                              "prompt.parse_special",
                                              "prompt.truncate_prompt_tokens",
                                              "sampling.temperature",
                                              "sampling.top_k",
                                              "sampling.top_p",
                                              "sampling.min_p",
                                              "sampling.presence_penalty",
                                              "sampling.frequency_penalty",
                                              "sampling.repetition_penalty",
                                              "sampling.seed",
                                              "sampling.n",
                                              "sampling.logit_bias",
                                              "sampling.allowed_token_ids",
                                              "stopping.max_tokens",
                                              "stopping.min_tokens",
                                              "stopping.stop_strings",
                                              "stopping.stop_token_ids",
                                              "stopping.ignore_eos",
                                              "stopping.include_stop_string",
                                              "output.skip_special_tokens",
                                              "output.text",
                                              "output.logprobs",
                                              "output.top_logprobs",
                                              "output.prompt_logprobs",
                                              "output.echo",
                                              "output.token_bytes",
                                              "output.routed_experts",
                                              "scheduling.priority",
                                              "scheduling.time_limit",
                                              "scheduling.tenant",
                                              "scheduling.cache_salt",
                                              "scheduling.capacity.scope",
                                              "scheduling.capacity.overflow",
                                              "scheduling.capacity.capacity_factor",
                                              "scheduling.capacity.min_capacity",
                                              "scheduling.capacity.group_tokens",
                                              "structured_output.json_schema",
                                              "structured_output.regex",
                                              "structured_output.choices.choices",
                                              "replay_routing.record.first_position",
                                              "replay_routing.record.num_layers",
                                              "replay_routing.record.top_k",
                                              "replay_routing.record.expert_ids",
                                              "replay_routing.record.weights",
                                              "replay_routing.weights"}));
}

TEST(FieldSupportTest, OtherRequestsToo) {
  EXPECT_EQ(AcceptedFields(v1::TokenizeRequest()),
            (std::set<std::string>{"model", "text", "chat.messages", "chat.add_generation_prompt", "chat.tools",
                                   "chat.documents", "chat.template_arguments", "chat.continue_final_message",
                                   "prompt.add_special_tokens", "prompt.parse_special", "token_bytes"}));
  EXPECT_EQ(AcceptedFields(v1::DetokenizeRequest()),
            (std::set<std::string>{"model", "token_ids", "skip_special_tokens"}));
  EXPECT_EQ(AcceptedFields(v1::WatchExpertStatsRequest()),
            (std::set<std::string>{"model", "scope", "layers", "include_experts", "interval", "delta", "as_matrix"}));
  EXPECT_EQ(AcceptedFields(v1::SetCapacityPolicyRequest()),
            (std::set<std::string>{"model", "policy.scope", "policy.overflow", "policy.capacity_factor",
                                   "policy.min_capacity", "policy.group_tokens"}));
  EXPECT_EQ(AcceptedFields(v1::PinExpertsRequest()), (std::set<std::string>{"model", "experts"}));
  EXPECT_EQ(AcceptedFields(v1::ExportProfileRequest()), (std::set<std::string>{"model", "max_pairs"}));
  EXPECT_EQ(AcceptedFields(v1::ImportProfileRequest()),
            (std::set<std::string>{"model", "profile.model_fingerprint", "profile.tokens", "profile.frequency",
                                   "profile.num_experts", "profile.format_version", "profile.top_k", "profile.layers",
                                   "profile.assignments", "profile.sampled_tokens", "profile.co_activation",
                                   "profile.transitions", "profile.token_classes"}));
  EXPECT_EQ(AcceptedFields(v1::GetModelRequest()), (std::set<std::string>{"model"}));
}

TEST(FieldSupportTest, EmptyMessagesOfUnsupportedFieldsAreRefused) {
  v1::GetExpertStatsResponse unknown;  // no request at all
  unknown.mutable_stats();
  EXPECT_THAT(std::string(RefuseUnsupportedFields(unknown).message()), HasSubstr("stats"));
  v1::GenerateRequest request;
  request.mutable_scheduling()->mutable_capacity();  // asks for nothing
  request.mutable_sampling();
  EXPECT_TRUE(RefuseUnsupportedFields(request).ok());
}

TEST(FieldSupportTest, ValuesThatAskForNothingPass) {
  v1::GenerateRequest request;
  request.mutable_sampling()->set_n(1);
  request.mutable_sampling()->set_presence_penalty(0);
  request.mutable_sampling()->set_frequency_penalty(0);
  request.mutable_sampling()->set_repetition_penalty(1);
  request.mutable_stopping()->set_min_tokens(0);
  request.mutable_output()->set_logprobs(false);
  request.mutable_output()->set_echo(false);
  request.mutable_scheduling()->set_priority(0);
  EXPECT_TRUE(RefuseUnsupportedFields(request).ok());
}

TEST(FieldSupportTest, AllUnsupportedFieldsAreNamedAtOnce) {
  v1::ExpertRef unknown;  // no request at all
  unknown.set_layer(1);
  unknown.set_expert(1);
  const std::string message(RefuseUnsupportedFields(unknown).message());
  EXPECT_THAT(message, HasSubstr("layer, expert"));
}

TEST(FieldSupportTest, FieldsOfAFutureVersionAreIgnored) {
  v1::GenerateRequest request;
  request.GetReflection()->MutableUnknownFields(&request)->AddVarint(1000, 1);
  EXPECT_TRUE(RefuseUnsupportedFields(request).ok());
}

TEST(FieldSupportTest, BothGenerationRequestsHaveTheSameFields) {
  const Descriptor* stream = v1::GenerateRequest::descriptor();
  const Descriptor* unary = v1::GenerateTextRequest::descriptor();
  ASSERT_EQ(stream->field_count(), unary->field_count());
  for (int i = 0; i < stream->field_count(); ++i) {
    EXPECT_EQ(stream->field(i)->DebugString(), unary->field(i)->DebugString());
  }
}

}  // namespace
}  // namespace cadre
