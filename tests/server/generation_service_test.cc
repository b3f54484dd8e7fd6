#include <gmock/gmock.h>
#include <grpcpp/support/byte_buffer.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "engine/model/simulated_runner.h"
#include "server/admission.h"
#include "server/simulated_tokenizer.h"
#include "server/wire.h"
#include "tests/server/in_process_server.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

std::vector<int32_t> Bytes(const std::string& text) { return {text.begin(), text.end()}; }

TEST(GenerationServiceTest, StreamsTheModelsTokensAndTheirText) {
  InProcessServer server("sim:layers=3,top_k=2");
  const std::vector<int32_t> expected = SimulatedRunner::ExpectedTokens(Bytes("Hello"), 40, 1024);

  v1::GenerateRequest request = TextRequest("Hello", 40);
  request.mutable_sampling()->set_seed(7);
  const StreamResult result = Generate(server, request);

  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(result.token_ids, expected);
  EXPECT_EQ(result.text, (*MakeSimulatedTokenizer(1024))->Decode(expected));
  ASSERT_TRUE(result.started.has_value());
  EXPECT_EQ(result.started->model(), "test-model");
  EXPECT_EQ(result.started->seed(), 7);
  EXPECT_EQ(result.started->prompt_tokens(), 5);
  EXPECT_FALSE(result.started->request_id().empty());
  ASSERT_TRUE(result.finished.has_value());
  EXPECT_EQ(result.finished->reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(result.finished->usage().prompt_tokens(), 5);
  EXPECT_EQ(result.finished->usage().generated_tokens(), 40);
  // Each token but the last one generated runs through 3 layers with 2 experts.
  EXPECT_EQ(result.finished->routing().processed(), (5 + 40 - 1) * 3 * 2);
  EXPECT_TRUE(Eventually([&] { return server.IsAtRest(); }));
}

TEST(GenerationServiceTest, TheUnaryCallAnswersTheSame) {
  InProcessServer server("sim");
  const StreamResult stream = Generate(server, TextRequest("Hello", 25));
  v1::GenerateTextRequest request;
  ASSERT_TRUE(request.ParseFromString(TextRequest("Hello", 25).SerializeAsString()));
  grpc::ClientContext context;
  v1::GenerateTextResponse response;
  const grpc::Status status = server.generation->GenerateText(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.sequences_size(), 1);
  EXPECT_EQ(response.sequences(0).text(), stream.text);
  EXPECT_EQ(std::vector<int32_t>(response.sequences(0).token_ids().begin(), response.sequences(0).token_ids().end()),
            stream.token_ids);
  EXPECT_EQ(response.sequences(0).finished().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(response.started().prompt_tokens(), 5);
}

TEST(GenerationServiceTest, StopTokensAndStopStringsEndTheText) {
  InProcessServer server("sim");
  const std::vector<int32_t> tokens = SimulatedRunner::ExpectedTokens(Bytes("Hello"), 10, 1024);
  v1::GenerateRequest by_token = TextRequest("Hello", 10);
  by_token.mutable_stopping()->add_stop_token_ids(tokens[4]);
  const StreamResult token_result = Generate(server, by_token);
  EXPECT_EQ(token_result.finished->reason(), v1::FINISH_REASON_STOP_TOKEN);
  EXPECT_EQ(token_result.finished->matched_token_id(), tokens[4]);
  EXPECT_EQ(token_result.token_ids.size(), 5u);

  const std::string stop = (*MakeSimulatedTokenizer(1024))->Decode({&tokens[4], 1});
  v1::GenerateRequest by_string = TextRequest("Hello", 10);
  by_string.mutable_stopping()->add_stop_strings(stop);
  const StreamResult string_result = Generate(server, by_string);
  EXPECT_EQ(string_result.finished->reason(), v1::FINISH_REASON_STOP_STRING);
  EXPECT_EQ(string_result.finished->matched_stop_string(), stop);
  EXPECT_EQ(string_result.text, (*MakeSimulatedTokenizer(1024))->Decode({tokens.data(), 4}));
}

TEST(GenerationServiceTest, TokenIdsAloneOnRequest) {
  InProcessServer server("sim");
  v1::GenerateRequest request = IdsRequest({1, 2, 3}, 5);
  request.mutable_output()->set_text(false);
  const StreamResult result = Generate(server, request);
  ASSERT_TRUE(result.status.ok());
  EXPECT_EQ(result.token_ids, SimulatedRunner::ExpectedTokens(std::vector<int32_t>{1, 2, 3}, 5, 1024));
  EXPECT_EQ(result.text, "");
}

TEST(GenerationServiceTest, TruncationKeepsTheEndOfThePrompt) {
  InProcessServer server("sim");
  v1::GenerateRequest request = IdsRequest({1, 2, 3, 4}, 5);
  request.mutable_prompt()->set_truncate_prompt_tokens(2);
  const StreamResult result = Generate(server, request);
  EXPECT_EQ(result.token_ids, SimulatedRunner::ExpectedTokens(std::vector<int32_t>{3, 4}, 5, 1024));
  EXPECT_EQ(result.started->prompt_tokens(), 2);
}

TEST(GenerationServiceTest, AnUnsetSeedIsDrawnAndTold) {
  InProcessServer server("sim");
  const uint64_t a = Generate(server, TextRequest("x", 1)).started->seed();
  const uint64_t b = Generate(server, TextRequest("x", 1)).started->seed();
  EXPECT_NE(a, b);
}

TEST(GenerationServiceTest, TheRequestIdComesBack) {
  InProcessServer server("sim");
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "from-metadata");
  auto reader = server.generation->Generate(&context, TextRequest("x", 1));
  EXPECT_EQ(ReadAll(*reader).started->request_id(), "from-metadata");
  const auto id = context.GetServerInitialMetadata().find("x-request-id");
  ASSERT_NE(id, context.GetServerInitialMetadata().end());
  EXPECT_EQ(id->second, "from-metadata");
  EXPECT_EQ(context.GetServerTrailingMetadata().count("server-timing"), 1u);
  ASSERT_EQ(context.GetServerTrailingMetadata().count("cadre-routing-report"), 1u);
}

TEST(GenerationServiceTest, MetadataOfAnyKindDoesNoHarm) {
  InProcessServer server("sim");
  grpc::ClientContext context;
  for (int i = 0; i < 100; ++i) context.AddMetadata(absl::StrCat("x-key-", i), "v");
  for (const char* value : {"Bearer a", "Bearer b"}) context.AddMetadata("authorization", value);
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) every_byte += static_cast<char>(byte);
  context.AddMetadata("x-rubbish-bin", every_byte);
  context.AddMetadata("x-request-id", std::string(129, 'x'));
  auto reader = server.generation->Generate(&context, TextRequest("x", 1));
  const StreamResult answer = ReadAll(*reader);
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.started->request_id().size(), 16u) << "an id that is too long is replaced";
}

