// What there is to know of any call before its message is read: who calls, under which ids, and how long it is waited
// for.
#ifndef CADRE_SERVER_INCOMING_CALL_H_
#define CADRE_SERVER_INCOMING_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/request_log.h"
#include "server/services.h"

namespace cadre {

// A call of a method that reads its request itself, whatever the proto says of it: on the wire it is the same. Of a
// method with a single request the library would read that first, from anybody, and wait for it without an end.
using BytesReactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

inline constexpr char kRequestIdKey[] = "x-request-id";

// Makes a call that deletes itself when gRPC is done with it.
using CallMaker = std::function<BytesReactor*(grpc::CallbackServerContext*)>;

// The value of a header of the call; empty where the caller sent no such header.
std::string MetadataOf(const grpc::CallbackServerContext& context, const char* key);

// The name of the key that the call shows; empty where no keys are asked for. UNAUTHENTICATED.
absl::StatusOr<std::string> CallerOf(const ServiceContext& services, const grpc::CallbackServerContext& context);

// Whether the key that the call shows may still call `path`, "/package.Service/Method", as AccessControl::Check says.
absl::Status CheckAccess(const ServiceContext& services, const grpc::CallbackServerContext& context,
                         std::string_view path);

// Who called what, for the log. A key that was withdrawn meanwhile has no name any more.
CallLabels LabelsOf(const ServiceContext& services, const grpc::CallbackServerContext& context, std::string_view path);

// DEADLINE_EXCEEDED (REQUEST_TIMEOUT).
absl::Status RequestTimeout(absl::Duration timeout);

// The handler of the method `path`: asks CheckAccess of each
// call when its headers are there, answers a refusal with all its details, and reads nothing of it; else `make` makes
// the call. From now on the door leaves these calls to it. `services` must outlive the server. The service marks the
// method as streamed, and as raw with this.
grpc::internal::MethodHandler* GuardCalls(const ServiceContext& services, std::string path, CallMaker make);

}  // namespace cadre

#endif  // CADRE_SERVER_INCOMING_CALL_H_
