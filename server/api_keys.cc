#include "server/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

constexpr std::string_view kHashPrefix = "sha256:";
constexpr std::pair<std::string_view, Role> kRoles[] = {
    {"generation", kRoleGeneration}, {"experts-read", kRoleExpertsRead}, {"operator", kRoleOperator}};

absl::Status BadLine(int line, std::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", std::string(problem)));
}

bool IsNameCharacter(char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.'; }

absl::StatusOr<uint8_t> ParseRoles(std::string_view text, int line) {
  uint8_t roles = 0;
  for (const std::string& name : std::vector<std::string>(absl::StrSplit(std::string(text), ','))) {
    const auto* const found =
        std::find_if(std::begin(kRoles), std::end(kRoles), [&name](const auto& role) { return role.first == name; });
    if (found == std::end(kRoles)) {
      return BadLine(line, absl::StrCat("roles: \"", absl::CHexEscape(name.substr(0, kMaxApiKeyNameBytes)),
                                        "\" is not one of generation, experts-read, operator"));
    }
    roles |= found->second;
  }
  return roles;
}

absl::StatusOr<Sha256Digest> ParseHash(std::string_view hex, int line) {
  Sha256Digest digest;
  const bool is_hex = std::all_of(hex.begin(), hex.end(), [](char c) { return absl::ascii_isxdigit(c); });
  if (!is_hex || hex.size() != 2 * digest.size()) {
    return BadLine(line, absl::StrCat("sha256: ", hex.size(), " characters are not the ", 2 * digest.size(),
                                      " hexadecimal digits of a digest"));
  }
  const std::string bytes = absl::HexStringToBytes(std::string(hex));
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

absl::StatusOr<Sha256Digest> ParseSecret(std::string_view text, int line) {
  if (text.starts_with(kHashPrefix)) return ParseHash(text.substr(kHashPrefix.size()), line);
  if (text.size() < kMinApiSecretBytes || text.size() > kMaxApiSecretBytes) {
    return BadLine(line, absl::StrCat("secret: ", text.size(), " characters are not ", kMinApiSecretBytes, " to ",
                                      kMaxApiSecretBytes));
  }
  if (!std::all_of(text.begin(), text.end(), [](char c) { return absl::ascii_isgraph(c); })) {
    return BadLine(line, "secret: a character is not visible ASCII, as metadata must be");
  }
  return Sha256(text);
}

absl::StatusOr<std::optional<ApiKey>> ParseLine(std::string_view text, int line) {
  const std::string content(text.substr(0, text.find('#')));
  const std::vector<std::string> words = absl::StrSplit(content, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  if (words.empty()) return std::nullopt;
  if (words.size() != 3) return BadLine(line, absl::StrCat(words.size(), " words are not the three NAME ROLES SECRET"));
  ApiKey key = {.name = words[0]};
  if (key.name.size() > kMaxApiKeyNameBytes || !std::all_of(key.name.begin(), key.name.end(), &IsNameCharacter)) {
    return BadLine(line, absl::StrCat("name: ", key.name.size(), " characters are not 1 to ", kMaxApiKeyNameBytes,
                                      " letters, digits, '-', '_' or '.'"));
  }
  CADRE_ASSIGN_OR_RETURN(key.roles, ParseRoles(words[1], line));
  CADRE_ASSIGN_OR_RETURN(key.digest, ParseSecret(words[2], line));
  return key;
}

}  // namespace

std::string RoleNames(uint8_t roles) {
  std::vector<std::string> names;
  for (const auto& [name, role] : kRoles) {
    if ((roles & role) != 0) names.emplace_back(name);
  }
  return absl::StrJoin(names, " or ");
}

Sha256Digest Sha256(std::string_view bytes) {
  Sha256Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest.data());
  return digest;
}

absl::StatusOr<ApiKeys> ApiKeys::Parse(std::string_view text) {
  if (text.size() > kMaxApiKeyFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(text.size(), " bytes are more than the limit of ", kMaxApiKeyFileBytes));
  }
  ApiKeys keys;
  std::set<Sha256Digest> digests;
  std::map<std::string, uint8_t> roles_of_name;
  int line = 0;
  while (!text.empty()) {
    ++line;
    const size_t end = std::min(text.find('\n'), text.size());
    CADRE_ASSIGN_OR_RETURN(std::optional<ApiKey> key, ParseLine(text.substr(0, end), line));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!key.has_value()) continue;
    if (!digests.insert(key->digest).second) return BadLine(line, "secret: another line has the same one");
    if (roles_of_name.try_emplace(key->name, key->roles).first->second != key->roles) {
      return BadLine(line, absl::StrCat("roles: another key of ", key->name, " has others"));
    }
    if (keys.keys_.size() == kMaxApiKeys) return BadLine(line, absl::StrCat("more than ", kMaxApiKeys, " keys"));
    keys.keys_.push_back(*std::move(key));
  }
  if (keys.keys_.empty()) return absl::InvalidArgumentError("no key in it: nobody could call the server");
  return keys;
}

const ApiKey* ApiKeys::Match(std::string_view secret) const {
  const Sha256Digest digest = Sha256(secret);
  size_t found = keys_.size();
  for (size_t i = 0; i < keys_.size(); ++i) {
    const bool is_equal = CRYPTO_memcmp(keys_[i].digest.data(), digest.data(), digest.size()) == 0;
    // Without a branch: `i` where they are equal, and no way out of the loop before its end.
    found ^= (found ^ i) & (size_t{0} - size_t{is_equal});
  }
  return found == keys_.size() ? nullptr : &keys_[found];
}

}  // namespace cadre
