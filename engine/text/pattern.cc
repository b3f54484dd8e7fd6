#include "engine/text/pattern.h"

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace cadre {

absl::StatusOr<Regex> ParsePattern(const JsonFields& fields) {
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json* member, fields.Require("pattern"));
  const std::string where = absl::StrCat(fields.where(), ".pattern");
  CADRE_ASSIGN_OR_RETURN(const JsonFields pattern, JsonFields::Open(*member, where));
  CADRE_RETURN_IF_ERROR(pattern.RefuseOthers({"String", "Regex"}));
  const bool is_regex = pattern.Find("Regex") != nullptr;
  if (is_regex && pattern.Find("String") != nullptr) return pattern.Invalid("has both \"String\" and \"Regex\"");
  CADRE_ASSIGN_OR_RETURN(const std::string_view text, pattern.String(is_regex ? "Regex" : "String"));
  absl::StatusOr<Regex> regex = is_regex ? Regex::Compile(text) : Regex::CompileLiteral(text);
  if (!regex.ok()) return AtPlace(regex.status(), where);
  return regex;
}

std::string ReplaceMatches(std::string_view text, const std::vector<TextSpan>& matches, std::string_view content) {
  std::string out;
  out.reserve(text.size());
  std::size_t copied = 0;
  for (const TextSpan& match : matches) {
    out += text.substr(copied, match.begin - copied);
    out += content;
    copied = match.end;
  }
  out += text.substr(copied);
  return out;
}

}  // namespace cadre
