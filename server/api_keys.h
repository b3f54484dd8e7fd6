// The keys that callers show, and what each of them may do. docs/security.md describes the file.
#ifndef CADRE_SERVER_API_KEYS_H_
#define CADRE_SERVER_API_KEYS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace cadre {

// What a key is good for: bits, of which a key has one or more.
enum Role : uint8_t {
  kRoleGeneration = 1,   // generate, tokenize
  kRoleExpertsRead = 2,  // statistics of experts, of tenants and of the cache
  kRoleOperator = 4,     // change what is served to everybody
};
inline constexpr uint8_t kAnyRole = kRoleGeneration | kRoleExpertsRead | kRoleOperator;

// "generation", "operator or experts-read": for messages.
std::string RoleNames(uint8_t roles);

inline constexpr size_t kMaxApiKeys = 1024;
inline constexpr size_t kMaxApiKeyFileBytes = 1 << 20;
inline constexpr size_t kMinApiSecretBytes = 16;
inline constexpr size_t kMaxApiSecretBytes = 512;
inline constexpr size_t kMaxApiKeyNameBytes = 64;

using Sha256Digest = std::array<uint8_t, 32>;
Sha256Digest Sha256(std::string_view bytes);

struct ApiKey {
  std::string name;  // the tenant of whoever shows it
  uint8_t roles = 0;
  Sha256Digest digest = {};  // of the secret, which is kept nowhere
};

// Constant once made: any thread.
class ApiKeys {
 public:
  // One key a line: NAME ROLES SECRET, or sha256:HEX for the secret; `#` begins a comment. INVALID_ARGUMENT names the
  // line, what is wrong and the limit, and never tells a secret. A name may have several keys of the same roles, so
  // that a secret can be replaced in two steps. No key at all is an error: it would lock everybody out.
  static absl::StatusOr<ApiKeys> Parse(std::string_view text);

  // The key with this secret, or null. How long it takes does not depend on which keys there are but on their number:
  // digests are compared, and all of them.
  const ApiKey* Match(std::string_view secret) const;

  size_t size() const { return keys_.size(); }

 private:
  std::vector<ApiKey> keys_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_API_KEYS_H_
