// Abort of VllmEngine: whose requests it ends, by which ids and when, and what it may ask for.
#include <gmock/gmock.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "server/request_limits.h"
#include "tests/server/in_process_server.h"
#include "vllm/grpc/engine/vllm_engine.grpc.pb.h"

namespace cadre {
namespace {

namespace vllm_api = vllm::grpc::engine;
using ::testing::HasSubstr;

constexpr char kSlow[] = "sim:vocab=512,max_len=40000,blocks=2600,block_size=16,step_ms=5";
constexpr char kAlice[] = "secret-of-alice-12345";
constexpr char kBob[] = "secret-of-bob-1234567";

vllm_api::GenerateRequest LongAnswer(const std::string& id) {
  vllm_api::GenerateRequest request;
  request.set_request_id(id);
  request.set_stream(true);
  for (const uint32_t token : {5u, 6u, 7u}) request.mutable_tokenized()->add_input_ids(token);
  request.mutable_sampling_params()->set_max_tokens(4000);
  request.mutable_sampling_params()->set_ignore_eos(true);
  return request;
}

class VllmAbortTest : public ::testing::Test {
 protected:
  void Start(MemoryGuard* memory = nullptr) {
    server_ =
        std::make_unique<InProcessServer>(InProcessServer::Config(kSlow), /*load=*/true, TokenStreamOptions{}, memory);
    stub_ = vllm_api::VllmEngine::NewStub(server_->channel());
  }

  static void ShowKey(grpc::ClientContext& context, const std::string& secret) {
    if (!secret.empty()) context.AddMetadata("authorization", absl::StrCat("Bearer ", secret));
  }

  grpc::Status Abort(const std::vector<std::string>& ids, const std::string& secret = "") {
    vllm_api::AbortRequest wire;
    wire.mutable_request_ids()->Add(ids.begin(), ids.end());
    vllm_api::AbortResponse answer;
    grpc::ClientContext context;
    ShowKey(context, secret);
    return stub_->Abort(&context, wire, &answer);
  }

  // Reads to the end, which has to be an abort.
  static void ExpectAborted(grpc::ClientReader<vllm_api::GenerateResponse>& reader) {
    vllm_api::GenerateResponse response;
    while (reader.Read(&response)) EXPECT_TRUE(response.has_chunk());
    const grpc::Status status = reader.Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
    EXPECT_EQ(ReasonOf(status), "CANCELLED");
    EXPECT_THAT(status.error_message(), HasSubstr("aborted"));
  }

  std::unique_ptr<InProcessServer> server_;
  std::unique_ptr<vllm_api::VllmEngine::Stub> stub_;
};

TEST_F(VllmAbortTest, NobodyEndsWhatAnotherCallerAskedFor) {
  Start();
  server_->access().SetKeys(
      *ApiKeys::Parse(absl::StrCat("alice generation ", kAlice, "\nbob generation ", kBob, "\n")));
  grpc::ClientContext context;
  ShowKey(context, kAlice);
  const auto reader = stub_->Generate(&context, LongAnswer("one"));
  vllm_api::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));

  // As for an id that is not there: what others run is nothing to learn.
  EXPECT_TRUE(Abort({"one"}, kBob).ok());
  const int64_t steps = server_->host().Snapshot().steps;
  EXPECT_TRUE(Eventually([&] { return server_->host().Snapshot().steps > steps + 3; }));
  EXPECT_EQ(server_->host().Snapshot().finished_cancelled, 0);
  EXPECT_TRUE(reader->Read(&response));
  EXPECT_EQ(Abort({"one"}).error_code(), grpc::StatusCode::UNAUTHENTICATED);

  EXPECT_TRUE(Abort({"one"}, kAlice).ok());
  ExpectAborted(*reader);
  EXPECT_TRUE(Eventually([&] { return server_->IsAtRest(); }));
  EXPECT_EQ(server_->host().Snapshot().finished_cancelled, 1);
}

TEST_F(VllmAbortTest, LongListsAreRefused) {
  Start();
  EXPECT_TRUE(Abort(std::vector<std::string>(kMaxAbortIds, "id")).ok());
  grpc::Status status = Abort(std::vector<std::string>(kMaxAbortIds + 1, "id"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "request_ids: 1025 ids, the limit is 1024");
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(status)->field_violations(0).field(), "request_ids");

  EXPECT_TRUE(Abort({std::string(kMaxAbortBytes - 4, 'x')}).ok());
  status = Abort({std::string(kMaxAbortBytes - 3, 'x')});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "request_ids: 65537 bytes in one message, the limit is 65536");
}

