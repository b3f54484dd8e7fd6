// VllmEngine over a real connection to a server with a simulated model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/server/in_process_server.h"
#include "vllm/grpc/engine/vllm_engine.grpc.pb.h"

namespace cadre {
namespace {

namespace vllm_api = vllm::grpc::engine;
using ::testing::HasSubstr;

constexpr char kFast[] = "sim:vocab=512,max_len=256,blocks=64,block_size=16";
constexpr char kSlow[] = "sim:vocab=512,max_len=4096,blocks=512,block_size=16,step_ms=5";

struct Answer {
  grpc::Status status;
  std::vector<vllm_api::GenerateStreamChunk> chunks;
  std::vector<vllm_api::GenerateComplete> completes;
  std::vector<uint32_t> streamed_ids;
};

class VllmServiceTest : public ::testing::Test {
 protected:
  void Start(const std::string& model) {
    server_ = std::make_unique<InProcessServer>(model);
    stub_ = vllm_api::VllmEngine::NewStub(server_->channel());
  }

  static vllm_api::GenerateRequest Request(uint32_t max_tokens, bool stream) {
    vllm_api::GenerateRequest request;
    for (const uint32_t id : {5u, 6u, 7u}) request.mutable_tokenized()->add_input_ids(id);
    request.mutable_sampling_params()->set_temperature(0);
    request.mutable_sampling_params()->set_max_tokens(max_tokens);
    request.mutable_sampling_params()->set_ignore_eos(true);
    request.set_stream(stream);
    return request;
  }

  Answer Generate(const vllm_api::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, request);
    Answer answer;
    vllm_api::GenerateResponse response;
    while (reader->Read(&response)) {
      if (response.has_chunk()) {
        answer.streamed_ids.insert(answer.streamed_ids.end(), response.chunk().token_ids().begin(),
                                   response.chunk().token_ids().end());
        answer.chunks.push_back(response.chunk());
      } else {
        answer.completes.push_back(response.complete());
      }
    }
    answer.status = reader->Finish();
    return answer;
  }

  std::unique_ptr<InProcessServer> server_;
  std::unique_ptr<vllm_api::VllmEngine::Stub> stub_;
};

// The same engine answers both protocols: the same request has the same tokens.
TEST_F(VllmServiceTest, AnswersAsTheOwnApiDoes) {
  Start(kFast);
  v1::GenerateRequest own = IdsRequest({5, 6, 7}, 12);
  own.mutable_stopping()->set_ignore_eos(true);
  const StreamResult expected = cadre::Generate(*server_, own);
  const std::vector<uint32_t> ids(expected.token_ids.begin(), expected.token_ids.end());
  ASSERT_EQ(ids.size(), 12u);

  const Answer streamed = Generate(Request(12, /*stream=*/true));
  ASSERT_TRUE(streamed.status.ok()) << streamed.status.error_message();
  EXPECT_EQ(streamed.streamed_ids, ids);
  ASSERT_EQ(streamed.completes.size(), 1u);
  EXPECT_EQ(streamed.completes[0].finish_reason(), "length");
  EXPECT_EQ(streamed.completes[0].completion_tokens(), 12u);
  EXPECT_EQ(streamed.completes[0].prompt_tokens(), 3u);

  const Answer whole = Generate(Request(12, /*stream=*/false));
  EXPECT_TRUE(whole.chunks.empty());
  ASSERT_EQ(whole.completes.size(), 1u);
  EXPECT_EQ(std::vector<uint32_t>(whole.completes[0].output_ids().begin(), whole.completes[0].output_ids().end()), ids);
  EXPECT_TRUE(Eventually([&] { return server_->IsAtRest(); }));
}

TEST_F(VllmServiceTest, EachSequenceHasItsEnd) {
  Start(kFast);
  vllm_api::GenerateRequest request = Request(4, /*stream=*/true);
  request.mutable_sampling_params()->set_n(3);
  request.mutable_sampling_params()->set_logprobs(2);
  request.mutable_sampling_params()->set_prompt_logprobs(1);
  const Answer answer = Generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  std::vector<uint32_t> indices;
  for (const auto& complete : answer.completes) indices.push_back(complete.index());
  EXPECT_THAT(indices, ::testing::UnorderedElementsAre(0, 1, 2));
  int with_prompt = 0;
  for (const auto& chunk : answer.chunks) {
    EXPECT_EQ(chunk.output_logprobs().token_ids_size(), chunk.token_ids_size());
    EXPECT_EQ(chunk.output_logprobs().top_logprobs(0).token_ids_size(), 2);
    with_prompt += chunk.has_input_logprobs() ? 1 : 0;
  }
  EXPECT_EQ(with_prompt, 3);

  // Without chunks by index, whichever ends first: clients number them as they come.
  request.set_stream(false);
  const Answer whole = Generate(request);
  ASSERT_EQ(whole.completes.size(), 3u);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(whole.completes[i].index(), i);
    EXPECT_EQ(whole.completes[i].output_ids_size(), 4);
    EXPECT_EQ(whole.completes[i].has_input_logprobs(), i == 0);
  }
}

