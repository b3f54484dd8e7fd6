#include "server/security.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

constexpr char kKeysFlag[] = "--api-keys-file";

const char* Describe(ReloadedFile kind) {
  switch (kind) {
    case ReloadedFile::kApiKeys:
      return "API keys";
  }
  return "";
}

// By its text: a name that the resolver might turn into a loopback address is taken for any other.
bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" || absl::StartsWith(host, "127.");
}

}  // namespace

Security::Security(const SecurityConfig& config, Metrics* metrics)
    : metrics_(metrics), access_(std::make_shared<AccessControl>(config.operator_services, metrics)) {}

absl::StatusOr<std::unique_ptr<Security>> Security::Start(const SecurityConfig& config, Metrics* metrics) {
  auto security = absl::WrapUnique(new Security(config, metrics));
  CADRE_RETURN_IF_ERROR(security->Load(config));
  return security;
}

absl::Status Security::Load(const SecurityConfig& config) {
  std::vector<std::function<void()>> polls;
  if (!config.api_keys_file.empty()) {
    const GuardedFile file = {.flag = kKeysFlag, .path = config.api_keys_file, .max_bytes = kMaxApiKeyFileBytes};
    key_file_ = std::make_unique<WatchedFiles>(
        std::vector<GuardedFile>{file}, [access = access_, path = file.path](const std::vector<std::string>& texts) {
          absl::StatusOr<ApiKeys> keys = ApiKeys::Parse(texts.front());
          if (!keys.ok()) {
            return absl::InvalidArgumentError(
                absl::StrCat(kKeysFlag, ": ", path, ": ", std::string(keys.status().message())));
          }
          spdlog::info("{} API keys read from {}", keys->size(), path);
          access->SetKeys(*std::move(keys));
          return absl::OkStatus();
        });
    CADRE_RETURN_IF_ERROR(key_file_->LoadFirst());
    if (IsReadableByAll(file.path)) {
      spdlog::warn("{}: {} can be read by everybody on this machine: chmod o-r", kKeysFlag, file.path);
    }
    metrics_->WatchFile(ReloadedFile::kApiKeys);
    metrics_->WatchCalls();
    polls.emplace_back([this] { Poll(ReloadedFile::kApiKeys, *key_file_); });
  }
  if (!polls.empty()) watch_ = std::make_unique<FileWatch>(std::move(polls), kFileWatchInterval);
  return absl::OkStatus();
}

void Security::Poll(ReloadedFile kind, WatchedFiles& files) const {
  const std::optional<absl::Status> status = files.Poll();
  if (!status.has_value()) return;
  metrics_->OnReload(kind, status->ok());
  if (!status->ok()) {
    spdlog::error("{}; the {} of before go on", std::string(status->message()), Describe(kind));
  }
}

std::vector<std::string> SecurityWarnings(const SecurityConfig& config, const std::string& host) {
  std::vector<std::string> warnings;
  if (IsLoopback(host)) return warnings;
  if (!config.api_keys_file.empty()) {
    warnings.push_back(absl::StrCat("API KEYS TRAVEL IN PLAINTEXT: gRPC listens on ", host,
                                    " without TLS, and whoever sees the traffic can take the keys and use them"));
  } else {
    warnings.push_back(absl::StrCat("gRPC listens on ", host,
                                    " without TLS and without keys: whoever reaches the port can use the server"));
  }
  return warnings;
}

}  // namespace cadre
