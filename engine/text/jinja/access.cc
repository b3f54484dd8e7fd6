#include "engine/text/jinja/access.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/methods.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

// Methods that change what they are called on; values are immutable here, as in Jinja's immutable sandbox.
constexpr std::string_view kForbidden[] = {"append", "clear",   "extend",     "insert", "pop",   "popitem",
                                           "remove", "reverse", "setdefault", "sort",   "update"};

Value NoAttribute(const Value& object, std::string_view name) {
  if (object.is_sequence() || object.is_dict()) {
    if (std::find(std::begin(kForbidden), std::end(kForbidden), name) != std::end(kForbidden)) {
      return Value::Undefined(absl::StrCat("the method '", ToAbsl(name), "' of a ", object.TypeName(),
                                           " is not allowed: it would change the ", object.TypeName()));
    }
  }
  return Value::Undefined(absl::StrCat("a ", object.TypeName(), " has no attribute ", Quoted(name)));
}

// The attribute or method, if there is one.
std::optional<Value> FindAttribute(Runtime& runtime, const Value& object, std::string_view name) {
  if (object.is_object()) return object.object().Attribute(name);
  if (!HasMethod(object, name)) return std::nullopt;
  return Value::Of(runtime.New<BoundMethod>(object, std::string(name)));
}

// Python's rule for an index: negative ones count from the end. Absent when there is no such place.
std::optional<std::size_t> PlaceOf(std::int64_t index, std::size_t size) {
  const auto length = static_cast<std::int64_t>(size);
  if (index < 0) index += length;
  if (index < 0 || index >= length) return std::nullopt;
  return static_cast<std::size_t>(index);
}

absl::StatusOr<std::optional<Value>> FindItem(Runtime& runtime, const Value& object, const Value& key) {
  if (object.is_dict()) {
    CADRE_RETURN_IF_ERROR(runtime.ChargeWalk(key));
    const absl::StatusOr<const Value*> found = object.dict().Find(key);
    if (!found.ok() || *found == nullptr) return std::nullopt;
    return **found;
  }
  if (!key.is_integral()) return std::nullopt;
  if (object.is_sequence() && object.sequence().has_places()) {
    const std::vector<Value>& items = object.sequence().items();
    const std::optional<std::size_t> place = PlaceOf(key.integer(), items.size());
    return place.has_value() ? std::optional<Value>(items[*place]) : std::nullopt;
  }
  if (object.is_string()) {
    CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(object.text().size()));
    const std::vector<std::size_t> bounds = CharacterBounds(object.bytes());
    const std::optional<std::size_t> place = PlaceOf(key.integer(), bounds.size() - 1);
    if (!place.has_value()) return std::nullopt;
    return Value::String(object.text().Slice(bounds[*place], bounds[*place + 1]));
  }
  return std::nullopt;
}

// The places a slice takes, in order.
struct Places {
  std::int64_t start = 0;
  std::int64_t stop = 0;
  std::int64_t step = 1;
};

absl::StatusOr<std::optional<std::int64_t>> ReadBound(const Value& bound) {
  if (bound.is_none()) return std::nullopt;
  if (bound.is_undefined()) return UndefinedError(bound);
  if (!bound.is_integral()) return Fail(absl::StrCat("the bounds of a slice are int or None, not ", bound.TypeName()));
  return bound.integer();
}

absl::StatusOr<Places> FindPlaces(const SliceBounds& bounds, std::int64_t length) {
  CADRE_ASSIGN_OR_RETURN(const std::optional<std::int64_t> start, ReadBound(bounds.start));
  CADRE_ASSIGN_OR_RETURN(const std::optional<std::int64_t> stop, ReadBound(bounds.stop));
  CADRE_ASSIGN_OR_RETURN(const std::optional<std::int64_t> step, ReadBound(bounds.step));
  Places places;
  // A step longer than the sequence takes its first item only, and cannot overflow.
  places.step = std::clamp(step.value_or(1), -length - 1, length + 1);
  if (places.step == 0) return Fail("the step of a slice is 0");
  const bool is_backward = places.step < 0;
  const std::int64_t lowest = is_backward ? -1 : 0;
  const std::int64_t highest = is_backward ? length - 1 : length;
  const auto place = [&](std::int64_t bound) {
    return std::clamp(bound < 0 ? std::max(bound, -length - 1) + length : bound, lowest, highest);
  };
  places.start = start.has_value() ? place(*start) : (is_backward ? highest : lowest);
  places.stop = stop.has_value() ? place(*stop) : (is_backward ? lowest : highest);
  return places;
}

}  // namespace