TEST_F(VllmServiceTest, ErrorsNameItsOwnFields) {
  Start(kFast);
  vllm_api::GenerateRequest request = Request(4, /*stream=*/true);
  request.mutable_sampling_params()->set_top_p(2);
  Answer answer = Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("sampling_params.top_p: 2"));
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(answer.status)->field_violations(0).field(), "sampling_params.top_p");

  request = Request(4, /*stream=*/true);
  request.mutable_sampling_params()->set_grammar("root ::= x");
  answer = Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(ReasonOf(answer.status), "UNSUPPORTED_FIELD");

  request = Request(4096, /*stream=*/true);
  answer = Generate(request);
  EXPECT_EQ(ReasonOf(answer.status), "CONTEXT_LENGTH_EXCEEDED");
  EXPECT_THAT(answer.status.error_message(), HasSubstr("sampling_params.max_tokens"));
}

// What waits until the end is charged like GenerateText's answers.
TEST_F(VllmServiceTest, AnAnswerInOneMessageHasALimit) {
  Start("sim:vocab=512,max_len=100000,blocks=8192,block_size=16");
  vllm_api::GenerateRequest request = Request(90000, /*stream=*/false);
  request.mutable_sampling_params()->set_logprobs(20);
  request.mutable_sampling_params()->set_n(2);
  const Answer answer = Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("the limit is 67108864"));
}

// The prompt's details are sent for each sequence, and charged for each.
TEST_F(VllmServiceTest, DetailsOfThePromptHaveALimitForAllSequences) {
  Start("sim:vocab=512,max_len=100000,blocks=8192,block_size=16");
  vllm_api::GenerateRequest request = Request(2, /*stream=*/true);
  for (int i = 0; i < 2000; ++i) request.mutable_tokenized()->add_input_ids(7);
  request.mutable_sampling_params()->set_prompt_logprobs(20);
  request.mutable_sampling_params()->set_n(2);
  EXPECT_TRUE(Generate(request).status.ok());
  request.mutable_sampling_params()->set_n(100);
  const Answer answer = Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("sampling_params.prompt_logprobs: 2003 prompt tokens may take"));
}

TEST_F(VllmServiceTest, AbortEndsTheRequestsOfAnId) {
  Start(kSlow);
  vllm_api::GenerateRequest request = Request(4000, /*stream=*/true);
  request.set_request_id("one");
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, request);
  vllm_api::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));

  const auto abort = [&](const std::string& id) {
    vllm_api::AbortRequest wire;
    wire.add_request_ids(id);
    vllm_api::AbortResponse answer;
    grpc::ClientContext abort_context;
    return stub_->Abort(&abort_context, wire, &answer);
  };
  EXPECT_TRUE(abort("another").ok());
  const int64_t steps = server_->host().Snapshot().steps;
  EXPECT_TRUE(Eventually([&] { return server_->host().Snapshot().steps > steps + 3; }));
  EXPECT_EQ(server_->host().Snapshot().finished_cancelled, 0);
  EXPECT_TRUE(abort("one").ok());
  while (reader->Read(&response)) EXPECT_TRUE(response.has_chunk());
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(ReasonOf(status), "CANCELLED");
  EXPECT_TRUE(Eventually([&] { return server_->IsAtRest(); }));
  EXPECT_EQ(server_->host().Snapshot().finished_cancelled, 1);
  // It is gone, which is what was asked for.
  EXPECT_TRUE(abort("one").ok());
}

