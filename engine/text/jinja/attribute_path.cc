#include "engine/text/jinja/attribute_path.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "engine/base/status_macros.h"
#include "engine/text/jinja/access.h"

namespace cadre::jinja {

absl::StatusOr<AttributePath> AttributePath::Parse(Runtime& runtime, const Value* attribute) {
  AttributePath path;
  if (attribute == nullptr || attribute->is_none()) return path;
  if (!attribute->is_string()) {
    path.keys_.push_back(*attribute);
    return path;
  }
  const std::string& bytes = attribute->bytes();
  const auto num_dots = static_cast<std::size_t>(std::count(bytes.begin(), bytes.end(), '.'));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(bytes.size()));
  CADRE_RETURN_IF_ERROR(runtime.Charge(num_dots));
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(bytes, '.'))) {
    const bool is_number = !part.empty() && std::all_of(part.begin(), part.end(), [](char c) {
      return absl::ascii_isdigit(static_cast<unsigned char>(c));
    });
    std::int64_t index = 0;
    path.keys_.push_back(is_number && absl::SimpleAtoi(part, &index) ? Value::Integer(index) : Value::String(part));
  }
  return path;
}

absl::StatusOr<Value> AttributePath::Follow(Runtime& runtime, const Value& item, const Value* fallback) const {
  Value value = item;
  for (const Value& key : keys_) {
    CADRE_ASSIGN_OR_RETURN(Value next, GetItem(runtime, value, key));
    value = std::move(next);
    if (fallback != nullptr && !fallback->is_none() && value.is_undefined()) value = *fallback;
  }
  return value;
}

}  // namespace cadre::jinja
