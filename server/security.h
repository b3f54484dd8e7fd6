// What the server was told about its security, put to work: the files are read, watched, and their changes logged.
#ifndef CADRE_SERVER_SECURITY_H_
#define CADRE_SERVER_SECURITY_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/access_control.h"
#include "server/metrics.h"
#include "server/security_flags.h"
#include "server/tls_files.h"
#include "server/watched_files.h"

namespace cadre {

// How soon a changed file holds; one that is wrong is told of after twice as long.
inline constexpr absl::Duration kFileWatchInterval = absl::Seconds(1);

class Security {
 public:
  // INVALID_ARGUMENT names the flag, the path and what is wrong. `metrics` outlives this.
  static absl::StatusOr<std::unique_ptr<Security>> Start(const SecurityConfig& config, Metrics* metrics);
  Security(const Security&) = delete;
  Security& operator=(const Security&) = delete;

  const std::shared_ptr<AccessControl>& access() const { return access_; }
  // Null for plaintext.
  const std::shared_ptr<TlsIdentity>& tls() const { return tls_; }

 private:
  Security(const SecurityConfig& config, Metrics* metrics);
  absl::Status LoadKeys(const SecurityConfig& config);
  absl::Status LoadTls(const SecurityConfig& config);
  void Poll(ReloadedFile kind, WatchedFiles& files) const;

  Metrics* const metrics_;
  const std::shared_ptr<AccessControl> access_;
  std::shared_ptr<TlsIdentity> tls_;
  std::unique_ptr<WatchedFiles> key_file_;
  std::unique_ptr<WatchedFiles> tls_files_;
  std::unique_ptr<FileWatch> watch_;  // the last: it uses all of the above
};

// What an operator should know about who can reach the ports of gRPC and of HTTP, one sentence each.
std::vector<std::string> SecurityWarnings(const SecurityConfig& config, const std::string& host,
                                          const std::string& metrics_host);

}  // namespace cadre

#endif  // CADRE_SERVER_SECURITY_H_
