#include "server/streamed_call.h"

#include <algorithm>
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
  WatchMessage();
  if (is_ending_ && waiting_.empty()) {
    StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
  } else {
    // Without a buffer hint, though a last message may follow at once: the library may keep what has one until the next
    // ping of the connection.
    StartWrite(&message_);
  }
}

// Of a stream, what the outbox may hold anyway may wait without an end. More than that is not met by the outbox's own
// limit, which it left behind; it has the time that a full outbox has, and its own.
void StreamedCall::WatchMessage() {
  size_t bytes = message_.Length();
  for (const grpc::ByteBuffer& waiting : waiting_) bytes += waiting.Length();
  if (bytes <= services().stream.max_outbox_bytes && !IsOneAnswer()) return;
  const absl::Duration timeout = services().stream.slow_reader_timeout;
  watch().Begin(timeout + MessagePatience(bytes, timeout), ReadingWatch::WhenLate::kCutOff);
}

void StreamedCall::OnWriteDone(bool ok) {
  static_cast<void>(watch().Took());  // whether it was late is the stream's to say
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
  // A large message may have more time of its own left.
  cut_off_.Set(std::max(patience, watch().TimeLeft()), [stream = stream()] { stream->CutOff(); });
}

}  // namespace cadre