TEST(GenerationServiceTest, InitialMetadataArrivesBeforeTheFirstToken) {
  InProcessServer server("sim:step_ms=300");
  grpc::ClientContext context;
  const absl::Time start = absl::Now();
  auto reader = server.generation->Generate(&context, IdsRequest({1}, 2));
  reader->WaitForInitialMetadata();
  EXPECT_LT(absl::Now() - start, absl::Milliseconds(250));
  EXPECT_TRUE(ReadAll(*reader).status.ok());
}

TEST(GenerationServiceTest, CancellingFreesEverything) {
  InProcessServer server("sim:step_ms=2");
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    auto reader = server.generation->Generate(&context, IdsRequest({i, 2, 3}, 4000));
    v1::GenerateResponse event;
    for (int n = 0; n < i % 4; ++n) ASSERT_TRUE(reader->Read(&event));
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(Eventually([&] { return server.IsAtRest() && server.host().num_open_calls() == 0; }));
  const EngineSnapshot snapshot = server.host().Snapshot();
  EXPECT_EQ(snapshot.finished_cancelled, snapshot.admitted_requests);
}

TEST(GenerationServiceTest, ADeadlineEndsTheWorkAndCountsAsOne) {
  InProcessServer server("sim:step_ms=5");
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
  auto reader = server.generation->Generate(&context, IdsRequest({1, 2, 3}, 4000));
  const StreamResult result = ReadAll(*reader);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(Eventually([&] { return server.IsAtRest() && server.host().num_open_calls() == 0; }));
  EXPECT_EQ(server.host().Snapshot().finished_deadline, 1);
}

