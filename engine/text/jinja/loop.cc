#include "engine/text/jinja/loop.h"

#include <algorithm>
#include <cstdint>

#include "engine/base/status_macros.h"
#include "engine/text/jinja/runtime.h"

namespace cadre::jinja {

std::optional<Value> Loop::Attribute(std::string_view name) {
  const auto turn = static_cast<std::int64_t>(turn_);
  const auto size = static_cast<std::int64_t>(items_.size());
  if (name == "index") return Value::Integer(turn + 1);
  if (name == "index0") return Value::Integer(turn);
  if (name == "revindex") return Value::Integer(size - turn);
  if (name == "revindex0") return Value::Integer(size - turn - 1);
  if (name == "first") return Value::Boolean(turn == 0);
  if (name == "last") return Value::Boolean(turn + 1 == size);
  if (name == "length") return Value::Integer(size);
  if (name == "depth") return Value::Integer(depth_ + 1);
  if (name == "depth0") return Value::Integer(depth_);
  if (name == "previtem") {
    return turn > 0 ? items_[turn_ - 1] : Value::Undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return turn + 1 < size ? items_[turn_ + 1] : Value::Undefined("there is no next item");
  }
  return std::nullopt;
}

absl::StatusOr<std::optional<Value>> Loop::CallMethod(Runtime& runtime, std::string_view name,
                                                      const Arguments& arguments) {
  const std::vector<Value>& values = arguments.positional;
  CADRE_RETURN_IF_ERROR(runtime.Charge(values.size()));
  if (name == "cycle") {
    if (values.empty()) return Fail("loop.cycle: no items for cycling given");
    return values[turn_ % values.size()];
  }
  if (name != "changed") return std::nullopt;
  for (std::size_t i = 0; last_changed_.has_value() && i < std::min(values.size(), last_changed_->size()); ++i) {
    CADRE_RETURN_IF_ERROR(runtime.ChargeComparison(values[i], (*last_changed_)[i]));
  }
  const bool is_same = last_changed_.has_value() &&
                       std::equal(values.begin(), values.end(), last_changed_->begin(), last_changed_->end(), Equal);
  last_changed_ = values;
  return Value::Boolean(!is_same);
}

}  // namespace cadre::jinja
