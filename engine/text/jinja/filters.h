#ifndef CADRE_ENGINE_TEXT_JINJA_FILTERS_H_
#define CADRE_ENGINE_TEXT_JINJA_FILTERS_H_

#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// What stands behind a bar: {{ input | filter(arguments) }}. Each does what Jinja's filter of that name does; tojson
// does what Hugging Face's does: no HTML escapes, characters beyond ASCII as they are.
using Filter = absl::StatusOr<Value> (*)(Runtime& runtime, const Value& input, const Arguments& arguments);

struct NamedFilter {
  std::string_view name;
  Filter filter;
};

// The filters of each kind.
std::span<const NamedFilter> TextFilters();
std::span<const NamedFilter> NumberFilters();
std::span<const NamedFilter> SequenceFilters();
std::span<const NamedFilter> SelectionFilters();

// Null when there is none of that name.
Filter FindFilter(std::string_view name);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_FILTERS_H_
