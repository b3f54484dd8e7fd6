// Bridges between the standard library's string types, which our interfaces use, and Abseil's own.
// Distributions build Abseil with its own string_view, so the two do not convert into each other.
// Also how a string of unknown origin is shown in a message.
#ifndef CADRE_ENGINE_BASE_STRINGS_H_
#define CADRE_ENGINE_BASE_STRINGS_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace cadre {

inline absl::string_view ToAbsl(std::string_view s) { return {s.data(), s.size()}; }
inline std::string_view ToStd(absl::string_view s) { return {s.data(), s.size()}; }

// `s` in double quotes for an error message: one line of printable ASCII, whatever `s` holds, with the middle left out
// of anything long.
inline std::string Quoted(std::string_view s) {
  constexpr size_t kMaxBytes = 120;
  if (s.size() <= kMaxBytes) return absl::StrCat("\"", absl::CHexEscape(ToAbsl(s)), "\"");
  const std::string head = absl::CHexEscape(ToAbsl(s.substr(0, kMaxBytes / 2)));
  const std::string tail = absl::CHexEscape(ToAbsl(s.substr(s.size() - kMaxBytes / 2)));
  return absl::StrCat("\"", head, "...", tail, "\"");
}

}  // namespace cadre

#endif  // CADRE_ENGINE_BASE_STRINGS_H_
