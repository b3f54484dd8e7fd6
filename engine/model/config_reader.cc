#include "engine/model/config_reader.h"

#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/strings.h"

namespace cadre {
namespace {

using nlohmann::json;

std::string ShowValue(const json& value) {
  constexpr size_t kMaxCharacters = 100;
  if (value.is_structured() && value.size() > kMaxCharacters) {
    return value.is_array() ? absl::StrCat("a list of ", value.size()) : absl::StrCat("an object of ", value.size());
  }
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
  if (text.size() > kMaxCharacters) text.replace(kMaxCharacters - 3, std::string::npos, "...");
  return text;
}

}  // namespace

ConfigReader::ConfigReader(const json& object, std::string what) : object_(object), what_(std::move(what)) {
  if (!object_.is_object()) {
    Fail(absl::StatusCode::kInvalidArgument, absl::StrCat("must be a JSON object, is ", ShowValue(object_)));
  }
}

void ConfigReader::Fail(absl::StatusCode code, std::string_view reason) {
  if (status_.ok()) status_ = absl::Status(code, absl::StrCat(what_, ": ", ToAbsl(reason)));
}

void ConfigReader::FailValue(std::string_view key, const json& value, std::string_view expected) {
  Fail(absl::StatusCode::kInvalidArgument,
       absl::StrCat(ToAbsl(key), " is ", ShowValue(value), ", must be ", ToAbsl(expected)));
}

const json* ConfigReader::Find(std::string_view key) const {
  if (!object_.is_object()) return nullptr;
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::string ConfigReader::Show(std::string_view key) const {
  const json* value = Find(key);
  return value == nullptr ? "absent" : ShowValue(*value);
}

std::optional<int64_t> ConfigReader::CheckedInt(std::string_view key, const json& value, int64_t min, int64_t max) {
  const bool too_large =
      value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (value.is_number_integer() && !too_large) {
    const auto number = value.get<int64_t>();
    if (number >= min && number <= max) return number;
  }
  FailValue(key, value, absl::StrCat("a whole number from ", min, " to ", max));
  return std::nullopt;
}

int64_t ConfigReader::Int(std::initializer_list<std::string_view> keys, int64_t min, int64_t max,
                          std::optional<int64_t> fallback) {
  std::optional<int64_t> result;
  for (const std::string_view key : keys) {
    const json* value = Find(key);
    if (value == nullptr) continue;
    const std::optional<int64_t> number = CheckedInt(key, *value, min, max);
    if (!number.has_value()) return min;
    if (result.has_value() && result != number) {
      FailValue(key, *value, absl::StrCat(*result, " like ", ToAbsl(*keys.begin())));
      return min;
    }
    result = number;
  }
  if (result.has_value()) return *result;
  if (!fallback.has_value()) {
    Fail(absl::StatusCode::kInvalidArgument, absl::StrCat(ToAbsl(*keys.begin()), " is missing"));
  }
  return fallback.value_or(min);
}

double ConfigReader::Number(std::string_view key, double min, double max, std::optional<double> fallback) {
  const json* value = Find(key);
  if (value == nullptr) {
    if (!fallback.has_value()) Fail(absl::StatusCode::kInvalidArgument, absl::StrCat(ToAbsl(key), " is missing"));
    return fallback.value_or(min);
  }
  if (value->is_number()) {
    const auto number = value->get<double>();
    if (number >= min && number <= max) return number;  // false for NaN
  }
  FailValue(key, *value, absl::StrCat("a number from ", min, " to ", max));
  return min;
}

bool ConfigReader::Bool(std::string_view key, bool fallback) {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  FailValue(key, *value, "true or false");
  return fallback;
}

std::string ConfigReader::String(std::string_view key, std::string_view fallback) {
  const json* value = Find(key);
  if (value == nullptr) return std::string(fallback);
  if (value->is_string()) return value->get<std::string>();
  FailValue(key, *value, "a string");
  return std::string(fallback);
}

std::vector<int64_t> ConfigReader::IntList(std::string_view key, int64_t min, int64_t max, size_t max_size,
                                           bool or_single) {
  const json* value = Find(key);
  if (value == nullptr) return {};
  if (or_single && value->is_number()) {
    const std::optional<int64_t> number = CheckedInt(key, *value, min, max);
    return number.has_value() ? std::vector<int64_t>{*number} : std::vector<int64_t>{};
  }
  if (!value->is_array() || value->size() > max_size) {
    FailValue(key, *value,
              absl::StrCat(or_single ? "a whole number or " : "", "a list of at most ", max_size, " whole numbers"));
    return {};
  }
  std::vector<int64_t> numbers;
  numbers.reserve(value->size());
  for (const json& element : *value) {
    const std::optional<int64_t> number = CheckedInt(key, element, min, max);
    if (!number.has_value()) return {};
    numbers.push_back(*number);
  }
  return numbers;
}

const json& ConfigReader::Object(std::string_view key) {
  static const json& empty = *new json(json::object());
  const json* value = Find(key);
  if (value == nullptr) return empty;
  if (value->is_object()) return *value;
  FailValue(key, *value, "an object");
  return empty;
}

}  // namespace cadre