std::vector<std::size_t> CharacterBounds(std::string_view text) {
  std::vector<std::size_t> bounds;
  bounds.reserve(text.size() + 1);
  for (std::size_t position = 0; position < text.size();) {
    bounds.push_back(position);
    NextCodePoint(text, &position);
  }
  bounds.push_back(text.size());
  return bounds;
}

absl::StatusOr<Value> GetAttribute(Runtime& runtime, const Value& object, std::string_view name) {
  if (object.is_undefined()) return UndefinedError(object);
  if (std::optional<Value> found = FindAttribute(runtime, object, name); found.has_value()) return *std::move(found);
  if (object.is_dict()) {
    if (const Value* item = object.dict().Find(name); item != nullptr) return *item;
  }
  return NoAttribute(object, name);
}

absl::StatusOr<Value> GetItem(Runtime& runtime, const Value& object, const Value& key) {
  if (object.is_undefined()) return UndefinedError(object);
  CADRE_ASSIGN_OR_RETURN(std::optional<Value> item, FindItem(runtime, object, key));
  if (item.has_value()) return *std::move(item);
  if (!key.is_string()) {
    return Value::Undefined(absl::StrCat("a ", object.TypeName(), " has no item of this key"));
  }
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(key.text().size()));
  std::optional<Value> attribute = FindAttribute(runtime, object, key.bytes());
  return attribute.has_value() ? *std::move(attribute) : NoAttribute(object, key.bytes());
}

absl::StatusOr<Value> GetSlice(Runtime& runtime, const Value& object, const SliceBounds& bounds) {
  if (object.is_undefined()) return UndefinedError(object);
  const bool has_places = object.is_sequence() && object.sequence().has_places();
  if (!object.is_string() && !has_places) {
    return Fail(absl::StrCat("a ", object.TypeName(), " has no slices"));
  }
  std::vector<std::size_t> characters;
  if (object.is_string()) {
    CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(object.text().size()));
    characters = CharacterBounds(object.bytes());
  }
  const std::size_t size = object.is_string() ? characters.size() - 1 : object.sequence().items().size();
  CADRE_ASSIGN_OR_RETURN(const Places places, FindPlaces(bounds, static_cast<std::int64_t>(size)));
  if (object.is_string() && places.step == 1) {
    const auto start = static_cast<std::size_t>(places.start);
    const auto stop = static_cast<std::size_t>(std::max(places.start, places.stop));
    return runtime.NewString(object.text().Slice(characters[start], characters[stop]));
  }
  CADRE_RETURN_IF_ERROR(runtime.Charge(size));
  Text text;
  std::vector<Value> items;
  for (std::int64_t i = places.start; places.step > 0 ? i < places.stop : i > places.stop; i += places.step) {
    const auto place = static_cast<std::size_t>(i);
    if (object.is_string()) {
      text.AppendSlice(object.text(), characters[place], characters[place + 1]);
    } else {
      items.push_back(object.sequence().items()[place]);
    }
  }
  if (object.is_string()) return Value::String(std::move(text));
  return object.sequence().type() == SequenceType::kTuple ? Value::Tuple(std::move(items))
                                                          : Value::List(std::move(items));
}

absl::StatusOr<std::vector<Value>> Iterate(Runtime& runtime, const Value& value) {
  std::vector<Value> items;
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return items;
    case Value::Kind::kSequence:
      CADRE_RETURN_IF_ERROR(runtime.Charge(value.sequence().size()));
      return value.sequence().Walk();
    case Value::Kind::kDict:
      CADRE_RETURN_IF_ERROR(runtime.Charge(value.dict().size()));
      for (const Dict::Entry& entry : value.dict().entries()) items.push_back(entry.first);
      return items;
    case Value::Kind::kString: {
      const Text& text = value.text();
      CADRE_RETURN_IF_ERROR(runtime.Charge(text.size()));
      for (std::size_t position = 0; position < text.size();) {
        const std::size_t begin = position;
        NextCodePoint(text.bytes(), &position);
        items.push_back(Value::String(text.Slice(begin, position)));
      }
      return items;
    }
    default:
      return Fail(absl::StrCat("a ", value.TypeName(), " is not iterable"));
  }
}

absl::StatusOr<std::int64_t> Length(Runtime& runtime, const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_string()) {
    CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(value.text().size()));
    return static_cast<std::int64_t>(CountCodePoints(value.bytes()));
  }
  if (value.is_dict()) return static_cast<std::int64_t>(value.dict().size());
  if (value.is_sequence() && value.sequence().has_length()) {
    return static_cast<std::int64_t>(value.sequence().items().size());
  }
  return Fail(absl::StrCat("a ", value.TypeName(), " has no length"));
}

}  // namespace cadre::jinja
