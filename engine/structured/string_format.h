#ifndef CADRE_ENGINE_STRUCTURED_STRING_FORMAT_H_
#define CADRE_ENGINE_STRUCTURED_STRING_FORMAT_H_

#include <optional>
#include <string>
#include <string_view>

namespace cadre {

// An expression whose texts all have the `format` of JSON Schema (draft 2020-12, section 7.3); nullopt for a format
// that is not supported, and for one of any text. README.md lists them, and where an expression allows less than the
// format.
std::optional<std::string> FormatPattern(std::string_view format);

// Whether the format asks for nothing of a text: "password", "path" ...
bool IsFormatOfAnyText(std::string_view format);

// Their names, for messages: "date, date-time, ...".
std::string SupportedFormats();

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_STRING_FORMAT_H_
