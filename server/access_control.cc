#include "server/access_control.h"

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "server/errors.h"
#include "server/method_roles.h"

namespace cadre {
namespace {

absl::Status Unauthenticated(std::string message) {
  return MakeError(
      {.code = absl::StatusCode::kUnauthenticated, .reason = reason::kUnauthenticated, .message = std::move(message)});
}

// The one secret that the caller shows.
absl::StatusOr<std::string_view> ShownSecret(std::span<const std::string_view> authorizations) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorizations.empty()) {
    return Unauthenticated("this server asks for an API key: send the metadata \"authorization: Bearer KEY\"");
  }
  if (authorizations.size() > 1) return Unauthenticated("the metadata authorization is there more than once");
  const std::string_view value = authorizations.front();
  if (!absl::EqualsIgnoreCase(std::string(value.substr(0, kScheme.size())), std::string(kScheme))) {
    return Unauthenticated("the metadata authorization is not \"Bearer KEY\"");
  }
  return value.substr(kScheme.size());
}

absl::Status UnknownMethod(std::string_view path) {
  return MakeError({.code = absl::StatusCode::kUnimplemented,
                    .reason = reason::kUnsupportedMethod,
                    .message = absl::StrCat("no method ", Excerpt(path))});
}

}  // namespace

void AccessControl::SetKeys(ApiKeys keys) {
  auto next = std::make_shared<const ApiKeys>(std::move(keys));
  const std::lock_guard lock(mutex_);
  keys_.swap(next);
}

std::shared_ptr<const ApiKeys> AccessControl::keys() const {
  const std::lock_guard lock(mutex_);
  return keys_;
}

void AccessControl::Count(CallRefusal refusal) const {
  if (metrics_ != nullptr) metrics_->OnCallRefused(refusal);
}

absl::Status AccessControl::Check(std::string_view path, std::span<const std::string_view> authorizations) const {
  if (path.starts_with(kHealthPrefix)) return absl::OkStatus();
  const std::optional<MethodRole> method = FindMethodRole(path);
  if (const std::shared_ptr<const ApiKeys> keys = this->keys(); keys != nullptr) {
    const absl::StatusOr<std::string_view> secret = ShownSecret(authorizations);
    if (!secret.ok()) {
      Count(CallRefusal::kNoKey);
      return secret.status();
    }
    const ApiKey* const key = keys->Match(*secret);
    if (key == nullptr) {
      Count(CallRefusal::kUnknownKey);
      return Unauthenticated("the API key is not known");
    }
    if (!method.has_value()) return UnknownMethod(path);
    if ((key->roles & method->roles) == 0) {
      Count(CallRefusal::kRole);
      return MakeError({.code = absl::StatusCode::kPermissionDenied,
                        .reason = reason::kRoleMissing,
                        .message = absl::StrCat(std::string(method->path), " needs the role ", RoleNames(method->roles),
                                                ", which the key of ", key->name, " does not have")});
    }
  }
  if (!method.has_value()) return UnknownMethod(path);
  if (method->is_operators && !operator_services_) {
    Count(CallRefusal::kOperatorsOff);
    return MakeError({.code = absl::StatusCode::kUnimplemented,
                      .reason = reason::kOperatorsOff,
                      .message = absl::StrCat(std::string(method->path),
                                              " is for operators, and off: start the server with "
                                              "--enable-operator-services")});
  }
  return absl::OkStatus();
}

absl::Status AccessControl::CheckAtDoor(std::string_view path, std::span<const std::string_view> authorizations) const {
  if (handled_.contains(path)) return absl::OkStatus();
  CADRE_RETURN_IF_ERROR(Check(path, authorizations));
  if (!path.starts_with(kVllmEnginePrefix)) return absl::OkStatus();
  return MakeError(
      {.code = absl::StatusCode::kUnimplemented,
       .reason = reason::kUnsupportedMethod,
       .message = absl::StrCat(std::string(path), " is off: start the server with --enable-vllm-engine-api")});
}

absl::StatusOr<std::string> AccessControl::CallerName(std::span<const std::string_view> authorizations) const {
  const std::shared_ptr<const ApiKeys> keys = this->keys();
  if (keys == nullptr) return std::string();
  CADRE_ASSIGN_OR_RETURN(const std::string_view secret, ShownSecret(authorizations));
  const ApiKey* const key = keys->Match(secret);
  if (key == nullptr) return Unauthenticated("the API key is not known");
  return key->name;
}

}  // namespace cadre
