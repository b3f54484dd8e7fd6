// Calls with one answer whose clients do not read it, or do not say what they want.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/reading_watch.h"
#include "server/wire.h"
#include "tests/server/in_process_server.h"
#include "vllm/grpc/engine/vllm_engine.grpc.pb.h"

namespace cadre {
namespace {

constexpr char kTokenize[] = "/cadre.v1.GenerationService/Tokenize";
constexpr char kWatch[] = "/cadre.v1.ExpertService/WatchExpertStats";
constexpr char kGenerateText[] = "/cadre.v1.GenerationService/GenerateText";

// A client of its own, with the smallest window, that sends a request and then waits for the end without reading.
class Sloth {
 public:
  Sloth(InProcessServer& server, const std::string& path) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 65535);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = std::make_unique<grpc::GenericStub>(grpc::CreateCustomChannel(
        HostPort("127.0.0.1", server.grpc().port()), grpc::InsecureChannelCredentials(), arguments));
    call_ = stub_->PrepareCall(&context_, path, &queue_);
    call_->StartCall(this);
    EXPECT_TRUE(Next(absl::Seconds(20)));
  }
  ~Sloth() {
    context_.TryCancel();
    if (is_finishing_ && !is_finished_) Next(absl::Seconds(20));
    queue_.Shutdown();
  }

  void Send(const google::protobuf::Message& request) {
    call_->WriteLast(SerializeMessage(request), grpc::WriteOptions(), this);
    EXPECT_TRUE(Next(absl::Seconds(20)));
  }
  void SendNothing() {
    call_->WritesDone(this);
    EXPECT_TRUE(Next(absl::Seconds(20)));
  }
  // Whether the call has ended by then.
  bool EndsWithin(absl::Duration time) {
    if (!is_finishing_) call_->Finish(&status, this);
    is_finishing_ = true;
    is_finished_ = is_finished_ || Next(time);
    return is_finished_;
  }
  // Whether the answer came whole.
  bool Read() {
    grpc::ByteBuffer answer;
    call_->Read(&answer, this);
    return Next(absl::Seconds(20));
  }

  grpc::Status status;  // once it has ended

 private:
  bool Next(absl::Duration time) {
    void* tag = nullptr;
    bool ok = false;
    return queue_.AsyncNext(&tag, &ok, absl::ToChronoTime(absl::Now() + time)) == grpc::CompletionQueue::GOT_EVENT &&
           ok;
  }

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericStub> stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  bool is_finishing_ = false;
  bool is_finished_ = false;
};

std::unique_ptr<InProcessServer> ServerWith(absl::Duration patience) {
  return std::make_unique<InProcessServer>(InProcessServer::Config("sim:vocab=512"), /*load=*/true,
                                           TokenStreamOptions{.slow_reader_timeout = patience});
}

