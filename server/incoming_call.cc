#include "server/incoming_call.h"

#include <grpcpp/generic/async_generic_service.h>

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/errors.h"
#include "server/grpc_status.h"
#include "server/request_limits.h"
#include "server/trace_context.h"

namespace cadre {
namespace {

constexpr char kAuthorizationKey[] = "authorization";

std::vector<std::string_view> Authorizations(const grpc::CallbackServerContext& context) {
  std::vector<std::string_view> authorizations;
  const auto [begin, end] = context.client_metadata().equal_range(kAuthorizationKey);
  for (auto it = begin; it != end; ++it) authorizations.emplace_back(it->second.data(), it->second.size());
  return authorizations;
}

// Ends as soon as it has begun.
class RefusedCall final : public BytesReactor {
 public:
  explicit RefusedCall(const absl::Status& status) { Finish(ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

std::string MetadataOf(const grpc::CallbackServerContext& context, const char* key) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(key);
  return found == metadata.end() ? std::string() : std::string(found->second.data(), found->second.size());
}

absl::StatusOr<std::string> CallerOf(const ServiceContext& services, const grpc::CallbackServerContext& context) {
  if (services.access == nullptr) return "";
  return services.access->CallerName(Authorizations(context));
}

absl::Status CheckAccess(const ServiceContext& services, const grpc::CallbackServerContext& context,
                         std::string_view path) {
  if (services.access == nullptr) return absl::OkStatus();
  return services.access->Check(path, Authorizations(context));
}

CallLabels LabelsOf(const ServiceContext& services, const grpc::CallbackServerContext& context, std::string_view path) {
  CallLabels labels;
  labels.method = std::string(path);
  labels.peer = context.peer();
  if (absl::StatusOr<std::string> caller = CallerOf(services, context); caller.ok()) labels.key = *std::move(caller);
  labels.request_id = MetadataOf(context, kRequestIdKey).substr(0, kMaxRequestIdBytes);
  const std::optional<TraceContext> trace = ParseTraceparent(MetadataOf(context, "traceparent"));
  if (trace) labels.trace_id = Hex(trace->trace_id);
  return labels;
}

absl::Status RequestTimeout(absl::Duration timeout) {
  return MakeError({.code = absl::StatusCode::kDeadlineExceeded,
                    .reason = reason::kRequestTimeout,
                    .message = absl::StrCat("the request had not come whole after ", absl::FormatDuration(timeout))});
}

grpc::internal::MethodHandler* GuardCalls(const ServiceContext& services, std::string path, CallMaker make) {
  if (services.access != nullptr) services.access->LeaveToHandler(path);
  return new grpc::internal::CallbackBidiHandler<grpc::ByteBuffer, grpc::ByteBuffer>(
      [&services, path = std::move(path),
       make = std::move(make)](grpc::CallbackServerContext* context) -> BytesReactor* {
        if (const absl::Status status = CheckAccess(services, *context, path); !status.ok()) {
          return new RefusedCall(status);
        }
        return make(context);
      });
}

}  // namespace cadre
