// Who may call what. Asked for every call before anything else of it is read, by server_credentials.
#ifndef CADRE_SERVER_ACCESS_CONTROL_H_
#define CADRE_SERVER_ACCESS_CONTROL_H_

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/api_keys.h"
#include "server/metrics.h"

namespace cadre {

// Thread-safe, but for what says otherwise.
class AccessControl {
 public:
  // `metrics` may be null; else it outlives this.
  AccessControl(bool operator_services, Metrics* metrics) : operator_services_(operator_services), metrics_(metrics) {}

  // From now on every call needs one of these keys; those that are open go on, but for streams without an end.
  void SetKeys(ApiKeys keys);
  bool has_keys() const { return keys() != nullptr; }

  // `authorizations`: every value of the metadata of this name. OK, or why the call is refused:
  //   UNAUTHENTICATED    no key, several, or one that is not known
  //   PERMISSION_DENIED  the key's roles are others
  //   UNIMPLEMENTED      no such method, or one that is for operators while these are off
  absl::Status Check(std::string_view path, std::span<const std::string_view> authorizations) const;

  // The question at the door, before a call has a handler. A refusal there travels without details; so calls of methods
  // whose handlers ask Check themselves pass, and get theirs from them. All others are asked here: a method that nobody
  // has handled, too.
  absl::Status CheckAtDoor(std::string_view path, std::span<const std::string_view> authorizations) const;
  // The handler of `path` asks. Before the server starts; not thread-safe.
  void LeaveToHandler(std::string path) { handled_.insert(std::move(path)); }

  // The name of the caller's key: the tenant of its requests. Empty where no keys are asked for.
  absl::StatusOr<std::string> CallerName(std::span<const std::string_view> authorizations) const;

 private:
  std::shared_ptr<const ApiKeys> keys() const;
  void Count(CallRefusal refusal) const;

  const bool operator_services_;
  Metrics* const metrics_;
  std::set<std::string, std::less<>> handled_;  // constant once the server has started
  mutable std::mutex mutex_;
  std::shared_ptr<const ApiKeys> keys_;  // null: none are asked for
};

}  // namespace cadre

#endif  // CADRE_SERVER_ACCESS_CONTROL_H_
