#ifndef CADRE_ENGINE_TEXT_JINJA_FORMAT_H_
#define CADRE_ENGINE_TEXT_JINJA_FORMAT_H_

#include "absl/status/statusor.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/text.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// Python's `format % values`: %s %r %d %i %x %X %o %e %f %g %c %%, with flags, width, precision and %(name)s.
absl::StatusOr<Value> FormatPercent(Runtime& runtime, const Text& format, const Value& values);

// Python's format.format(...): {} {0} {name} {x.y} {x[0]}, with !s, !r, fill, alignment, sign, width, precision, comma
// and the types s d x X o b e f g %. Nothing else of an object can be reached than in a template.
absl::StatusOr<Value> FormatBraces(Runtime& runtime, const Text& format, const Arguments& arguments);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_FORMAT_H_
