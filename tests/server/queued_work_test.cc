// Calls that are given up while their work waits behind that of others.
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "absl/synchronization/notification.h"
#include "tests/server/in_process_server.h"

namespace cadre {
namespace {

// Keeps the work queue busy until it is let go.
class Blocker {
 public:
  explicit Blocker(WorkQueue& queue) {
    EXPECT_TRUE(queue.Post([gate = gate_] { gate->WaitForNotification(); }));
  }
  ~Blocker() {
    if (!gate_->HasBeenNotified()) LetGo();
  }
  void LetGo() { gate_->Notify(); }

 private:
  const std::shared_ptr<absl::Notification> gate_ = std::make_shared<absl::Notification>();
};

std::string LongText() { return std::string(20'000, 'a'); }

TEST(QueuedWorkTest, ACancelledRequestIsRefusedUnreadAndCountedOnce) {
  InProcessServer server("sim:max_len=40000,blocks=2600");
  Blocker blocker(server.work_queue());
  grpc::ClientContext context;
  auto reader = server.generation->Generate(&context, TextRequest(LongText(), 5));
  ASSERT_TRUE(Eventually([&] { return server.host().num_open_calls() == 1; }));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  ASSERT_TRUE(Eventually([&] { return server.host().num_open_calls() == 0; }));
  blocker.LetGo();
  const auto page_has = [&](const char* line) {
    return server.metrics().RenderDefaultPage().find(line) != std::string::npos;
  };
  EXPECT_TRUE(Eventually([&] { return page_has("\ncadre_requests_rejected_total{reason=\"cancelled\"} 1\n"); }));
  EXPECT_TRUE(page_has("\ncadre_requests_received_total 1\n"));
  EXPECT_EQ(server.host().Snapshot().admitted_requests, 0);
}

TEST(QueuedWorkTest, ADrainedServerRefusesWhatStillWaits) {
  InProcessServer server("sim");
  Blocker blocker(server.work_queue());
  grpc::Status status;
  std::thread client([&] {
    grpc::ClientContext context;
    v1::TokenizeRequest request;
    request.set_text("hello");
    v1::TokenizeResponse response;
    status = server.generation->Tokenize(&context, request, &response);
  });
  ASSERT_TRUE(Eventually([&] { return server.work_queue().num_waiting() == 1; }));
  server.host().Stop();
  blocker.LetGo();
  client.join();
  EXPECT_EQ(ReasonOf(status), "DRAINING");
}

TEST(QueuedWorkTest, AFullWorkQueueAnswersWithARequestId) {
  InProcessServer server("sim:max_len=40000,blocks=2600");
  Blocker blocker(server.work_queue());
  ASSERT_TRUE(Eventually([&] { return server.work_queue().num_waiting() == 0; }));
  while (server.work_queue().Post([] {})) {
  }
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "mine");
  const grpc::Status status = server.generation->Generate(&context, TextRequest(LongText(), 5))->Finish();
  EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
  // Of an answer without messages, all metadata are trailers.
  const auto& initial = context.GetServerInitialMetadata();
  const auto& trailing = context.GetServerTrailingMetadata();
  EXPECT_EQ(initial.count("x-request-id") + trailing.count("x-request-id"), 1u);
  blocker.LetGo();
}

TEST(MalformedRequestTest, EveryServiceSaysWhatIsWrong) {
  InProcessServer server("sim");
  grpc::GenericStub stub(server.channel());
  const auto call = [&stub](const std::string& method, const std::string& bytes) {
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const grpc::Slice slice(bytes);
    const auto reader = stub.PrepareUnaryCall(&context, method, grpc::ByteBuffer(&slice, 1), &queue);
    reader->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    reader->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue.Next(&tag, &ok) && ok);
    return status;
  };
  for (const char* method :
       {"/cadre.v1.ExpertService/GetExpertStats", "/cadre.v1.ExpertService/ResetStats",
        "/cadre.v1.ModelService/GetModel", "/cadre.v1.ModelService/ListModels", "/cadre.v1.ModelService/GetLoad"}) {
    const grpc::Status status = call(method, "\xff");
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << method;
    EXPECT_EQ(ReasonOf(status), "MALFORMED_REQUEST") << method;
  }
  const grpc::Status status = call("/cadre.v1.ModelService/GetModel", "\x0a\x01\xff");
  ASSERT_TRUE(DetailOf<google::rpc::BadRequest>(status).has_value());
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(status)->field_violations(0).field(), "model");
}

}  // namespace
}  // namespace cadre
