// A call of a generation method on the side of gRPC: reads its request itself, so that half a request has an end, and
// one that is refused for want of memory is never taken off the connection.
#ifndef CADRE_SERVER_REQUEST_CALL_H_
#define CADRE_SERVER_REQUEST_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "server/call_alarm.h"
#include "server/services.h"
#include "server/token_stream.h"
#include "server/translate_sampling.h"

namespace cadre {

// One message comes, and as many leave as the subclass writes. Deletes itself when gRPC is done with it.
class RequestCall : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>, public ResponseWriter {
 public:
  void OnReadDone(bool ok) final;
  void OnCancel() final { stream_->OnCancel(); }
  void OnDone() final;

  void SetRequestId(const std::string& id) final;
  void SendInitialMetadata() final { StartSendInitialMetadata(); }
  void Cancel() final { context_.TryCancel(); }

 protected:
  RequestCall(const ServiceContext& services, grpc::CallbackServerContext* context, AnswerKind kind);
  ~RequestCall() override = default;

  // The last thing in the constructor of a subclass.
  void Read();
  void AddTrailers(const absl::Status& status, const std::optional<RequestTotals>& totals);
  const ServiceContext& services() const { return services_; }
  const std::shared_ptr<TokenStream>& stream() const { return stream_; }

 private:
  absl::Status FindCaller();

  const ServiceContext& services_;
  grpc::CallbackServerContext& context_;
  const AnswerKind kind_;
  const std::string metadata_id_;
  const std::shared_ptr<TokenStream> stream_;
  // Whoever sets it answers: the request that has come, or the time that is over. Outlives the call.
  const std::shared_ptr<std::atomic<bool>> is_read_ = std::make_shared<std::atomic<bool>>(false);
  CallAlarm read_timeout_;
  grpc::ByteBuffer request_;
  bool is_counted_ = false;  // as an open call, since its request came: nobody waits for half of one
};

}  // namespace cadre

#endif  // CADRE_SERVER_REQUEST_CALL_H_
