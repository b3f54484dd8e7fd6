// A call of a generation method that answers event by event, in whatever API.
#ifndef CADRE_SERVER_STREAMED_CALL_H_
#define CADRE_SERVER_STREAMED_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <deque>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "server/call_alarm.h"
#include "server/request_call.h"

namespace cadre {

class StreamedCall : public RequestCall {
 public:
  bool Write(const v1::GenerateResponse& event) final;
  void WriteLast(const v1::GenerateResponse& event, const std::optional<RequestTotals>& totals) final;
  void Finish(const absl::Status& status, const std::optional<RequestTotals>& totals) final;
  void CutOffAfter(absl::Duration patience) final;
  void OnWriteDone(bool ok) final;

 protected:
  using RequestCall::RequestCall;

  // What the client is told of an event, which may be nothing yet. One call at a time, in the order of the events.
  virtual std::vector<grpc::ByteBuffer> Encode(const v1::GenerateResponse& event) = 0;
  // Whether the answer is one, be it in several messages: who waits for it reads, and nothing of it may wait for ever.
  virtual bool IsOneAnswer() const { return false; }
  // An error in the words of the API.
  virtual absl::Status Reword(const absl::Status& status) const { return status; }

 private:
  void WriteNext();
  void WatchMessage();

  // Of whoever writes: one at a time.
  std::deque<grpc::ByteBuffer> waiting_;  // behind the one in flight, of the same event
  bool is_ending_ = false;                // nobody but this call writes or finishes any more
  grpc::ByteBuffer message_;              // in flight
  CallAlarm cut_off_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_STREAMED_CALL_H_
