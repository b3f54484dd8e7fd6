#include "server/errors.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/base/strings.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/proto_time.h"

namespace cadre {
namespace {

constexpr char kPayloadUrl[] = "type.googleapis.com/google.rpc.Status";
constexpr size_t kMaxExcerptBytes = 64;

std::optional<google::rpc::Status> DetailsOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return std::nullopt;
  google::rpc::Status details;
  if (!details.ParseFromString(std::string(*payload))) return std::nullopt;
  return details;
}

template <typename Detail>
std::optional<Detail> FindDetail(const absl::Status& status) {
  const auto details = DetailsOf(status);
  if (!details.has_value()) return std::nullopt;
  for (const google::protobuf::Any& any : details->details()) {
    Detail detail;
    if (any.Is<Detail>() && any.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

google::rpc::ErrorInfo MakeErrorInfo(std::string_view reason) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(std::string(kErrorDomain));
  return info;
}

// Cuts where a UTF-8 character begins.
std::string Truncate(std::string text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  size_t cut = max_bytes - 3;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0u) == 0x80u) --cut;
  return text.substr(0, cut) + "...";
}

}  // namespace

absl::Status MakeError(ErrorSpec spec) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info = MakeErrorInfo(spec.reason);
  for (auto& [key, value] : spec.metadata) (*info.mutable_metadata())[key] = value;
  details.add_details()->PackFrom(info);
  if (spec.retry_delay.has_value()) {
    google::rpc::RetryInfo retry;
    *retry.mutable_retry_delay() = ToProto(*spec.retry_delay);
    details.add_details()->PackFrom(retry);
  }
  if (!spec.resource_type.empty()) {
    google::rpc::ResourceInfo resource;
    resource.set_resource_type(spec.resource_type);
    resource.set_resource_name(spec.resource_name);
    resource.set_description(spec.message);
    details.add_details()->PackFrom(resource);
  }

  std::string message = std::move(spec.message);
  if (!spec.violations.empty()) {
    google::rpc::BadRequest bad_request;
    size_t bytes = details.ByteSizeLong() + kMaxErrorMessageBytes;
    size_t told = 0;
    for (const FieldViolation& violation : spec.violations) {
      bytes += violation.field.size() + violation.description.size() + 8;
      if (told > 0 && bytes > kMaxErrorDetailBytes) break;
      auto* wire = bad_request.add_field_violations();
      wire->set_field(violation.field);
      wire->set_description(Truncate(violation.description, kMaxErrorMessageBytes));
      ++told;
    }
    if (told < spec.violations.size()) absl::StrAppend(&message, " (and ", spec.violations.size() - told, " more)");
    details.add_details()->PackFrom(bad_request);
  }
  message = Truncate(std::move(message), kMaxErrorMessageBytes);
  details.set_code(static_cast<int32_t>(spec.code));
  details.set_message(message);

  absl::Status status(spec.code, message);
  status.SetPayload(kPayloadUrl, absl::Cord(details.SerializeAsString()));
  return status;
}

absl::Status InvalidField(std::string field, std::string description, std::string_view reason) {
  ErrorSpec spec{.code = absl::StatusCode::kInvalidArgument, .reason = reason};
  spec.message = absl::StrCat(field, ": ", description);
  spec.metadata.emplace_back("field", field);
  spec.violations.push_back({std::move(field), std::move(description)});
  return MakeError(std::move(spec));
}

absl::Status RenameFields(const absl::Status& status, const std::function<std::string(std::string_view)>& rename) {
  auto details = DetailsOf(status);
  if (!details.has_value()) return status;
  std::string message(status.message());
  for (google::protobuf::Any& any : *details->mutable_details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad_request;
    if (any.Is<google::rpc::ErrorInfo>() && any.UnpackTo(&info)) {
      const auto field = info.mutable_metadata()->find("field");
      if (field == info.mutable_metadata()->end()) continue;
      const std::string name = rename(field->second);
      // Messages about a field begin with it.
      if (message.starts_with(field->second)) message.replace(0, field->second.size(), name);
      field->second = name;
      any.PackFrom(info);
    } else if (any.Is<google::rpc::BadRequest>() && any.UnpackTo(&bad_request)) {
      for (auto& violation : *bad_request.mutable_field_violations()) violation.set_field(rename(violation.field()));
      any.PackFrom(bad_request);
    }
  }
  details->set_message(message);
  absl::Status renamed(status.code(), message);
  renamed.SetPayload(kPayloadUrl, absl::Cord(details->SerializeAsString()));
  return renamed;
}

absl::Status UnsupportedMethod(std::string_view method) {
  ErrorSpec spec{.code = absl::StatusCode::kUnimplemented, .reason = reason::kUnsupportedMethod};
  spec.message = absl::StrCat(ToAbsl(method), " is not supported by this release");
  spec.metadata.emplace_back("method", std::string(method));
  return MakeError(std::move(spec));
}

std::string ErrorReason(const absl::Status& status) {
  const auto info = FindDetail<google::rpc::ErrorInfo>(status);
  return info.has_value() ? info->reason() : std::string();
}

std::optional<absl::Duration> ErrorRetryDelay(const absl::Status& status) {
  const auto retry = FindDetail<google::rpc::RetryInfo>(status);
  if (!retry.has_value()) return std::nullopt;
  return FromProto(retry->retry_delay());
}

google::rpc::Status ToWireStatus(const absl::Status& status) {
  if (auto details = DetailsOf(status); details.has_value()) return *std::move(details);
  google::rpc::Status details;
  details.set_code(static_cast<int32_t>(status.code()));
  if (status.ok()) return details;
  const bool is_ours = status.code() == absl::StatusCode::kInternal || status.code() == absl::StatusCode::kUnknown;
  details.set_message(is_ours ? "internal error; the server's log tells more"
                              : Truncate(std::string(status.message()), kMaxErrorMessageBytes));
  details.add_details()->PackFrom(MakeErrorInfo(absl::StatusCodeToString(status.code())));
  return details;
}

std::string Excerpt(std::string_view value) {
  const bool is_cut = value.size() > kMaxExcerptBytes;
  return absl::StrCat("\"", absl::CHexEscape(ToAbsl(value.substr(0, kMaxExcerptBytes))), is_cut ? "...\"" : "\"");
}

}  // namespace cadre
