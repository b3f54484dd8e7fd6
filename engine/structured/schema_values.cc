#include "engine/structured/schema_values.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/utf8.h"

namespace cadre {
namespace {

struct CountLimits {
  int64_t minimum = 0;
  std::optional<int64_t> maximum = {};

  bool Allow(int64_t count) const { return count >= minimum && (!maximum.has_value() || count <= *maximum); }
};

absl::StatusOr<CountLimits> ReadLimits(const PlacedSchema& schema, const char* minimum, const char* maximum) {
  CountLimits limits;
  CADRE_ASSIGN_OR_RETURN(const std::optional<int64_t> count, ReadCount(schema, minimum));
  limits.minimum = count.value_or(0);
  CADRE_ASSIGN_OR_RETURN(limits.maximum, ReadCount(schema, maximum));
  return limits;
}

// A keyword that speaks of values of one type, and that values are not checked against.
struct UnknownKeyword {
  std::string name;
  std::string type;
};

// What one schema says of given values. Its keywords are read once: there may be as many of them as values.
struct ValueKeywords {
  NumberBounds bounds = {};
  CountLimits characters = {};
  CountLimits elements = {};
  CountLimits members = {};
  std::vector<std::string> required = {};  // no name twice
  std::vector<UnknownKeyword> unknown = {};
};

bool IsChecked(std::string_view keyword) {
  constexpr std::string_view kChecked[] = {"exclusiveMaximum", "exclusiveMinimum", "maxItems", "maxLength",
                                           "maxProperties",    "maximum",          "minItems", "minLength",
                                           "minProperties",    "minimum",          "required"};
  return std::find(std::begin(kChecked), std::end(kChecked), keyword) != std::end(kChecked);
}

absl::StatusOr<ValueKeywords> ReadKeywords(const PlacedSchema& schema) {
  ValueKeywords keywords;
  CADRE_ASSIGN_OR_RETURN(keywords.bounds, ReadBounds(schema));
  CADRE_ASSIGN_OR_RETURN(keywords.characters, ReadLimits(schema, "minLength", "maxLength"));
  CADRE_ASSIGN_OR_RETURN(keywords.elements, ReadLimits(schema, "minItems", "maxItems"));
  CADRE_ASSIGN_OR_RETURN(keywords.members, ReadLimits(schema, "minProperties", "maxProperties"));
  CADRE_ASSIGN_OR_RETURN(keywords.required, ReadRequired(schema));
  for (const auto& [keyword, operand] : schema.json->items()) {
    const std::string_view type = TypeOfKeyword(keyword);
    if (!type.empty() && !IsChecked(keyword)) keywords.unknown.push_back({keyword, std::string(type)});
  }
  return keywords;
}

bool IsWithinBounds(const NumberBounds& bounds, const SchemaJson& value) {
  if (!bounds.minimum.has_value() && !bounds.maximum.has_value()) return true;
  const Decimal number = Decimal::FromJson(value);
  if (bounds.minimum.has_value()) {
    if (bounds.excludes_minimum ? number <= *bounds.minimum : number < *bounds.minimum) return false;
  }
  if (!bounds.maximum.has_value()) return true;
  return bounds.excludes_maximum ? number < *bounds.maximum : number <= *bounds.maximum;
}

// `names` has no name twice.
bool HasAll(const SchemaJson& value, const std::vector<std::string>& names) {
  if (names.size() > value.size()) return false;
  absl::flat_hash_set<std::string> members;
  for (const auto& [name, member] : value.items()) members.insert(name);
  return std::all_of(names.begin(), names.end(), [&](const std::string& name) { return members.contains(name); });
}

bool Conforms(const SchemaJson& value, const ValueKeywords& keywords) {
  if (value.is_number()) return IsWithinBounds(keywords.bounds, value);
  if (value.is_string()) {
    return keywords.characters.Allow(static_cast<int64_t>(CountCodePoints(value.get_ref<const std::string&>())));
  }
  if (value.is_array()) return keywords.elements.Allow(std::ssize(value));
  if (value.is_object()) return keywords.members.Allow(std::ssize(value)) && HasAll(value, keywords.required);
  return true;
}

}  // namespace

absl::StatusOr<std::vector<SchemaJson>> KeepConforming(const PlacedSchema& schema,
                                                       const std::vector<SchemaJson>& values) {
  CADRE_ASSIGN_OR_RETURN(const ValueKeywords keywords, ReadKeywords(schema));
  std::vector<SchemaJson> kept;
  for (const SchemaJson& value : values) {
    for (const UnknownKeyword& keyword : keywords.unknown) {
      if (!HasType(value, keyword.type)) continue;
      return UnsupportedSchema(schema.path, absl::StrCat(Quoted(keyword.name), " beside enum or const"));
    }
    if (Conforms(value, keywords)) kept.push_back(value);
  }
  return kept;
}

}  // namespace cadre
