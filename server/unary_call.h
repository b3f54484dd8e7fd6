// Calls with one request and one answer.
#ifndef CADRE_SERVER_UNARY_CALL_H_
#define CADRE_SERVER_UNARY_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "server/call_alarm.h"
#include "server/incoming_call.h"
#include "server/model_host.h"
#include "server/services.h"
#include "server/wire.h"

namespace cadre {

// Reads its request within `services.request_timeout`, else DEADLINE_EXCEEDED (REQUEST_TIMEOUT); has `method` finish
// it; and is cancelled when its client does not take the answer in time, as AnswerPatience says. Deletes itself when
// gRPC is done with it.
class UnaryCall final : public BytesReactor {
 public:
  // Runs on the thread that received the call, and finishes it, then or later and on any thread.
  using Method = std::function<void(UnaryCall* call)>;

  // Both outlive the call.
  UnaryCall(const ServiceContext& services, grpc::CallbackServerContext* context, const Method& method);

  // Until the call is finished.
  const grpc::ByteBuffer& request() const { return request_; }
  const grpc::CallbackServerContext& context() const { return context_; }

  // Once; the call may be gone when it returns. The second: `answer`, unless there is an error.
  void FinishWith(const absl::Status& error);
  void FinishWith(const absl::Status& status, const google::protobuf::Message& answer);

  void OnReadDone(bool ok) override;
  void OnDone() override;

 private:
  // What the alarm has of a call that may be gone.
  struct Link;

  const ServiceContext& services_;
  grpc::CallbackServerContext& context_;
  const Method& method_;
  const std::shared_ptr<Link> link_;
  // Whoever sets it goes on with the call: the request that has come, or the time that is over. Outlives the call.
  const std::shared_ptr<std::atomic<bool>> is_read_ = std::make_shared<std::atomic<bool>>(false);
  CallAlarm read_timeout_;
  CallAlarm unread_;
  grpc::ByteBuffer request_;
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

// Of a call whose turn has come: whether anybody still waits for its answer, and a model may give it.
inline absl::Status CheckStillWanted(const ModelHost& host, const grpc::CallbackServerContext& context) {
  if (context.IsCancelled()) return absl::CancelledError("cancelled by the client, or its deadline passed");
  return host.state() == ModelHost::State::kStopped ? host.Admit().status() : absl::OkStatus();
}

}  // namespace cadre

#endif  // CADRE_SERVER_UNARY_CALL_H_