TEST(GenerationServiceTest, TheUnaryCallEndsAtItsDeadlineToo) {
  InProcessServer server("sim:step_ms=5");
  v1::GenerateTextRequest request;
  ASSERT_TRUE(request.ParseFromString(IdsRequest({1, 2, 3}, 4000).SerializeAsString()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
  v1::GenerateTextResponse response;
  EXPECT_EQ(server.generation->GenerateText(&context, request, &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(Eventually([&] { return server.IsAtRest() && server.host().num_open_calls() == 0; }));
  EXPECT_EQ(server.host().Snapshot().finished_deadline, 1);
}

// A client with the smallest window, so that flow control takes hold soon.
std::unique_ptr<v1::GenerationService::Stub> SmallWindowStub(InProcessServer& server) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 65535);
  return v1::GenerationService::NewStub(grpc::CreateCustomChannel(HostPort("127.0.0.1", server.grpc().port()),
                                                                  grpc::InsecureChannelCredentials(), arguments));
}

TEST(GenerationServiceTest, AClientThatNeverReadsLosesItsCall) {
  InProcessServer server(InProcessServer::Config("sim:max_len=40000,blocks=2600"), /*load=*/true,
                         {.max_outbox_bytes = 4096, .slow_reader_timeout = absl::Milliseconds(50)});
  const auto stub = SmallWindowStub(server);
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, IdsRequest({1, 2, 3}, 39000));
  ASSERT_TRUE(Eventually([&] { return server.host().Snapshot().finished_cancelled == 1; }));
  EXPECT_TRUE(Eventually([&] { return server.host().num_open_calls() == 0; }));
  context.TryCancel();
  EXPECT_FALSE(ReadAll(*reader).status.ok());
}

TEST(GenerationServiceTest, AClientThatReadsTooLateIsToldWhyAndKeepsTheConnection) {
  InProcessServer server(InProcessServer::Config("sim:max_len=40000,blocks=2600"), /*load=*/true,
                         {.max_outbox_bytes = 4096, .slow_reader_timeout = absl::Seconds(1)});
  const auto stub = SmallWindowStub(server);
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, IdsRequest({1, 2, 3}, 39000));
  ASSERT_TRUE(Eventually([&] { return server.host().Snapshot().finished_cancelled == 1; }));
  EXPECT_TRUE(server.IsAtRest());
  EXPECT_TRUE(Generate(server, IdsRequest({1}, 5)).status.ok());
  const StreamResult result = ReadAll(*reader);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(result.status), "SLOW_READER");
  EXPECT_FALSE(result.finished.has_value());
}