TEST_F(VllmAbortTest, ShortOfMemoryAFewIdsAreReadAndManyAreNot) {
  HostMemoryUse use = {.room = int64_t{1} << 30, .resident = 0};
  const MonotonicClock clock;
  MemoryGuard memory([&use] { return use; }, &clock);
  memory.Arm();
  Start(&memory);
  EXPECT_TRUE(Abort({std::string(2 * kMaxUnchargedAbortBytes, 'x')}).ok());
  use = {.room = 1 << 20, .resident = int64_t{1} << 30};
  ASSERT_TRUE(Eventually([&] { return memory.Observe().level >= MemoryPressure::kRefuse; }));
  EXPECT_TRUE(Abort({"one", "two"}).ok());
  EXPECT_EQ(ReasonOf(Abort({std::string(2 * kMaxUnchargedAbortBytes, 'x')})), "MEMORY_PRESSURE");
}

TEST_F(VllmAbortTest, KnowsTheIdThatTheClientWasTold) {
  Start();
  for (const std::string metadata_id : {"", "of-metadata"}) {
    grpc::ClientContext context;
    if (!metadata_id.empty()) context.AddMetadata("x-request-id", metadata_id);
    const auto reader = stub_->Generate(&context, LongAnswer(""));
    reader->WaitForInitialMetadata();
    const auto told = context.GetServerInitialMetadata().find("x-request-id");
    ASSERT_NE(told, context.GetServerInitialMetadata().end());
    const std::string id(told->second.data(), told->second.size());
    EXPECT_TRUE(metadata_id.empty() || id == metadata_id) << id;
    EXPECT_TRUE(Abort({id}).ok());
    ExpectAborted(*reader);
  }
  EXPECT_TRUE(Eventually([&] { return server_->IsAtRest(); }));
}

// What the request says replaces what the metadata said.
TEST_F(VllmAbortTest, ARequestHasOneId) {
  Start();
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "of-metadata");
  const auto reader = stub_->Generate(&context, LongAnswer("its-own"));
  vllm_api::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_TRUE(Abort({"of-metadata"}).ok());
  EXPECT_TRUE(reader->Read(&response));
  EXPECT_EQ(server_->host().Snapshot().finished_cancelled, 0);
  EXPECT_TRUE(Abort({"its-own"}).ok());
  ExpectAborted(*reader);
}

TEST_F(VllmAbortTest, EndsALongRequestBeforeItIsRead) {
  Start();
  // Shared: who waits may be in it for a moment longer than this test.
  const auto gate = std::make_shared<absl::Notification>();
  ASSERT_TRUE(server_->work_queue().Post([gate] { gate->WaitForNotification(); }));
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "waits");
  vllm_api::GenerateRequest request = LongAnswer("");
  for (uint32_t i = 0; i < 20'000; ++i) request.mutable_tokenized()->add_input_ids(200 + i % 100);
  const auto reader = stub_->Generate(&context, request);
  EXPECT_TRUE(Eventually([&] { return server_->host().num_open_calls() == 1; }));
  EXPECT_TRUE(Abort({"waits"}).ok());
  ExpectAborted(*reader);
  gate->Notify();
  EXPECT_TRUE(Eventually([&] { return server_->host().num_open_calls() == 0; }));
  EXPECT_EQ(server_->host().Snapshot().admitted_requests, 0);
}

TEST_F(VllmAbortTest, EndsHalfARequestBeforeItIsRead) {
  Start();
  grpc::GenericStub stub(server_->channel());
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "never-sent");
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, "/vllm.grpc.engine.VllmEngine/Generate", &queue);
  int tag = 0;
  call->StartCall(&tag);
  void* done = nullptr;
  bool ok = false;
  ASSERT_TRUE(queue.Next(&done, &ok) && ok);
  grpc::Status status;
  call->Finish(&status, &tag);
  // The headers may still be on their way.
  const auto ended = [&] {
    EXPECT_TRUE(Abort({"never-sent"}).ok());
    return queue.AsyncNext(&done, &ok, std::chrono::system_clock::now() + std::chrono::milliseconds(20)) ==
           grpc::CompletionQueue::GOT_EVENT;
  };
  ASSERT_TRUE(Eventually(ended));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_THAT(status.error_message(), HasSubstr("aborted"));
  EXPECT_TRUE(Eventually([&] { return server_->host().num_open_calls() == 0; }));
  EXPECT_THAT(server_->metrics().RenderDefaultPage(),
              HasSubstr("\ncadre_requests_rejected_total{reason=\"cancelled\"} 1\n"));
}

}  // namespace
}  // namespace cadre
