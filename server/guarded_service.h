// A service that asks by itself who may call its methods.
#ifndef CADRE_SERVER_GUARDED_SERVICE_H_
#define CADRE_SERVER_GUARDED_SERVICE_H_

#include <google/protobuf/descriptor.h>
#include <grpcpp/server_context.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "server/incoming_call.h"
#include "server/services.h"
#include "server/unary_call.h"

namespace cadre {

// `Api` is generated: v1::ModelService. A method that is handled by none of these is UNIMPLEMENTED, and stays the
// door's.
template <typename Api>
class GuardedService : public Api::Service {
 protected:
  explicit GuardedService(const ServiceContext& services) : services_(services) {}
  ~GuardedService() override = default;

  const ServiceContext& services() const { return services_; }

  // In the constructor: the calls of a method, by its name in the proto.
  void Handle(const char* name, CallMaker make) {
    const auto* const service =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(Api::service_full_name());
    const auto* const method = service->FindMethodByName(name);
    CADRE_CHECK(method != nullptr);
    this->MarkMethodStreamed(method->index(), nullptr);
    this->MarkMethodRawCallback(method->index(), GuardCalls(services_, PathOf(name), std::move(make)));
  }
  void HandleUnary(const char* name, UnaryCall::Method method) {
    Handle(name, [this, path = PathOf(name), method = std::move(method)](grpc::CallbackServerContext* context) {
      return new UnaryCall(services_, context, path, method);
    });
  }
  // Of one that is answered at once, by absl::Status answer(const Request&, Response*).
  template <typename Request, typename Response, typename Answer>
  void HandleNow(const char* name, Answer answer) {
    HandleUnary(name, [answer = std::move(answer)](UnaryCall* call) { AnswerNow<Request, Response>(call, answer); });
  }
  static std::string PathOf(const char* name) { return absl::StrCat("/", Api::service_full_name(), "/", name); }

 private:
  const ServiceContext services_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_GUARDED_SERVICE_H_
