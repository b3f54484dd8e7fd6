#include "server/streamed_call.h"

#include <utility>

#include "server/grpc_status.h"

namespace cadre {

bool StreamedCall::Write(const v1::GenerateResponse& event) {
  for (grpc::ByteBuffer& message : Encode(event)) waiting_.push_back(std::move(message));
  if (waiting_.empty()) return true;
  WriteNext();
  return false;
}

void StreamedCall::WriteLast(const v1::GenerateResponse& event, const std::optional<RequestTotals>& totals) {
  for (grpc::ByteBuffer& message : Encode(event)) waiting_.push_back(std::move(message));
  if (waiting_.empty()) {
    Finish(absl::OkStatus(), totals);
    return;
  }
  is_ending_ = true;
  AddInitialMetadata();
  AddTrailers(absl::OkStatus(), totals);
  WriteNext();
}

void StreamedCall::WriteNext() {
  AddInitialMetadata();
  message_ = waiting_.front();
  waiting_.pop_front();
  if (is_ending_ && waiting_.empty()) {
    CutOffUnread(message_.Length());
    StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
  } else {
    // Without a buffer hint, though a last message may follow at once: the library may keep what has one until the next
    // ping of the connection.
    StartWrite(&message_);
  }
}

void StreamedCall::OnWriteDone(bool ok) {
  if (ok && !waiting_.empty()) {
    stream()->OnPartTaken();
    WriteNext();
  } else if (is_ending_) {
    ServerBidiReactor::Finish(grpc::Status::CANCELLED);
  } else {
    waiting_.clear();
    stream()->OnWriteDone(ok);
  }
}

void StreamedCall::Finish(const absl::Status& status, const std::optional<RequestTotals>& totals) {
  AddTrailers(status, totals);
  ServerBidiReactor::Finish(ToGrpcStatus(Reword(status)));
}

void StreamedCall::CutOffAfter(absl::Duration patience) {
  cut_off_.Set(patience, [stream = stream()] { stream->CutOff(); });
}

}  // namespace cadre
