#include "server/single_request_call.h"

#include "engine/base/status_macros.h"
#include "server/errors.h"
#include "server/grpc_status.h"

namespace cadre {

SingleRequestCall::SingleRequestCall(const ServiceContext& services, grpc::CallbackServerContext* context,
                                     std::string_view path)
    : services_(services),
      context_(*context),
      path_(path),
      watch_(std::make_shared<ReadingWatch>(services, context, path)) {}

void SingleRequestCall::Read() {
  // Before the read, behind which the call may be gone. It is there for whoever wins.
  read_timeout_.Set(services_.request_timeout, [this, is_read = is_read_, timeout = services_.request_timeout] {
    if (!is_read->exchange(true)) Finish(ToGrpcStatus(RequestTimeout(timeout)));
  });
  StartRead(&request_);
}

void SingleRequestCall::OnReadDone(bool ok) {
  if (is_read_->exchange(true)) return;
  read_timeout_.Cancel();
  if (!ok) {
    return Finish(ToGrpcStatus(MakeError({.code = absl::StatusCode::kInvalidArgument,
                                          .reason = reason::kMalformedRequest,
                                          .message = "the call ended before its request had come"})));
  }
  // The request may have come long after the headers, by which the key was judged.
  if (const absl::Status status = CheckAccess(); !status.ok()) return Finish(ToGrpcStatus(status));
  OnRequest();
}

void SingleRequestCall::OnDone() {
  watch_->End();
  delete this;
}

absl::Status SingleRequestCall::CheckStillWanted() const {
  if (context_.IsCancelled()) return absl::CancelledError("cancelled by the client, or its deadline passed");
  CADRE_RETURN_IF_ERROR(CheckAccess());
  const ModelHost& host = *services_.host;
  return host.state() == ModelHost::State::kStopped ? host.Admit().status() : absl::OkStatus();
}

}  // namespace cadre
