#include "server/unary_call.h"

#include "server/grpc_status.h"

namespace cadre {

UnaryCall::UnaryCall(const ServiceContext& services, grpc::CallbackServerContext* context, std::string_view path,
                     const Method& method)
    : SingleRequestCall(services, context, path), method_(method) {
  Read();
}

void UnaryCall::FinishWith(const absl::Status& error) {
  ReleaseRequest();
  Finish(ToGrpcStatus(error));
}

void UnaryCall::FinishWith(const absl::Status& status, const google::protobuf::Message& answer) {
  if (!status.ok()) return FinishWith(status);
  ReleaseRequest();
  response_ = SerializeMessage(answer);
  watch().Begin(AnswerPatience(response_.Length(), services().stream), ReadingWatch::WhenLate::kCutOff);
  StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
}

}  // namespace cadre
