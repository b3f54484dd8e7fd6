#include "engine/structured/schema_merge.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"

namespace cadre {
namespace {

SchemaJson Both(const SchemaJson& a, const SchemaJson& b) {
  if (a == b) return a;
  return SchemaJson{{"allOf", SchemaJson::array({a, b})}};
}

SchemaJson AsArray(const SchemaJson& json) { return json.is_array() ? json : SchemaJson::array({json}); }

bool Contains(const SchemaJson& array, const SchemaJson& item) {
  return std::find(array.begin(), array.end(), item) != array.end();
}

// Types in both lists; an integer is a number.
SchemaJson CommonTypes(const SchemaJson& a, const SchemaJson& b) {
  const SchemaJson left = AsArray(a);
  const SchemaJson right = AsArray(b);
  SchemaJson common = SchemaJson::array();
  const auto add = [&](const SchemaJson& type) {
    if (!Contains(common, type)) common.push_back(type);
  };
  for (const SchemaJson& type : left) {
    if (Contains(right, type) || (type == "integer" && Contains(right, "number"))) add(type);
    if (type == "number" && Contains(right, "integer")) add("integer");
  }
  return common;
}

SchemaJson CommonItems(const SchemaJson& a, const SchemaJson& b) {
  SchemaJson common = SchemaJson::array();
  for (const SchemaJson& item : a) {
    if (Contains(b, item)) common.push_back(item);
  }
  return common;
}

SchemaJson AllItems(const SchemaJson& a, const SchemaJson& b) {
  const auto text_of = [](const SchemaJson& item) {
    return item.dump(-1, ' ', false, SchemaJson::error_handler_t::replace);
  };
  SchemaJson all = a;
  absl::flat_hash_set<std::string> known;
  for (const SchemaJson& item : a) known.insert(text_of(item));
  for (const SchemaJson& item : b) {
    if (known.insert(text_of(item)).second) all.push_back(item);
  }
  return all;
}

bool IsIn(std::string_view keyword, std::initializer_list<std::string_view> keywords) {
  return std::find(keywords.begin(), keywords.end(), keyword) != keywords.end();
}

SchemaJson MergeProperties(const SchemaJson& a, const SchemaJson& b) {
  SchemaJson merged = a;
  auto& members = merged.get_ref<SchemaJson::object_t&>();
  // By index: ordered_json looks at every name before the one it finds.
  const auto member = [&](size_t i) -> auto& { return *(members.begin() + static_cast<std::ptrdiff_t>(i)); };
  absl::flat_hash_map<std::string, size_t> indices;
  for (size_t i = 0; i < members.size(); ++i) indices[member(i).first] = i;
  for (const auto& [name, schema] : b.items()) {
    if (const auto found = indices.find(name); found != indices.end()) {
      SchemaJson& both = member(found->second).second;
      both = Both(both, schema);
    } else {
      members.emplace_back(name, schema);
    }
  }
  return merged;
}

bool HasSameKeys(const SchemaJson& a, const SchemaJson& b, const char* keyword) {
  const SchemaJson left = a.value(keyword, SchemaJson::object());
  const SchemaJson right = b.value(keyword, SchemaJson::object());
  if (!left.is_object() || !right.is_object() || left.size() != right.size()) return false;
  absl::flat_hash_set<std::string> names;
  for (const auto& [name, schema] : right.items()) names.insert(name);
  return std::all_of(left.items().begin(), left.items().end(),
                     [&](const auto& item) { return names.contains(item.key()); });
}

// additionalProperties speaks of the properties beside it: those of the other schema would be additional to it.
absl::Status CheckAdditional(const SchemaJson& a, const SchemaJson& b, const std::string& path) {
  const auto restricts = [](const SchemaJson& schema) {
    return schema.contains("additionalProperties") && schema["additionalProperties"] != true;
  };
  if (!restricts(a) && !restricts(b)) return absl::OkStatus();
  if (HasSameKeys(a, b, "properties") && HasSameKeys(a, b, "patternProperties")) return absl::OkStatus();
  return UnsupportedSchema(path,
                           "\"additionalProperties\" in a part of allOf, or beside $ref, whose properties differ");
}

// What holds for element `index`, whatever its index when that is beyond the end of `prefixItems`.
SchemaJson ElementSchema(const SchemaJson& schema, size_t index) {
  if (schema.contains("prefixItems") && index < schema["prefixItems"].size()) return schema["prefixItems"][index];
  return schema.value("items", SchemaJson(true));
}

// `items` speaks of the elements behind those of the `prefixItems` beside it: the two are merged element by element.
absl::Status MergeElements(const SchemaJson& a, const SchemaJson& b, const std::string& path, SchemaJson* merged) {
  size_t num_prefix = 0;
  for (const SchemaJson* schema : {&a, &b}) {
    if (!schema->contains("prefixItems")) continue;
    if (!(*schema)["prefixItems"].is_array()) return SchemaError(path, "\"prefixItems\" is not a list of schemas");
    num_prefix = std::max(num_prefix, (*schema)["prefixItems"].size());
  }
  if (num_prefix == 0) return absl::OkStatus();
  SchemaJson prefix = SchemaJson::array();
  for (size_t i = 0; i < num_prefix; ++i) prefix.push_back(Both(ElementSchema(a, i), ElementSchema(b, i)));
  (*merged)["prefixItems"] = std::move(prefix);
  if (a.contains("items") || b.contains("items")) {
    (*merged)["items"] = Both(ElementSchema(a, num_prefix), ElementSchema(b, num_prefix));
  }
  return absl::OkStatus();
}

absl::StatusOr<SchemaJson> MergeKeyword(const std::string& keyword, const SchemaJson& a, const SchemaJson& b,
                                        const std::string& path) {
  if (a == b) return a;
  if (keyword == "type") return CommonTypes(a, b);
  if (keyword == "properties" && a.is_object() && b.is_object()) return MergeProperties(a, b);
  if (keyword == "required" && a.is_array() && b.is_array()) return AllItems(a, b);
  if (keyword == "enum" && a.is_array() && b.is_array()) return CommonItems(a, b);
  if (keyword == "const") return SchemaJson();  // the caller makes it false
  if (IsIn(keyword, {"items", "additionalProperties", "propertyNames"})) return Both(a, b);
  if (a.is_number() && b.is_number()) {
    if (IsIn(keyword, {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})) return std::max(a, b);
    if (IsIn(keyword, {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})) return std::min(a, b);
  }
  return UnsupportedSchema(path, absl::StrCat("\"", keyword, "\" in two parts of allOf, or beside $ref"));
}

// Objects, arrays and what is in them.
int64_t CountValues(const SchemaJson& json) {
  int64_t count = 1;
  if (!json.is_structured()) return count;
  for (const SchemaJson& child : json) count += CountValues(child);
  return count;
}

// Of lists that are compared item by item.
int64_t CountPairs(const SchemaJson& a, const SchemaJson& b, const char* keyword) {
  if (!a.is_object() || !b.is_object() || !a.contains(keyword) || !b.contains(keyword)) return 0;
  return CountValues(a[keyword]) * CountValues(b[keyword]);
}

}  // namespace

int64_t MergeSteps(const SchemaJson& a, const SchemaJson& b) {
  constexpr int64_t kStepsPerValue = 40;  // copied several times
  int64_t steps = kStepsPerValue * (CountValues(a) + CountValues(b)) + std::ssize(a) * std::ssize(b);
  for (const char* keyword : {"enum", "type"}) steps += CountPairs(a, b, keyword);
  return steps;
}

absl::StatusOr<SchemaJson> MergeSchemas(const SchemaJson& a, const SchemaJson& b, const std::string& path) {
  if (a == false || b == true) return a;
  if (b == false || a == true) return b;
  if (!a.is_object() || !b.is_object()) return SchemaError(path, "a schema is neither an object nor a boolean");
  CADRE_RETURN_IF_ERROR(CheckAdditional(a, b, path));
  SchemaJson merged = a;
  for (const auto& [keyword, value] : b.items()) {
    if (IsAnnotation(keyword) || keyword == "prefixItems") continue;
    if (!merged.contains(keyword)) {
      merged[keyword] = value;
      continue;
    }
    if (keyword == "const" && merged[keyword] != value) return SchemaJson(false);
    CADRE_ASSIGN_OR_RETURN(SchemaJson both, MergeKeyword(keyword, merged[keyword], value, path));
    merged[keyword] = std::move(both);
  }
  CADRE_RETURN_IF_ERROR(MergeElements(a, b, path, &merged));
  return merged;
}

}  // namespace cadre
