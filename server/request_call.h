// A call of a generation method on the side of gRPC: reads its request itself, so that half a request has an end, and
// one that is refused for want of memory is never taken off the connection.
#ifndef CADRE_SERVER_REQUEST_CALL_H_
#define CADRE_SERVER_REQUEST_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/admission.h"
#include "server/call_alarm.h"
#include "server/call_trace.h"
#include "server/incoming_call.h"
#include "server/reading_watch.h"
#include "server/services.h"
#include "server/token_stream.h"

namespace cadre {

// One message comes, and as many leave as the subclass writes. Deletes itself when gRPC is done with it.
class RequestCall : public BytesReactor, public ResponseWriter {
 public:
  void OnReadDone(bool ok) final;
  void OnCancel() final { stream_->OnCancel(); }
  void OnDone() final;

  void SetRequestId(const std::string& id) override;
  void SendInitialMetadata() final;
  void Cancel() final { watch_->CutOff(); }

 protected:
  // `path`: "/package.Service/Method", a view of what outlives the call.
  RequestCall(const ServiceContext& services, grpc::CallbackServerContext* context, std::string_view path);
  ~RequestCall() override = default;

  // In whatever API the request is written. Asked for once, when the bytes have come.
  virtual RequestReader MakeReader() = 0;
  // The call is here, and its caller known; of the request there is nothing yet but the id in the metadata, which may
  // be empty, and which the request itself may replace.
  virtual void OnArrival(const std::string& metadata_id) { static_cast<void>(metadata_id); }
  // The last thing in the constructor of a subclass.
  void Read();
  // Before the first message, and before AddTrailers: an answer may begin before SendInitialMetadata is asked for.
  void AddInitialMetadata();
  // Once, before the call ends.
  void AddTrailers(const absl::Status& status, const std::optional<RequestTotals>& totals);
  const ServiceContext& services() const { return services_; }
  // Of a client that must take what is sent: one that it cuts off gives back what its call holds.
  ReadingWatch& watch() const { return *watch_; }
  const std::shared_ptr<TokenStream>& stream() const { return stream_; }

 private:
  void EndTrace(const absl::Status& status, const std::optional<RequestTotals>& totals);
  absl::Status FindCaller();

  const ServiceContext& services_;
  grpc::CallbackServerContext& context_;
  const std::string_view path_;
  const std::string metadata_id_;
  std::string request_id_;  // as the client is told it
  bool is_metadata_added_ = false;
  std::optional<CallTrace> trace_;  // while the call is recorded
  const std::shared_ptr<ReadingWatch> watch_;
  const std::shared_ptr<TokenStream> stream_;
  // Whoever sets it answers: the request that has come, or the time that is over. Outlives the call.
  const std::shared_ptr<std::atomic<bool>> is_read_ = std::make_shared<std::atomic<bool>>(false);
  CallAlarm read_timeout_;
  grpc::ByteBuffer request_;
  bool is_counted_ = false;  // as an open call, since its request came: nobody waits for half of one
};

}  // namespace cadre

#endif  // CADRE_SERVER_REQUEST_CALL_H_