TEST_F(VllmServiceTest, ACancelFreesTheRequest) {
  Start(kSlow);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Request(4000, /*stream=*/false));
  EXPECT_TRUE(Eventually([&] { return server_->host().Snapshot().running_requests == 1; }));
  context.TryCancel();
  vllm_api::GenerateResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return server_->IsAtRest(); }));
}

TEST_F(VllmServiceTest, ADeadlineEndsTheRequest) {
  Start(kSlow);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Milliseconds(200)));
  const auto reader = stub_->Generate(&context, Request(4000, /*stream=*/true));
  vllm_api::GenerateResponse response;
  while (reader->Read(&response)) EXPECT_FALSE(response.has_complete());
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(Eventually([&] { return server_->host().Snapshot().finished_deadline == 1; }));
}

TEST_F(VllmServiceTest, HealthFollowsReadiness) {
  server_ = std::make_unique<InProcessServer>(InProcessServer::Config(kFast), /*load=*/false);
  stub_ = vllm_api::VllmEngine::NewStub(server_->channel());
  const auto check = [&] {
    vllm_api::HealthCheckResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(stub_->HealthCheck(&context, {}, &response).ok());
    return response;
  };
  EXPECT_FALSE(check().healthy());
  EXPECT_THAT(check().message(), HasSubstr("loading"));
  EXPECT_EQ(HealthOf(*server_, "vllm.grpc.engine.VllmEngine"), grpc::health::v1::HealthCheckResponse::NOT_SERVING);
  server_->Load();
  EXPECT_TRUE(check().healthy());
  EXPECT_TRUE(check().message().empty());
  EXPECT_EQ(HealthOf(*server_, "vllm.grpc.engine.VllmEngine"), grpc::health::v1::HealthCheckResponse::SERVING);
  server_->grpc().health().SetReady(false);
  EXPECT_FALSE(check().healthy());
}

TEST_F(VllmServiceTest, TellsModelServerAndLoad) {
  Start(kFast);
  vllm_api::GetModelInfoResponse model;
  grpc::ClientContext model_context;
  ASSERT_TRUE(stub_->GetModelInfo(&model_context, {}, &model).ok());
  EXPECT_EQ(model.served_model_name(), "test-model");
  EXPECT_EQ(model.max_context_length(), 256u);
  EXPECT_EQ(model.max_req_input_len(), 255);
  EXPECT_EQ(model.vocab_size(), 512u);

  ASSERT_TRUE(Generate(Request(4, /*stream=*/false)).status.ok());
  vllm_api::GetServerInfoResponse info;
  grpc::ClientContext info_context;
  ASSERT_TRUE(stub_->GetServerInfo(&info_context, {}, &info).ok());
  EXPECT_EQ(info.server_type(), "cadre");
  EXPECT_GT(info.last_receive_timestamp(), 1e9);
  EXPECT_FALSE(info.is_paused());

  vllm_api::GetLoadsResponse loads;
  grpc::ClientContext loads_context;
  ASSERT_TRUE(stub_->GetLoads(&loads_context, {}, &loads).ok());
  ASSERT_EQ(loads.loads_size(), 1);
  EXPECT_EQ(loads.loads(0).max_total_num_tokens(), 64 * 16);
  vllm_api::GetLoadsRequest of_another;
  of_another.set_dp_rank(1);
  grpc::ClientContext other_context;
  EXPECT_EQ(stub_->GetLoads(&other_context, of_another, &loads).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(VllmServiceTest, ASimulatedModelHasNoTokenizerFiles) {
  Start(kFast);
  grpc::ClientContext context;
  const auto reader = stub_->GetTokenizer(&context, {});
  smg::grpc::common::GetTokenizerChunk chunk;
  EXPECT_FALSE(reader->Read(&chunk));
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "NO_TOKENIZER_FILES");
}

}  // namespace
}  // namespace cadre
