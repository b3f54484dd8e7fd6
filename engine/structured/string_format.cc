#include "engine/structured/string_format.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/strings.h"

namespace cadre {
namespace {

// RFC 3339. Days by month, the 29th of February in leap years only, years from 0001 on; no leap seconds.
std::string Date() {
  const std::string year = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])";
  const std::string leap_year = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
  return absl::StrCat("(?:", year,
                      "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|"
                      "02-(?:0[1-9]|1[0-9]|2[0-8]))|",
                      leap_year, "-02-29)");
}

std::string Time() {
  return "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
}

// ISO 8601 as RFC 3339, appendix A, has it: weeks alone, or days and times in falling units.
std::string Duration() {
  const std::string n = "[0-9]{1,9}";
  const std::string time = absl::StrCat("T(?:", n, "H(?:", n, "M(?:", n, "S)?)?|", n, "M(?:", n, "S)?|", n, "S)");
  const std::string date = absl::StrCat("(?:", n, "D|", n, "M(?:", n, "D)?|", n, "Y(?:", n, "M(?:", n, "D)?)?)");
  return absl::StrCat("P(?:", date, "(?:", time, ")?|", time, "|", n, "W)");
}

std::string Label() { return "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"; }

// RFC 1123. At most three labels of 63 characters: a name may have 253.
std::string Hostname() { return absl::StrCat(Label(), "(?:\\.", Label(), "){0,2}"); }

std::string Email() {
  const std::string atom = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,20}";
  return absl::StrCat(atom, "(?:\\.", atom, "){0,2}@", Label(), "(?:\\.", Label(), "){1,2}");
}

std::string Ipv4() {
  const std::string octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
  return absl::StrCat(octet, "(?:\\.", octet, "){3}");
}

// RFC 4291, section 2.2: eight groups, or fewer with one "::" (no embedded IPv4).
std::string Ipv6() {
  const std::string group = "[0-9a-fA-F]{1,4}";
  std::vector<std::string> ways = {absl::StrCat("(?:", group, ":){7}", group)};
  for (int before = 0; before <= 7; ++before) {
    const int max_after = 7 - before;
    const std::string head = before == 0 ? ":" : absl::StrCat("(?:", group, ":){", before, "}");
    const std::string tail =
        max_after == 0 ? "" : absl::StrCat("(?:", group, "(?::", group, "){0,", max_after - 1, "})?");
    ways.push_back(absl::StrCat(head, ":", tail));
  }
  return absl::StrCat("(?:", absl::StrJoin(ways, "|"), ")");
}

std::string Uuid() { return "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"; }

// RFC 3986 with an authority or a path without one, without user information and IP literals.
std::string Uri() {
  const std::string plain = "(?:[a-zA-Z0-9._~!$&'()*+,;=-]|%[0-9a-fA-F]{2})";
  const std::string path_part = absl::StrCat("(?:", plain, "|[:@])");
  const std::string query_part = absl::StrCat("(?:", plain, "|[:@/?])*");
  const std::string authority = absl::StrCat("//", Hostname(), "(?::[0-9]{1,5})?(?:/", path_part, "*)*");
  const std::string path = absl::StrCat(path_part, "+(?:/", path_part, "*)*");
  return absl::StrCat("[a-zA-Z][a-zA-Z0-9+.-]*:(?:", authority, "|", path, ")(?:\\?", query_part, ")?(?:#", query_part,
                      ")?");
}

using Pattern = std::string (*)();

std::string DateTime() { return absl::StrCat(Date(), "T", Time()); }

const std::vector<std::pair<std::string_view, Pattern>>& Formats() {
  static const auto& formats = *new std::vector<std::pair<std::string_view, Pattern>>{
      {"date", &Date},
      {"date-time", &DateTime},
      {"duration", &Duration},
      {"email", &Email},
      {"hostname", &Hostname},
      {"ipv4", &Ipv4},
      {"ipv6", &Ipv6},
      {"time", &Time},
      {"uri", &Uri},
      {"uuid", &Uuid},
      // Hints of OpenAPI and Pydantic to who shows or opens what the text names: any text has them.
      {"binary", nullptr},
      {"directory-path", nullptr},
      {"file-path", nullptr},
      {"password", nullptr},
      {"path", nullptr}};
  return formats;
}

const std::pair<std::string_view, Pattern>* FindFormat(std::string_view format) {
  for (const auto& entry : Formats()) {
    if (entry.first == format) return &entry;
  }
  return nullptr;
}

}  // namespace

std::optional<std::string> FormatPattern(std::string_view format) {
  const auto* found = FindFormat(format);
  if (found == nullptr || found->second == nullptr) return std::nullopt;
  return found->second();
}

bool IsFormatOfAnyText(std::string_view format) {
  const auto* found = FindFormat(format);
  return found != nullptr && found->second == nullptr;
}

std::string SupportedFormats() {
  return absl::StrJoin(Formats(), ", ", [](std::string* out, const auto& entry) { out->append(entry.first); });
}

}  // namespace cadre
