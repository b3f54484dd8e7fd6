// Patterns of a tokenizer.json are Oniguruma's; ours are run by PCRE2. This file is the bridge.
#ifndef CADRE_ENGINE_TEXT_REGEX_SYNTAX_H_
#define CADRE_ENGINE_TEXT_REGEX_SYNTAX_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace cadre {

// Rewrites a pattern of Oniguruma's Ruby syntax (UTF-8) into a PCRE2 pattern with the same matches, to be compiled with
// UTF, UCP and MULTILINE (in Ruby's syntax `^` and `$` always mean lines).
//
// `\s \S \d \D \w \W \h \H` and `\p{..}` become explicit classes, because the two engines disagree on some characters
// (unicode_classes.h). Unimplemented, naming the construct, for whatever the two engines may understand differently:
// back references, named groups, options other than `(?i:...)`, POSIX brackets, nested or intersected classes, word
// boundaries, `{n,m}+`, ... Errors of form that both engines would find are left to PCRE2.
absl::StatusOr<std::string> TranslateOnigurumaPattern(std::string_view pattern);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_REGEX_SYNTAX_H_
