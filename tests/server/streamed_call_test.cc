#include "server/streamed_call.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "server/wire.h"
#include "tests/server/token_stream_fixture.h"

namespace cadre {
namespace {

// Sends each event as two messages. Bound to no connection: a message is taken when the test says so.
class TwofoldCall final : public StreamedCall {
 public:
  TwofoldCall(const ServiceContext& services, grpc::CallbackServerContext* context)
      : StreamedCall(services, context, "/test.Service/Method") {}
  using RequestCall::stream;
  int num_events() const { return num_events_; }

 private:
  RequestReader MakeReader() override {
    return [](const grpc::ByteBuffer&, IncomingRequest*) { return absl::OkStatus(); };
  }
  std::vector<grpc::ByteBuffer> Encode(const v1::GenerateResponse& event) override {
    ++num_events_;
    return {SerializeMessage(event), SerializeMessage(event)};
  }

  int num_events_ = 0;
};

TEST(StreamedCallTest, EachMessageOfAnEventThatIsTakenIsProgress) {
  ModelHost host("m", std::make_shared<ManualClock>(), nullptr);
  const ServiceContext services{.host = &host,
                                .stream = {.max_outbox_bytes = 100, .slow_reader_timeout = absl::Hours(1)}};
  grpc::CallbackServerContext context;
  auto* const call = new TwofoldCall(services, &context);
  const std::shared_ptr<TokenStream> stream = call->stream();
  stream->OnStarted({});
  stream->OnTokens({.text = std::string(200, 'x'), .token_ids = {1}});
  FinishSummary summary;
  summary.reason = FinishReason::kLength;
  stream->OnFinish(std::move(summary));
  EXPECT_EQ(call->num_events(), 1);
  call->OnWriteDone(true);  // half of the first event
  // Would drop what waits, and cancel a call that has no connection, which ends the test.
  stream->CutOff();
  call->OnWriteDone(true);
  EXPECT_EQ(call->num_events(), 2);
  call->OnDone();
}

}  // namespace
}  // namespace cadre
