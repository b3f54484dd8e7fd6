// What a server shows to prove who it is, and whom it trusts to say who callers are.
#ifndef CADRE_SERVER_TLS_FILES_H_
#define CADRE_SERVER_TLS_FILES_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace cadre {

// All in PEM.
struct TlsMaterial {
  std::string certificate_chain;  // the server's first
  std::string private_key;
  std::optional<std::string> client_ca;  // absent: clients show no certificate
};

// When the first certificate of the chain expires. INVALID_ARGUMENT begins with the flag (--tls-cert, --tls-key,
// --tls-client-ca) of what is wrong: no certificate or key in it, a key with a passphrase, or of another certificate, a
// certificate whose time is over or has not begun at `now`, or one that OpenSSL's security level does not take.
absl::StatusOr<absl::Time> CheckTlsMaterial(const TlsMaterial& material, absl::Time now);

// What new connections get. Thread-safe.
class TlsIdentity {
 public:
  void Set(TlsMaterial material);
  // Whether clients must show a certificate: constant once there is one.
  bool has_client_ca() const;
  // Null if it is still the one of `generation`, else the present one, and its generation.
  std::shared_ptr<const TlsMaterial> NewerThan(int64_t* generation) const;

 private:
  mutable std::mutex mutex_;
  int64_t generation_ = 0;
  std::shared_ptr<const TlsMaterial> material_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_TLS_FILES_H_
