// Calls with one request and one answer.
#ifndef CADRE_SERVER_UNARY_CALL_H_
#define CADRE_SERVER_UNARY_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <functional>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "server/call_place.h"
#include "server/errors.h"
#include "server/services.h"
#include "server/single_request_call.h"
#include "server/wire.h"

namespace cadre {

// Has `method` finish it; and is cancelled when its client does not take the answer in time, as AnswerPatience says.
class UnaryCall final : public SingleRequestCall {
 public:
  // Runs on the thread that received the call, and finishes it, then or later and on any thread.
  using Method = std::function<void(UnaryCall* call)>;

  // All of these outlive the call.
  UnaryCall(const ServiceContext& services, grpc::CallbackServerContext* context, std::string_view path,
            const Method& method);

  // Once; the call may be gone when it returns. The second: `answer`, unless there is an error.
  void FinishWith(const absl::Status& error);
  void FinishWith(const absl::Status& status, const google::protobuf::Message& answer);

 private:
  void OnRequest() override { method_(this); }

  const Method& method_;
  grpc::ByteBuffer response_;
};

// Parses the request, calls absl::Status method(const Request&, Response*), and answers what came of it.
template <typename Request, typename Response, typename Method>
void AnswerNow(UnaryCall* call, const Method& method) {
  Request request;
  Response response;
  absl::Status status = ParseMessage(call->request(), &request);
  if (status.ok()) status = method(request, &response);
  call->FinishWith(status, response);
}

// The same on the work queue, for what takes so long that gRPC's few threads cannot be spared for it. The request is in
// memory until it is answered, and is charged for as long. `place`, which may be null, is given back right before the
// answer: whoever has it may call again.
template <typename Request, typename Response, typename Method>
void AnswerOnQueue(UnaryCall* call, Method method, std::shared_ptr<CallPlace> place = nullptr) {
  const ServiceContext& services = call->services();
  auto charge = ChargeReading(services, call->request().Length());
  if (!charge.ok()) return call->FinishWith(charge.status());
  const bool is_posted = services.work_queue->Post(
      [call, method = std::move(method), place = std::move(place), charge = *std::move(charge)]() mutable {
        Request request;
        Response response;
        absl::Status status = call->CheckStillWanted();
        if (status.ok()) status = ParseMessage(call->request(), &request);
        if (status.ok()) status = method(request, &response);
        charge.reset();
        place.reset();
        call->FinishWith(status, response);
      });
  if (!is_posted) call->FinishWith(WorkQueueFull(services));
}

}  // namespace cadre

#endif  // CADRE_SERVER_UNARY_CALL_H_
