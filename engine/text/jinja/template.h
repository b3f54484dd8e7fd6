#ifndef CADRE_ENGINE_TEXT_JINJA_TEMPLATE_H_
#define CADRE_ENGINE_TEXT_JINJA_TEMPLATE_H_

#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/limits.h"
#include "engine/text/jinja/text.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

struct RenderOptions {
  RenderLimits limits;
  absl::Time now = absl::Now();  // what strftime_now prints
  absl::TimeZone time_zone = absl::LocalTimeZone();
};

// A template, ready to be rendered. Immutable; any thread may render it at any time. Movable.
class Template {
 public:
  // The errors of ParseTemplate (parser.h).
  static absl::StatusOr<Template> Parse(std::string_view source);

  // The text, with the marks of what came from a client. INVALID_ARGUMENT: what the template says with
  // raise_exception, and nothing else. RESOURCE_EXHAUSTED: a limit, and FAILED_PRECONDITION: anything else that goes
  // wrong; both begin with "line N: ".
  absl::StatusOr<Text> Render(const Dict& variables, const RenderOptions& options = {}) const;

 private:
  explicit Template(Body body) : body_(std::move(body)) {}

  Body body_;
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_TEMPLATE_H_
