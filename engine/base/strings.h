// Bridges between the standard library's string types, which our interfaces use, and Abseil's own.
// Distributions build Abseil with its own string_view, so the two do not convert into each other.
#ifndef CADRE_ENGINE_BASE_STRINGS_H_
#define CADRE_ENGINE_BASE_STRINGS_H_

#include <string_view>

#include "absl/strings/string_view.h"

namespace cadre {

inline absl::string_view ToAbsl(std::string_view s) { return {s.data(), s.size()}; }
inline std::string_view ToStd(absl::string_view s) { return {s.data(), s.size()}; }

}  // namespace cadre

#endif  // CADRE_ENGINE_BASE_STRINGS_H_
