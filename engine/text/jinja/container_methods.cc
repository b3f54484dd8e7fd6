// Methods of list, tuple and dict, as far as they change nothing.
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/base/status_macros.h"
#include "engine/text/jinja/arguments.h"
#include "engine/text/jinja/methods.h"

namespace cadre::jinja {
namespace {

absl::StatusOr<Value> SequenceCount(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("count", arguments, {""}, 1));
  std::int64_t count = 0;
  for (const Value& item : self.sequence().items()) {
    CADRE_RETURN_IF_ERROR(runtime.ChargeComparison(item, *bound[0]));
    count += Equal(item, *bound[0]) ? 1 : 0;
  }
  return Value::Integer(count);
}

absl::StatusOr<Value> SequenceIndex(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("index", arguments, {""}, 1));
  const std::vector<Value>& items = self.sequence().items();
  for (std::size_t i = 0; i < items.size(); ++i) {
    CADRE_RETURN_IF_ERROR(runtime.ChargeComparison(items[i], *bound[0]));
    if (Equal(items[i], *bound[0])) return Value::Integer(static_cast<std::int64_t>(i));
  }
  return Fail("index: the item is not there");
}

absl::StatusOr<Value> CopySelf(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("copy", arguments, {}).status());
  CADRE_RETURN_IF_ERROR(runtime.Charge(1));
  return self;
}

absl::StatusOr<Value> DictGet(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("get", arguments, {"", ""}, 1));
  CADRE_RETURN_IF_ERROR(runtime.ChargeWalk(*bound[0]));
  CADRE_ASSIGN_OR_RETURN(const Value* found, self.dict().Find(*bound[0]));
  if (found != nullptr) return *found;
  return bound[1] == nullptr ? Value::None() : *bound[1];
}

enum class Part { kKeys, kValues, kItems };

template <Part kPart>
absl::StatusOr<Value> DictView(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("the method of a dict", arguments, {}).status());
  CADRE_RETURN_IF_ERROR(runtime.Charge(self.dict().size()));
  std::vector<Value> items;
  items.reserve(self.dict().size());
  for (const auto& [key, value] : self.dict().entries()) {
    items.push_back(kPart == Part::kKeys ? key : kPart == Part::kValues ? value : Value::Tuple({key, value}));
  }
  return Value::View(std::move(items));
}

}  // namespace

Method FindSequenceMethod(std::string_view name) {
  if (name == "count") return SequenceCount;
  if (name == "index") return SequenceIndex;
  return nullptr;
}

Method FindDictMethod(std::string_view name) {
  if (name == "get") return DictGet;
  if (name == "items") return DictView<Part::kItems>;
  if (name == "keys") return DictView<Part::kKeys>;
  if (name == "values") return DictView<Part::kValues>;
  if (name == "copy") return CopySelf;
  return nullptr;
}

Method FindMethod(const Value& self, std::string_view name) {
  if (self.is_string()) return FindStringMethod(name);
  if (self.is_dict()) return FindDictMethod(name);
  if (!self.is_sequence() || !self.sequence().has_places()) return nullptr;
  const bool is_list = self.sequence().type() == SequenceType::kList;
  return is_list && name == "copy" ? CopySelf : FindSequenceMethod(name);
}

}  // namespace cadre::jinja
