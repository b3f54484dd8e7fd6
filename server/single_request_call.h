// A call of any method with one request, which it reads itself, so that half a request has an end.
#ifndef CADRE_SERVER_SINGLE_REQUEST_CALL_H_
#define CADRE_SERVER_SINGLE_REQUEST_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "server/call_alarm.h"
#include "server/incoming_call.h"
#include "server/reading_watch.h"
#include "server/services.h"

namespace cadre {

// Ends with DEADLINE_EXCEEDED (REQUEST_TIMEOUT) where its request has not come within `services.request_timeout`, and
// with CheckAccess's error where its key was withdrawn meanwhile. Deletes itself when gRPC is done with it.
class SingleRequestCall : public BytesReactor {
 public:
  const ServiceContext& services() const { return services_; }
  const grpc::CallbackServerContext& context() const { return context_; }
  // From OnRequest until ReleaseRequest.
  const grpc::ByteBuffer& request() const { return request_; }

  // Of a call whose turn has come only now: whether anybody still waits for its answer and may have it, and a model may
  // give it.
  absl::Status CheckStillWanted() const;

  void OnReadDone(bool ok) final;
  void OnDone() override;

 protected:
  // `services`, and what `path`, "/package.Service/Method", is a view of, outlive the call.
  SingleRequestCall(const ServiceContext& services, grpc::CallbackServerContext* context, std::string_view path);
  ~SingleRequestCall() override = default;

  // The last thing in the constructor of a subclass.
  void Read();
  // The request is here. On one of gRPC's threads.
  virtual void OnRequest() = 0;
  // An answer may wait for its client, and nobody needs its request for that.
  void ReleaseRequest() { request_.Clear(); }
  ReadingWatch& watch() const { return *watch_; }
  absl::Status CheckAccess() const { return cadre::CheckAccess(services_, context_, path_); }

 private:
  const ServiceContext& services_;
  grpc::CallbackServerContext& context_;
  const std::string_view path_;
  const std::shared_ptr<ReadingWatch> watch_;
  // Whoever sets it goes on with the call: the request that has come, or the time that is over. Outlives the call.
  const std::shared_ptr<std::atomic<bool>> is_read_ = std::make_shared<std::atomic<bool>>(false);
  CallAlarm read_timeout_;
  grpc::ByteBuffer request_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_SINGLE_REQUEST_CALL_H_
