#include "engine/text/metaspace.h"

#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"

namespace cadre {

absl::StatusOr<MetaspaceOptions> ParseMetaspaceOptions(const JsonFields& fields) {
  CADRE_RETURN_IF_ERROR(
      fields.RefuseOthers({"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"}));
  MetaspaceOptions options;
  CADRE_ASSIGN_OR_RETURN(const std::string_view replacement, fields.Character("replacement"));
  options.replacement = replacement;
  CADRE_ASSIGN_OR_RETURN(options.split, fields.BoolOr("split", true));
  CADRE_ASSIGN_OR_RETURN(const std::optional<std::string_view> scheme, fields.OptionalString("prepend_scheme"));
  CADRE_ASSIGN_OR_RETURN(const bool add_prefix_space, fields.BoolOr("add_prefix_space", true));
  if (!scheme.has_value()) {
    options.prepend_scheme = add_prefix_space ? PrependScheme::kAlways : PrependScheme::kNever;
  } else if (*scheme == "always") {
    options.prepend_scheme = PrependScheme::kAlways;
  } else if (*scheme == "first") {
    options.prepend_scheme = PrependScheme::kFirst;
  } else if (*scheme == "never") {
    options.prepend_scheme = PrependScheme::kNever;
  } else {
    return fields.Unsupported(
        absl::StrCat("prepend_scheme ", Quoted(*scheme), " is not supported (always, first, never are)"));
  }
  if (!add_prefix_space && options.prepend_scheme != PrependScheme::kNever) {
    return fields.Invalid("add_prefix_space is false, but prepend_scheme asks for a prefix");
  }
  return options;
}

}  // namespace cadre
