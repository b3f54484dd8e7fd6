// The parser of key files against a plain reading of the same lines: who has which key, and that no error tells a
// secret. Input: the file.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/check.h"
#include "server/api_keys.h"

namespace cadre {
namespace {

using Words = std::vector<std::string>;

// Between any of `separators`; empty ones are left out.
Words Split(std::string_view text, std::string_view separators) {
  Words words(1);
  for (const char c : text) {
    if (separators.find(c) == std::string_view::npos) {
      words.back() += c;
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

std::vector<Words> Lines(std::string_view text) {
  std::vector<Words> lines;
  for (const std::string& line : Split(text, "\n")) {
    Words words = Split(std::string_view(line).substr(0, line.find('#')), " \t\r");
    if (!words.empty()) lines.push_back(std::move(words));
  }
  return lines;
}

uint8_t Roles(const std::string& text) {
  uint8_t roles = 0;
  for (const std::string& name : Split(text, ",")) {
    roles |= name == "generation" ? kRoleGeneration : name == "operator" ? kRoleOperator : kRoleExpertsRead;
  }
  return roles;
}

bool IsDigest(const std::string& secret) { return secret.starts_with("sha256:"); }

void CheckKeys(const ApiKeys& keys, const std::vector<Words>& lines) {
  CADRE_CHECK_EQ(keys.size(), lines.size());
  for (const Words& words : lines) {
    CADRE_CHECK_EQ(words.size(), 3u);
    const std::string& secret = words[2];
    if (IsDigest(secret)) {
      CADRE_CHECK(keys.Match(secret) == nullptr);  // it is no secret itself
      continue;
    }
    const ApiKey* const key = keys.Match(secret);
    CADRE_CHECK(key != nullptr);
    CADRE_CHECK_EQ(key->name, words[0]);
    CADRE_CHECK(key->roles == Roles(words[1]));
    const auto is_same = [&](const Words& other) { return other[2] == secret + "x"; };
    if (std::none_of(lines.begin(), lines.end(), is_same)) CADRE_CHECK(keys.Match(secret + "x") == nullptr);
  }
  CADRE_CHECK(keys.Match("") == nullptr);
}

// What stands where secrets do, once in the whole file. Errors show roles between quotes, with escapes: what has one of
// these characters may look like such a role's end.
void CheckTellsNoSecret(std::string_view message, std::string_view text, const std::vector<Words>& lines) {
  for (const Words& words : lines) {
    for (std::size_t i = 2; i < words.size(); ++i) {
      const std::string& secret = words[i];
      if (secret.size() < kMinApiSecretBytes || secret.find_first_of("\"\\") != std::string::npos) continue;
      if (text.find(secret) == text.rfind(secret)) CADRE_CHECK(message.find(secret) == std::string_view::npos);
    }
  }
}

void CheckError(const absl::Status& status, std::string_view text, const std::vector<Words>& lines) {
  constexpr std::size_t kMaxMessageBytes = 512;
  CADRE_CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  const std::string message(status.message());
  CADRE_CHECK(!message.empty() && message.size() <= kMaxMessageBytes);
  CADRE_CHECK(std::all_of(message.begin(), message.end(), [](char c) { return c >= ' ' && c <= '~'; }));
  CADRE_CHECK(message.starts_with("line ") || lines.empty());
  CheckTellsNoSecret(message, text, lines);
}

}  // namespace
}  // namespace cadre

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), std::min<std::size_t>(size, 4096));
  const std::vector<cadre::Words> lines = cadre::Lines(text);
  const auto keys = cadre::ApiKeys::Parse(text);
  if (keys.ok()) {
    cadre::CheckKeys(*keys, lines);
  } else {
    cadre::CheckError(keys.status(), text, lines);
  }
  return 0;
}
