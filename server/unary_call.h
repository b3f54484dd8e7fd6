// Answers to unary calls.
#ifndef CADRE_SERVER_UNARY_CALL_H_
#define CADRE_SERVER_UNARY_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "absl/status/status.h"
#include "server/errors.h"
#include "server/grpc_status.h"
#include "server/model_host.h"
#include "server/wire.h"

namespace cadre {

inline grpc::ServerUnaryReactor* AnswerStatus(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

// On the thread that received the call: parses `bytes`, calls absl::Status method(const Request&, Response*), and
// answers what came of it.
template <typename Request, typename Response, typename Method>
grpc::ServerUnaryReactor* AnswerNow(grpc::CallbackServerContext* context, const grpc::ByteBuffer& bytes,
                                    grpc::ByteBuffer* response, const Method& method) {
  Request request;
  Response message;
  absl::Status status = ParseMessage(bytes, &request);
  if (status.ok()) status = method(request, &message);
  if (status.ok()) *response = SerializeMessage(message);
  return AnswerStatus(context, status);
}

// Of a unary call whose turn has come: whether anybody still waits for its answer, and a model may give it.
inline absl::Status CheckStillWanted(const ModelHost& host, const grpc::CallbackServerContext& context) {
  if (context.IsCancelled()) return absl::CancelledError("cancelled by the client, or its deadline passed");
  return host.state() == ModelHost::State::kStopped ? host.Admit().status() : absl::OkStatus();
}

}  // namespace cadre

#endif  // CADRE_SERVER_UNARY_CALL_H_