// An answer of several times the window.
v1::TokenizeRequest LongText() {
  v1::TokenizeRequest request;
  request.set_text(std::string(200'000, 'x'));
  request.set_token_bytes(true);
  return request;
}

v1::GenerateRequest ManyTokens() {
  v1::GenerateRequest request = IdsRequest({1, 2, 3}, 3000);
  request.mutable_output()->set_logprobs(true);
  request.mutable_output()->set_top_logprobs(20);
  return request;
}

// Whether a client that reads too late, be it ever so much, is cancelled.
bool IsCutOff(InProcessServer& server, const char* path, const google::protobuf::Message& request) {
  for (absl::Duration wait = absl::Milliseconds(500); wait < absl::Seconds(10); wait *= 2) {
    Sloth sloth(server, path);
    sloth.Send(request);
    absl::SleepFor(wait);
    if (sloth.Read()) continue;
    EXPECT_TRUE(sloth.EndsWithin(absl::Seconds(20)));
    EXPECT_EQ(sloth.status.error_code(), grpc::StatusCode::CANCELLED) << sloth.status.error_message();
    return true;
  }
  return false;
}

TEST(UnreadAnswerTest, AnAnswerThatNobodyTakesIsCutOff) {
  const auto server = ServerWith(absl::Milliseconds(200));
  EXPECT_TRUE(IsCutOff(*server, kTokenize, LongText()));
  EXPECT_TRUE(IsCutOff(*server, kGenerateText, ManyTokens()));
  Sloth generate(*server, kGenerateText);
  generate.Send(ManyTokens());
  EXPECT_TRUE(Eventually([&] { return server->host().num_open_calls() == 1; }));
  EXPECT_TRUE(Eventually([&] { return server->host().num_open_calls() == 0; })) << "the answer is kept";
}

TEST(UnreadAnswerTest, AnAnswerMayWaitForALittle) {
  const auto server = ServerWith(absl::Hours(1));
  Sloth tokenize(*server, kTokenize);
  tokenize.Send(LongText());
  Sloth generate(*server, kGenerateText);
  generate.Send(ManyTokens());
  absl::SleepFor(absl::Milliseconds(500));
  EXPECT_TRUE(tokenize.Read());
  EXPECT_TRUE(generate.Read());
  for (Sloth* const client : {&tokenize, &generate}) {
    EXPECT_TRUE(client->EndsWithin(absl::Seconds(20)));
    EXPECT_TRUE(client->status.ok()) << client->status.error_message();
  }
}

// As /metrics tells it.
int NumCutOff(InProcessServer& server) {
  constexpr std::string_view kName = "\ncadre_calls_cut_off_total ";
  const std::string page = server.metrics().RenderDefaultPage();
  const size_t begin = page.find(kName);
  return begin == std::string::npos ? -1 : std::atoi(page.c_str() + begin + kName.size());
}

// A first event of several times the window, and an end that comes behind it.
TEST(UnreadAnswerTest, AStreamWhoseFirstMessageNobodyTakesIsCutOff) {
  const auto server = ServerWith(absl::Milliseconds(200));
  EXPECT_EQ(NumCutOff(*server), 0);
  v1::GenerateRequest request = IdsRequest(std::vector<int32_t>(1000, 7), 1);
  request.mutable_output()->set_prompt_logprobs(20);
  Sloth sloth(*server, "/cadre.v1.GenerationService/Generate");
  sloth.Send(request);
  EXPECT_TRUE(Eventually([&] { return NumCutOff(*server) == 1; }));
  EXPECT_TRUE(Eventually([&] { return server->host().num_open_calls() == 0; })) << "the event is kept";
  EXPECT_EQ(NumCutOff(*server), 1);
}

// Of many messages, none of which would be watched if it came alone.
TEST(UnreadAnswerTest, AnAnswerInPartsThatNobodyTakesIsCutOff) {
  const auto server = ServerWith(absl::Milliseconds(200));
  vllm::grpc::engine::GenerateRequest request;
  for (int i = 0; i < 3; ++i) request.mutable_tokenized()->add_input_ids(i + 1);
  request.mutable_sampling_params()->set_n(16);
  request.mutable_sampling_params()->set_max_tokens(100);
  request.mutable_sampling_params()->set_logprobs(20);
  Sloth sloth(*server, "/vllm.grpc.engine.VllmEngine/Generate");
  sloth.Send(request);
  EXPECT_TRUE(Eventually([&] { return NumCutOff(*server) == 1; }));
  EXPECT_TRUE(Eventually([&] { return server->host().num_open_calls() == 0; })) << "the answer is kept";
}

// It has no end of its own, and its place is one of few.
TEST(UnreadAnswerTest, AWatcherThatDoesNotReadLosesItsPlace) {
  InProcessServer server(InProcessServer::Config("sim:vocab=512,layers=64,experts=512"), /*load=*/true,
                         TokenStreamOptions{.slow_reader_timeout = absl::Milliseconds(200)});
  Generate(server, IdsRequest({1, 2, 3}, 200));  // or there is nothing to tell
  v1::WatchExpertStatsRequest request;
  request.mutable_interval()->set_nanos(100'000'000);
  Sloth sloth(server, kWatch);
  sloth.Send(request);
  EXPECT_TRUE(Eventually([&] { return NumCutOff(server) == 1; }));
  while (sloth.Read()) {
  }
  EXPECT_TRUE(sloth.EndsWithin(absl::Seconds(20)));
  EXPECT_EQ(sloth.status.error_code(), grpc::StatusCode::CANCELLED) << sloth.status.error_message();
}

// The pause between two messages is the server's.
TEST(UnreadAnswerTest, AWatcherThatReadsMayBeToldSeldom) {
  const auto server = ServerWith(absl::Milliseconds(200));
  v1::WatchExpertStatsRequest request;
  request.mutable_interval()->set_nanos(600'000'000);
  grpc::ClientContext context;
  const auto stream = server->experts->WatchExpertStats(&context, request);
  v1::WatchExpertStatsResponse message;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(stream->Read(&message)) << i;
  context.TryCancel();
  stream->Finish();
  EXPECT_EQ(NumCutOff(*server), 0);
}

TEST(UnreadAnswerTest, PatienceIsOfEachMebibyteBegun) {
  EXPECT_EQ(MessagePatience(0, absl::Seconds(10)), absl::Seconds(10));
  EXPECT_EQ(MessagePatience((1 << 20) - 1, absl::Seconds(10)), absl::Seconds(10));
  EXPECT_EQ(MessagePatience(64 << 20, absl::Seconds(10)), absl::Seconds(650));
  const TokenStreamOptions options{.max_outbox_bytes = 1000, .slow_reader_timeout = absl::Seconds(1)};
  EXPECT_EQ(AnswerPatience(1000, options), absl::Seconds(10));
  EXPECT_EQ(AnswerPatience(1001, options), absl::Seconds(1));
}

TEST(UnreadAnswerTest, HalfARequestHasAnEnd) {
  InProcessServer server(InProcessServer::Config("sim:vocab=512"), /*load=*/true, {}, nullptr,
                         /*request_timeout=*/absl::Milliseconds(200));
  for (const char* path : {kTokenize, kWatch, "/vllm.grpc.engine.VllmEngine/GetTokenizer"}) {
    Sloth silent(server, path);
    EXPECT_TRUE(silent.EndsWithin(absl::Seconds(20))) << path;
    EXPECT_EQ(silent.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << path;
    EXPECT_EQ(ReasonOf(silent.status), "REQUEST_TIMEOUT") << path;
  }
}

TEST(UnreadAnswerTest, ACallWithoutARequestIsToldSo) {
  const auto server = ServerWith(absl::Hours(1));
  Sloth silent(*server, kTokenize);
  silent.SendNothing();
  EXPECT_TRUE(silent.EndsWithin(absl::Seconds(20)));
  EXPECT_EQ(silent.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ReasonOf(silent.status), "MALFORMED_REQUEST");
}

TEST(UnreadAnswerTest, AStrangerIsToldWhyAndNotRead) {
  const auto server = ServerWith(absl::Hours(1));
  server->access().SetKeys(*ApiKeys::Parse("alice generation secret-of-alice-12345"));
  for (const char* path : {kTokenize, kGenerateText, kWatch}) {
    Sloth stranger(*server, path);
    EXPECT_TRUE(stranger.EndsWithin(absl::Seconds(20))) << path;
    EXPECT_EQ(stranger.status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << path;
    EXPECT_EQ(ReasonOf(stranger.status), "UNAUTHENTICATED") << path;
  }
}

}  // namespace
}  // namespace cadre
