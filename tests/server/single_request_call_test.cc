// When calls ask whether their key still holds: whoever has sent its headers in time could otherwise act as long after
// as it may take for a request.
#include "server/single_request_call.h"

#include <gtest/gtest.h>

#include <memory>

#include "server/request_call.h"
#include "tests/server/token_stream_fixture.h"

namespace cadre {
namespace {

// Bound to no connection: its request is here when the test says so.
class RecordingCall final : public SingleRequestCall {
 public:
  RecordingCall(const ServiceContext& services, grpc::CallbackServerContext* context, int* num_requests)
      : SingleRequestCall(services, context, "/cadre.v1.ExpertService/ResetStats"), num_requests_(*num_requests) {}

 private:
  void OnRequest() override { ++num_requests_; }

  int& num_requests_;
};

class RecordingGeneration final : public RequestCall {
 public:
  RecordingGeneration(const ServiceContext& services, grpc::CallbackServerContext* context, int* num_requests)
      : RequestCall(services, context, "/cadre.v1.GenerationService/Generate"), num_requests_(*num_requests) {}

  bool Write(const v1::GenerateResponse&) override { return true; }
  void WriteLast(const v1::GenerateResponse&, const std::optional<RequestTotals>&) override {}
  void Finish(const absl::Status&, const std::optional<RequestTotals>&) override {}

 private:
  RequestReader MakeReader() override {
    ++num_requests_;
    return [](const grpc::ByteBuffer&, IncomingRequest*) { return absl::CancelledError(); };
  }

  int& num_requests_;
};

template <typename Call>
int NumRequestsAfter(bool is_withdrawn) {
  ModelHost host("m", std::make_shared<ManualClock>(), nullptr);
  AccessControl access(/*operator_services=*/true, nullptr);
  const ServiceContext services{.host = &host, .stream = {}, .access = &access};
  grpc::CallbackServerContext context;
  int num_requests = 0;
  auto* const call = new Call(services, &context, &num_requests);
  if (is_withdrawn) access.SetKeys(*ApiKeys::Parse("other operator secret-of-other-12345"));
  call->OnReadDone(true);
  call->OnDone();
  return num_requests;
}

TEST(SingleRequestCallTest, AKeyThatIsWithdrawnBeforeTheRequestIsHereIsWorthNothing) {
  EXPECT_EQ(NumRequestsAfter<RecordingCall>(/*is_withdrawn=*/false), 1);
  EXPECT_EQ(NumRequestsAfter<RecordingCall>(/*is_withdrawn=*/true), 0);
  EXPECT_EQ(NumRequestsAfter<RecordingGeneration>(/*is_withdrawn=*/false), 1);
  EXPECT_EQ(NumRequestsAfter<RecordingGeneration>(/*is_withdrawn=*/true), 0);
}

}  // namespace
}  // namespace cadre
