#include "engine/structured/schema_keywords.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/structured/json_schema.h"

namespace cadre {
namespace {

struct Keyword {
  std::string_view name;
  std::string_view type;  // that it speaks of; empty: of all
};
constexpr Keyword kKeywords[] = {
    {"additionalProperties", "object"},
    {"anyOf", ""},
    {"const", ""},
    {"enum", ""},
    {"exclusiveMaximum", "number"},
    {"exclusiveMinimum", "number"},
    {"format", "string"},
    {"items", "array"},
    {"maxItems", "array"},
    {"maxLength", "string"},
    {"maxProperties", "object"},
    {"maximum", "number"},
    {"minItems", "array"},
    {"minLength", "string"},
    {"minProperties", "object"},
    {"minimum", "number"},
    {"multipleOf", "number"},
    {"oneOf", ""},
    {"pattern", "string"},
    {"patternProperties", "object"},
    {"prefixItems", "array"},
    {"properties", "object"},
    {"propertyNames", "object"},
    {"required", "object"},
    {"type", ""},
    {"uniqueItems", "array"},
};
constexpr std::string_view kTypes[] = {"object", "array", "string", "number", "integer", "boolean", "null"};

const Keyword* FindKeyword(std::string_view name) {
  const auto* found = std::find_if(std::begin(kKeywords), std::end(kKeywords),
                                   [&](const Keyword& keyword) { return keyword.name == name; });
  return found == std::end(kKeywords) ? nullptr : found;
}

bool Contains(const std::vector<std::string>& list, std::string_view item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

absl::StatusOr<std::vector<std::string>> NamedTypes(const PlacedSchema& schema) {
  const SchemaJson& type = schema["type"];
  const SchemaJson list = type.is_array() ? type : SchemaJson::array({type});
  std::vector<std::string> types;
  for (const SchemaJson& entry : list) {
    const bool is_known = entry.is_string() && std::find(std::begin(kTypes), std::end(kTypes),
                                                         entry.get_ref<const std::string&>()) != std::end(kTypes);
    if (!is_known) return SchemaError(schema.path, absl::StrCat("\"type\" is ", Quoted(entry.dump())));
    if (!Contains(types, entry.get_ref<const std::string&>())) types.push_back(entry);
  }
  if (Contains(types, "number")) std::erase(types, "integer");
  return types;
}

absl::Status ReadBound(const PlacedSchema& schema, const char* keyword, const char* exclusive_keyword, bool is_minimum,
                       std::optional<Decimal>* bound, bool* is_excluded) {
  for (const char* name : {keyword, exclusive_keyword}) {
    if (schema.Has(name) && !schema[name].is_number()) {
      return SchemaError(schema.path, absl::StrCat("\"", name, "\" is ", Quoted(schema[name].dump()), ", no number"));
    }
  }
  const bool has_plain = schema.Has(keyword);
  if (!has_plain && !schema.Has(exclusive_keyword)) return absl::OkStatus();
  // Of both, the one that leaves less; of equals, the exclusive one.
  *is_excluded = schema.Has(exclusive_keyword);
  if (has_plain && *is_excluded) {
    const Decimal plain = Decimal::FromJson(schema[keyword]);
    const Decimal exclusive = Decimal::FromJson(schema[exclusive_keyword]);
    *is_excluded = is_minimum ? exclusive >= plain : exclusive <= plain;
  }
  *bound = Decimal::FromJson(schema[*is_excluded ? exclusive_keyword : keyword]);
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckKeywords(const PlacedSchema& schema) {
  for (const auto& [name, value] : schema.json->items()) {
    if (!IsAnnotation(name) && FindKeyword(name) == nullptr) {
      return UnsupportedSchema(schema.path, absl::StrCat("the keyword ", Quoted(name)));
    }
  }
  if (schema.Has("uniqueItems") && schema["uniqueItems"] != false) {
    return UnsupportedSchema(schema.path, "\"uniqueItems\": true");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ConformingTypesOf(const PlacedSchema& schema) {
  if (schema.Has("type")) return NamedTypes(schema);
  return std::vector<std::string>{"object", "array", "string", "number", "boolean", "null"};
}

absl::StatusOr<std::vector<std::string>> TypesOf(const PlacedSchema& schema) {
  if (schema.Has("type")) return NamedTypes(schema);
  std::vector<std::string> types;
  for (const auto& [name, value] : schema.json->items()) {
    const Keyword* keyword = FindKeyword(name);
    if (keyword != nullptr && !keyword->type.empty() && !Contains(types, keyword->type))
      types.emplace_back(keyword->type);
  }
  if (types.empty()) return ConformingTypesOf(schema);
  return types;
}

bool HasType(const SchemaJson& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "number") return value.is_number();
  return value.is_number_integer() || (value.is_number() && value.get<double>() == std::floor(value.get<double>()));
}

absl::StatusOr<std::optional<std::vector<SchemaJson>>> ValuesOf(const PlacedSchema& schema) {
  if (!schema.Has("enum") && !schema.Has("const")) return std::nullopt;
  std::vector<SchemaJson> values;
  if (schema.Has("enum")) {
    if (!schema["enum"].is_array()) return SchemaError(schema.path, "\"enum\" is not a list");
    values.assign(schema["enum"].begin(), schema["enum"].end());
  } else {
    values.push_back(schema["const"]);
  }
  if (schema.Has("const")) {
    const SchemaJson& only = schema["const"];
    std::erase_if(values, [&](const SchemaJson& value) { return value != only; });
  }
  if (schema.Has("type")) {
    CADRE_ASSIGN_OR_RETURN(const std::vector<std::string> types, NamedTypes(schema));
    std::erase_if(values, [&](const SchemaJson& value) {
      return std::none_of(types.begin(), types.end(), [&](const std::string& type) { return HasType(value, type); });
    });
  }
  return values;
}

std::string_view TypeOfKeyword(std::string_view name) {
  const Keyword* keyword = FindKeyword(name);
  return keyword == nullptr ? std::string_view() : keyword->type;
}

absl::StatusOr<std::optional<int64_t>> ReadCount(const PlacedSchema& schema, const char* keyword) {
  if (!schema.Has(keyword)) return std::nullopt;
  const SchemaJson& json = schema[keyword];
  if (json.is_number() && json.get<double>() >= 0 && json.get<double>() == std::floor(json.get<double>())) {
    return static_cast<int64_t>(std::min(json.get<double>(), 1e15));
  }
  return SchemaError(schema.path, absl::StrCat("\"", keyword, "\" is ", Quoted(json.dump()), ", no count"));
}

absl::StatusOr<int32_t> ReadMinimumCount(const PlacedSchema& schema, const char* keyword) {
  CADRE_ASSIGN_OR_RETURN(const std::optional<int64_t> count, ReadCount(schema, keyword));
  if (count.value_or(0) > kMaxSchemaCount) {
    return UnsupportedSchema(
        schema.path, absl::StrCat("\"", keyword, "\" of ", *count, ", above the limit of ", kMaxSchemaCount, ","));
  }
  return static_cast<int32_t>(count.value_or(0));
}

absl::StatusOr<int32_t> ReadMaximumCount(const PlacedSchema& schema, const char* keyword) {
  CADRE_ASSIGN_OR_RETURN(const std::optional<int64_t> count, ReadCount(schema, keyword));
  if (!count.has_value()) return kNoLengthLimit;
  return static_cast<int32_t>(std::min<int64_t>(*count, kMaxSchemaCount));
}

absl::StatusOr<NumberBounds> ReadBounds(const PlacedSchema& schema) {
  NumberBounds bounds;
  CADRE_RETURN_IF_ERROR(
      ReadBound(schema, "minimum", "exclusiveMinimum", /*is_minimum=*/true, &bounds.minimum, &bounds.excludes_minimum));
  CADRE_RETURN_IF_ERROR(ReadBound(schema, "maximum", "exclusiveMaximum", /*is_minimum=*/false, &bounds.maximum,
                                  &bounds.excludes_maximum));
  if (schema.Has("multipleOf")) {
    const SchemaJson& divisor = schema["multipleOf"];
    if (!divisor.is_number() || divisor.get<double>() <= 0) {
      return SchemaError(schema.path,
                         absl::StrCat("\"multipleOf\" is ", Quoted(divisor.dump()), ", no number above 0"));
    }
    bounds.multiple_of = Decimal::FromJson(divisor);
  }
  return bounds;
}

absl::StatusOr<std::vector<std::string>> ReadRequired(const PlacedSchema& schema) {
  std::vector<std::string> names;
  absl::flat_hash_set<std::string> seen;
  if (!schema.Has("required")) return names;
  if (!schema["required"].is_array()) return SchemaError(schema.path, "\"required\" is not a list of names");
  for (const SchemaJson& name : schema["required"]) {
    if (!name.is_string()) return SchemaError(schema.path, "\"required\" is not a list of names");
    if (seen.insert(name.get_ref<const std::string&>()).second) names.push_back(name);
  }
  return names;
}

}  // namespace cadre