TEST(GenerationServiceTest, AFullQueueIsRefusedWithATimeToRetry) {
  ServerConfig config = InProcessServer::Config("sim:step_ms=20");
  config.max_num_seqs = 1;
  config.max_queue_requests = 1;
  InProcessServer server(config);
  grpc::ClientContext running_context, waiting_context, context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  auto running = server.generation->Generate(&running_context, IdsRequest({1}, 4000));
  v1::GenerateResponse event;
  ASSERT_TRUE(running->Read(&event));
  // The first event may be heard before the snapshot tells that the request no longer waits.
  ASSERT_TRUE(Eventually([&] { return server.host().Snapshot().waiting_requests == 0; }));
  auto waiting = server.generation->Generate(&waiting_context, IdsRequest({1}, 4000));
  ASSERT_TRUE(Eventually([&] { return server.host().Snapshot().waiting_requests == 1; }));
  const grpc::Status status = server.generation->Generate(&context, IdsRequest({1}, 1))->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
  const auto retry = DetailOf<google::rpc::RetryInfo>(status);
  ASSERT_TRUE(retry.has_value());
  EXPECT_GT(retry->retry_delay().seconds() + retry->retry_delay().nanos(), 0);
  EXPECT_EQ(context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms"), 1u);
  running_context.TryCancel();
  waiting_context.TryCancel();
  running->Finish();
  waiting->Finish();
}

// Remembers how a call ended.
class EndWriter final : public ResponseWriter {
 public:
  void SetRequestId(const std::string&) override {}
  void SendInitialMetadata() override {}
  bool Write(const v1::GenerateResponse&) override { return true; }
  void WriteLast(const v1::GenerateResponse&, const std::optional<RequestTotals>&) override {
    status = absl::OkStatus();
  }
  void Finish(const absl::Status& s, const std::optional<RequestTotals>&) override { status = s; }

  absl::Status status;
};

TEST(GenerationServiceTest, ADeadlineThatPassedOnArrivalCostsNoWork) {
  InProcessServer server("sim");
  EndWriter writer;
  WorkQueue work_queue(1);
  const ServiceContext context = {&server.host(), &server.metrics(), &work_queue, {}};
  auto stream = std::make_shared<TokenStream>(&writer, &server.host(), &server.metrics(), TokenStreamOptions{},
                                              server.host().clock().Now() - absl::Milliseconds(1));
  // Not even looked at: the prompt is one that tokenizing would refuse.
  AdmitRequest(context, stream, SerializeMessage(TextRequest("", 1)), ReadsOwnApi(AnswerKind::kStreamed), "");
  EXPECT_EQ(writer.status.code(), absl::StatusCode::kDeadlineExceeded);
  stream->Detach();
  EXPECT_EQ(server.host().Snapshot().admitted_requests, 0);
}

// A deadline may pass between a call's headers and its message.
TEST(GenerationServiceTest, ACallWithoutARequestAtItsDeadlineIsNoInvalidRequest) {
  InProcessServer server("sim");
  const ServiceContext context{&server.host(), &server.metrics(), &server.work_queue(), {}};
  const auto reject = [&](absl::Duration time_left) {
    EndWriter writer;
    const auto stream = std::make_shared<TokenStream>(&writer, &server.host(), nullptr, TokenStreamOptions{},
                                                      server.host().clock().Now() + time_left);
    AdmitRequest(context, stream, grpc::ByteBuffer(), ReadsOwnApi(AnswerKind::kStreamed), "");
    stream->Detach();
    return writer.status.code();
  };
  EXPECT_EQ(reject(absl::Milliseconds(1)), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(reject(absl::Hours(1)), absl::StatusCode::kInvalidArgument);
  const std::string page = server.metrics().RenderDefaultPage();
  EXPECT_NE(page.find("\ncadre_requests_rejected_total{reason=\"deadline\"} 1\n"), std::string::npos);
  EXPECT_NE(page.find("\ncadre_requests_rejected_total{reason=\"invalid\"} 1\n"), std::string::npos);
}

TEST(GenerationServiceTest, AModelThatIsLoadingSaysSo) {
  InProcessServer server(InProcessServer::Config("sim"), /*load=*/false);
  server.host().SetLoadProgress(0.42);
  const StreamResult before = Generate(server, TextRequest("x", 1));
  EXPECT_EQ(before.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(before.status), "MODEL_LOADING");
  EXPECT_THAT(before.status.error_message(), HasSubstr("42%"));
  EXPECT_TRUE(DetailOf<google::rpc::RetryInfo>(before.status).has_value());
  server.Load();
  EXPECT_TRUE(Generate(server, TextRequest("x", 1)).status.ok());
}

TEST(GenerationServiceTest, AnUnknownModelIsNotFound) {
  InProcessServer server("sim");
  v1::GenerateRequest request = TextRequest("x", 1);
  request.set_model("test-model");
  EXPECT_TRUE(Generate(server, request).status.ok());
  request.set_model("gpt");
  const grpc::Status status = Generate(server, request).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ReasonOf(status), "MODEL_NOT_FOUND");
  EXPECT_THAT(status.error_message(), HasSubstr("test-model"));
  ASSERT_TRUE(DetailOf<google::rpc::ResourceInfo>(status).has_value());
}

TEST(GenerationServiceTest, ALongPromptIsTokenizedElsewhereAndAnswered) {
  InProcessServer server("sim:max_len=65536,blocks=8192");
  const std::string prompt(40000, 'a');  // more than is tokenized on gRPC's thread
  const StreamResult result = Generate(server, TextRequest(prompt, 3));
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(result.token_ids, SimulatedRunner::ExpectedTokens(Bytes(prompt), 3, 1024));
}

TEST(GenerationServiceTest, TextGoesToTokensAndBack) {
  InProcessServer server("sim");
  grpc::ClientContext tokenize_context;
  v1::TokenizeRequest tokenize;
  tokenize.set_text("Grüße");
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(server.generation->Tokenize(&tokenize_context, tokenize, &tokens).ok());
  EXPECT_EQ(tokens.token_ids_size(), 7);
  grpc::ClientContext detokenize_context;
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_token_ids() = tokens.token_ids();
  v1::DetokenizeResponse text;
  ASSERT_TRUE(server.generation->Detokenize(&detokenize_context, detokenize, &text).ok());
  EXPECT_EQ(text.text(), "Grüße");

  grpc::ClientContext bad_context;
  detokenize.add_token_ids(1024);
  const grpc::Status status = server.generation->Detokenize(&bad_context, detokenize, &text);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(status)->field_violations(0).field(), "token_ids[7]");
}

TEST(GenerationServiceTest, ManyClientsGetTheirOwnTokens) {
  ServerConfig config = InProcessServer::Config("sim");
  config.max_num_seqs = 8;
  InProcessServer server(config);
  std::vector<std::thread> clients;
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([&server, i] {
      for (int n = 0; n < 10; ++n) {
        const std::vector<int32_t> prompt = {i, n, 5};
        EXPECT_EQ(Generate(server, IdsRequest(prompt, 20)).token_ids,
                  SimulatedRunner::ExpectedTokens(prompt, 20, 1024));
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(Eventually([&] { return server.IsAtRest(); }));
  EXPECT_EQ(server.host().Snapshot().finished_ok, 160);
}

}  // namespace
}  // namespace cadre
