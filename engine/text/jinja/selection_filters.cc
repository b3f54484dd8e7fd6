// Filters that apply another filter or a test to every item: map, select, reject and their kin.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/access.h"
#include "engine/text/jinja/attribute_path.h"
#include "engine/text/jinja/filters.h"
#include "engine/text/jinja/type_tests.h"

namespace cadre::jinja {
namespace {

// The arguments behind the first `count` ones.
Arguments Rest(const Arguments& arguments, std::size_t count) {
  Arguments rest;
  rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(count), arguments.positional.end());
  rest.named = arguments.named;
  return rest;
}

absl::StatusOr<Value> MapAttribute(Runtime& runtime, const std::vector<Value>& items, const Arguments& arguments) {
  const Value* attribute = nullptr;
  const Value* fallback = nullptr;
  for (const auto& [name, value] : arguments.named) {
    const bool is_attribute = name.bytes() == "attribute";
    if (!is_attribute && name.bytes() != "default") {
      return Fail(absl::StrCat("map has no parameter ", Quoted(name.bytes())));
    }
    (is_attribute ? attribute : fallback) = &value;
  }
  if (attribute == nullptr) return Fail("map needs the name of a filter, or an attribute");
  CADRE_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::Parse(runtime, attribute));
  std::vector<Value> mapped;
  mapped.reserve(items.size());
  for (const Value& item : items) {
    CADRE_ASSIGN_OR_RETURN(Value value, path.Follow(runtime, item, fallback));
    mapped.push_back(std::move(value));
  }
  return Value::Generator(std::move(mapped));
}

absl::StatusOr<Value> Map(Runtime& runtime, const Value& input, const Arguments& arguments) {
  // Jinja looks at nothing, not even at the arguments, when there is nothing to map.
  if (!input.IsTrue()) return Value::Generator({});
  CADRE_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  if (arguments.positional.empty()) return MapAttribute(runtime, items, arguments);
  const Value& name = arguments.positional[0];
  const Filter filter = name.is_string() ? FindFilter(name.bytes()) : nullptr;
  if (filter == nullptr) {
    return Fail(absl::StrCat("map: no filter ", name.is_string() ? Quoted(name.bytes()) : name.TypeName()));
  }
  const Arguments rest = Rest(arguments, 1);
  std::vector<Value> mapped;
  mapped.reserve(items.size());
  for (const Value& item : items) {
    CADRE_ASSIGN_OR_RETURN(Value value, filter(runtime, item, rest));
    mapped.push_back(std::move(value));
  }
  return Value::Generator(std::move(mapped));
}

// select and reject, of items or of their attributes.
template <bool kIsReject, bool kByAttribute>
absl::StatusOr<Value> Select(Runtime& runtime, const Value& input, const Arguments& arguments) {
  if (!input.IsTrue()) return Value::Generator({});
  std::size_t used = 0;
  AttributePath path;
  if (kByAttribute) {
    if (arguments.positional.empty()) return Fail("selectattr needs the name of an attribute");
    CADRE_ASSIGN_OR_RETURN(path, AttributePath::Parse(runtime, &arguments.positional[used++]));
  }
  Test test = nullptr;
  if (arguments.positional.size() > used) {
    const Value& name = arguments.positional[used++];
    test = name.is_string() ? FindTest(name.bytes()) : nullptr;
    if (test == nullptr) {
      return Fail(absl::StrCat("select: no test ", name.is_string() ? Quoted(name.bytes()) : name.TypeName()));
    }
  }
  const Arguments rest = Rest(arguments, used);
  CADRE_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  std::vector<Value> selected;
  for (const Value& item : items) {
    CADRE_ASSIGN_OR_RETURN(const Value value, path.Follow(runtime, item));
    bool is_selected = value.IsTrue();
    if (test != nullptr) {
      CADRE_ASSIGN_OR_RETURN(is_selected, test(runtime, value, rest));
    }
    if (is_selected != kIsReject) selected.push_back(item);
  }
  return Value::Generator(std::move(selected));
}

constexpr NamedFilter kFilters[] = {
    {"map", Map},
    {"reject", Select<true, false>},
    {"rejectattr", Select<true, true>},
    {"select", Select<false, false>},
    {"selectattr", Select<false, true>},
};

}  // namespace

std::span<const NamedFilter> SelectionFilters() { return kFilters; }

}  // namespace cadre::jinja
