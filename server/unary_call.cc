#include "server/unary_call.h"

#include <mutex>

#include "server/errors.h"
#include "server/grpc_status.h"

namespace cadre {

struct UnaryCall::Link {
  std::mutex mutex;
  grpc::CallbackServerContext* context;  // null once the call is gone
};

UnaryCall::UnaryCall(const ServiceContext& services, grpc::CallbackServerContext* context, const Method& method)
    : services_(services), context_(*context), method_(method), link_(std::make_shared<Link>()) {
  link_->context = context;
  // Before the read, behind which the call may be gone. It is there for whoever wins.
  read_timeout_.Set(services.request_timeout, [this, is_read = is_read_, timeout = services.request_timeout] {
    if (!is_read->exchange(true)) FinishWith(RequestTimeout(timeout));
  });
  StartRead(&request_);
}

void UnaryCall::OnReadDone(bool ok) {
  if (is_read_->exchange(true)) return;
  read_timeout_.Cancel();
  if (ok) return method_(this);
  FinishWith(MakeError({.code = absl::StatusCode::kInvalidArgument,
                        .reason = reason::kMalformedRequest,
                        .message = "the call ended before its request had come"}));
}

void UnaryCall::OnDone() {
  {
    const std::lock_guard lock(link_->mutex);
    link_->context = nullptr;
  }
  delete this;
}

void UnaryCall::FinishWith(const absl::Status& error) { Finish(ToGrpcStatus(error)); }

void UnaryCall::FinishWith(const absl::Status& status, const google::protobuf::Message& answer) {
  if (!status.ok()) return FinishWith(status);
  response_ = SerializeMessage(answer);
  const absl::Duration patience = AnswerPatience(response_.Length(), services_.stream);
  if (patience != absl::InfiniteDuration()) {
    unread_.Set(patience, [link = link_] {
      const std::lock_guard lock(link->mutex);
      if (link->context != nullptr) link->context->TryCancel();
    });
  }
  StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
}

}  // namespace cadre
