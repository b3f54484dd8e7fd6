#include "engine/text/jinja/template.h"

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/parser.h"
#include "engine/text/jinja/runtime.h"

namespace cadre::jinja {

absl::StatusOr<Template> Template::Parse(std::string_view source) {
  CADRE_ASSIGN_OR_RETURN(Body body, ParseTemplate(source));
  return Template(std::move(body));
}

absl::StatusOr<Text> Template::Render(const Dict& variables, const RenderOptions& options) const {
  Runtime runtime(options.limits, options.now, options.time_zone);
  Interpreter interpreter(&runtime, &variables);
  absl::StatusOr<Text> text = interpreter.Run(body_);
  if (text.ok() || absl::IsInvalidArgument(text.status())) return text;
  return absl::Status(text.status().code(),
                      absl::StrCat("line ", interpreter.error_line(), ": ", text.status().message()));
}

}  // namespace cadre::jinja
