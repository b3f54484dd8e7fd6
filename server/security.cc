#include "server/security.h"

#include <spdlog/spdlog.h>

#include <functional>
#include <optional>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

constexpr char kKeysFlag[] = "--api-keys-file";

const char* Describe(ReloadedFile kind) {
  switch (kind) {
    case ReloadedFile::kApiKeys:
      return "API keys";
    case ReloadedFile::kTls:
      return "certificates";
  }
  return "";
}

void WarnIfReadable(const char* flag, const std::string& path) {
  if (IsReadableByAll(path)) spdlog::warn("{}: {} can be read by everybody on this machine: chmod o-r", flag, path);
}

// "--flag: problem" becomes "--flag: path: problem".
absl::Status WithPath(const absl::Status& status, const std::vector<GuardedFile>& files) {
  const std::string message(status.message());
  for (const GuardedFile& file : files) {
    if (!absl::StartsWith(message, file.flag + ": ")) continue;
    return absl::InvalidArgumentError(absl::StrCat(file.flag, ": ", file.path, message.substr(file.flag.size())));
  }
  return status;
}

// By its text: a name that the resolver might turn into a loopback address is taken for any other.
bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" || absl::StartsWith(host, "127.");
}

// Empty where there is nothing to tell.
std::string GrpcWarning(const SecurityConfig& config, const std::string& host) {
  const bool has_tls = !config.tls_cert.empty();
  const bool has_keys = !config.api_keys_file.empty();
  if (IsLoopback(host) || (has_tls && (has_keys || !config.tls_client_ca.empty()))) return "";
  if (has_tls) {
    return absl::StrCat("gRPC listens on ", host,
                        " without keys and without --tls-client-ca: whoever reaches the port can use the server");
  }
  if (has_keys) {
    return absl::StrCat("API KEYS TRAVEL IN PLAINTEXT: gRPC listens on ", host,
                        " without TLS, and whoever sees the traffic can take the keys and use them");
  }
  return absl::StrCat("gRPC listens on ", host,
                      " without TLS and without keys: whoever reaches the port can use the server");
}

}  // namespace

Security::Security(const SecurityConfig& config, Metrics* metrics)
    : metrics_(metrics), access_(std::make_shared<AccessControl>(config.operator_services, metrics)) {}

absl::StatusOr<std::unique_ptr<Security>> Security::Start(const SecurityConfig& config, Metrics* metrics) {
  auto security = absl::WrapUnique(new Security(config, metrics));
  CADRE_RETURN_IF_ERROR(security->LoadKeys(config));
  CADRE_RETURN_IF_ERROR(security->LoadTls(config));
  std::vector<std::function<void()>> polls;
  const auto add = [&polls, self = security.get()](ReloadedFile kind, WatchedFiles* files) {
    if (files != nullptr) polls.emplace_back([self, kind, files] { self->Poll(kind, *files); });
  };
  add(ReloadedFile::kApiKeys, security->key_file_.get());
  add(ReloadedFile::kTls, security->tls_files_.get());
  if (!polls.empty()) security->watch_ = std::make_unique<FileWatch>(std::move(polls), kFileWatchInterval);
  return security;
}

absl::Status Security::LoadKeys(const SecurityConfig& config) {
  if (config.api_keys_file.empty()) return absl::OkStatus();
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
  WarnIfReadable(kKeysFlag, file.path);
  metrics_->WatchFile(ReloadedFile::kApiKeys);
  metrics_->WatchCalls();
  return absl::OkStatus();
}

absl::Status Security::LoadTls(const SecurityConfig& config) {
  if (config.tls_cert.empty()) return absl::OkStatus();
  std::vector<GuardedFile> files = {{.flag = "--tls-cert", .path = config.tls_cert},
                                    {.flag = "--tls-key", .path = config.tls_key}};
  if (!config.tls_client_ca.empty()) files.push_back({.flag = "--tls-client-ca", .path = config.tls_client_ca});
  tls_ = std::make_shared<TlsIdentity>();
  tls_files_ = std::make_unique<WatchedFiles>(
      files, [tls = tls_, metrics = metrics_, files](const std::vector<std::string>& texts) {
        TlsMaterial material = {.certificate_chain = texts[0],
                                .private_key = texts[1],
                                .client_ca = texts.size() > 2 ? std::optional(texts[2]) : std::nullopt};
        const absl::StatusOr<absl::Time> expiry = CheckTlsMaterial(material, absl::Now());
        if (!expiry.ok()) return WithPath(expiry.status(), files);
        spdlog::info("TLS certificate read from {}, valid until {}", files[0].path,
                     absl::FormatTime(absl::RFC3339_sec, *expiry, absl::UTCTimeZone()));
        tls->Set(std::move(material));
        metrics->SetCertificateExpiry(*expiry);
        return absl::OkStatus();
      });
  CADRE_RETURN_IF_ERROR(tls_files_->LoadFirst());
  WarnIfReadable("--tls-key", config.tls_key);
  metrics_->WatchFile(ReloadedFile::kTls);
  return absl::OkStatus();
}

void Security::Poll(ReloadedFile kind, WatchedFiles& files) const {
  const std::optional<absl::Status> status = files.Poll();
  metrics_->SetFileWrong(kind, files.is_wrong());
  if (!status.has_value()) return;
  metrics_->OnReload(kind, status->ok());
  if (!status->ok()) {
    spdlog::error("{}; the {} of before go on", std::string(status->message()), Describe(kind));
  }
}

std::vector<std::string> SecurityWarnings(const SecurityConfig& config, const std::string& host,
                                          const std::string& metrics_host) {
  std::vector<std::string> warnings;
  if (std::string warning = GrpcWarning(config, host); !warning.empty()) warnings.push_back(std::move(warning));
  if (!IsLoopback(metrics_host)) {
    warnings.push_back(absl::StrCat("HTTP listens on ", metrics_host,
                                    " in plaintext and asks for no key: whoever reaches the port reads load, names of "
                                    "tenants and, on /experts, which kinds of tokens are served"));
  }
  return warnings;
}

}  // namespace cadre
