#include "server/request_call.h"

#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "server/admission.h"
#include "server/errors.h"
#include "server/translate.h"

namespace cadre {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";
constexpr char kAuthorizationKey[] = "authorization";

std::string MetadataRequestId(const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(kRequestIdKey);
  return found == metadata.end() ? std::string() : std::string(found->second.data(), found->second.size());
}

// The call's deadline on the engine's clock, which wall clock changes do not move. Far ones count as none.
absl::Time EngineDeadline(const grpc::CallbackServerContext& context, const Clock& clock) {
  constexpr absl::Duration kFar = absl::Hours(24 * 365);
  const absl::Duration left = absl::FromChrono(context.deadline()) - absl::Now();
  return left > kFar ? absl::InfiniteFuture() : clock.Now() + left;
}

absl::Status RequestTimeout(absl::Duration timeout) {
  return MakeError({.code = absl::StatusCode::kDeadlineExceeded,
                    .reason = reason::kRequestTimeout,
                    .message = absl::StrCat("the request had not come whole after ", absl::FormatDuration(timeout))});
}

}  // namespace

RequestCall::RequestCall(const ServiceContext& services, grpc::CallbackServerContext* context, AnswerKind kind)
    : services_(services),
      context_(*context),
      kind_(kind),
      metadata_id_(MetadataRequestId(*context)),
      stream_(std::make_shared<TokenStream>(this, services.host, services.metrics, services.stream,
                                            EngineDeadline(*context, services.host->clock()))) {}

// The door has asked already, but the key may have been withdrawn since.
absl::Status RequestCall::FindCaller() {
  if (services_.access == nullptr) return absl::OkStatus();
  std::vector<std::string_view> authorizations;
  const auto [begin, end] = context_.client_metadata().equal_range(kAuthorizationKey);
  for (auto it = begin; it != end; ++it) authorizations.emplace_back(it->second.data(), it->second.size());
  CADRE_ASSIGN_OR_RETURN(std::string name, services_.access->CallerName(authorizations));
  stream_->SetCaller(std::move(name));
  return absl::OkStatus();
}

void RequestCall::Read() {
  if (const absl::Status status = FindCaller(); !status.ok()) {
    is_read_->store(true);
    RefuseUnreadCall(services_, *stream_, metadata_id_, status);
    return;
  }
  if (const auto charge = ChargeReading(services_, /*message_bytes=*/0); !charge.ok()) {
    is_read_->store(true);
    RefuseUnreadCall(services_, *stream_, metadata_id_, charge.status());
    return;
  }
  read_timeout_.Set(services_.request_timeout,
                    [services = services_, stream = stream_, is_read = is_read_, metadata_id = metadata_id_] {
                      if (is_read->exchange(true)) return;
                      RefuseUnreadCall(services, *stream, metadata_id, RequestTimeout(services.request_timeout));
                    });
  StartRead(&request_);
}

void RequestCall::OnReadDone(bool ok) {
  if (is_read_->exchange(true)) return;
  read_timeout_.Cancel();
  services_.host->CallOpened();
  is_counted_ = true;
  if (!ok) request_.Clear();
  AdmitRequest(services_, stream_, request_, kind_, metadata_id_);
  request_.Clear();
}

void RequestCall::OnDone() {
  stream_->Detach();
  if (is_counted_) services_.host->CallClosed();
  delete this;
}

void RequestCall::SetRequestId(const std::string& id) { context_.AddInitialMetadata(kRequestIdKey, id); }

void RequestCall::AddTrailers(const absl::Status& status, const std::optional<RequestTotals>& totals) {
  if (totals.has_value()) {
    context_.AddTrailingMetadata("server-timing", ServerTiming(totals->timings));
    context_.AddTrailingMetadata("cadre-routing-report", RoutingTrailer(totals->routing));
  }
  if (const auto delay = ErrorRetryDelay(status); delay.has_value()) {
    context_.AddTrailingMetadata("grpc-retry-pushback-ms", absl::StrCat(absl::ToInt64Milliseconds(*delay)));
  }
}

}  // namespace cadre
