#include "engine/structured/schema_merge.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/structured/number_pattern.h"

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

bool RestrictsOthers(const SchemaJson& schema) {
  return schema.contains("additionalProperties") && schema["additionalProperties"] != true;
}

bool HasPatterns(const SchemaJson& schema) {
  return schema.contains("patternProperties") && !schema["patternProperties"].empty();
}

// Whether it neither lists members nor says what others are.
bool SaysNothingOfMembers(const SchemaJson& schema) {
  return !schema.contains("properties") && !schema.contains("patternProperties") &&
         !schema.contains("additionalProperties");
}

// additionalProperties speaks of what is not listed beside it: where the lists of expressions differ, of what no
// expression says.
absl::Status CheckAdditional(const SchemaJson& a, const SchemaJson& b, const std::string& path) {
  if (!RestrictsOthers(a) && !RestrictsOthers(b)) return absl::OkStatus();
  if (SaysNothingOfMembers(a) || SaysNothingOfMembers(b)) return absl::OkStatus();
  if (HasSameKeys(a, b, "patternProperties")) {
    if (!HasPatterns(a) || HasSameKeys(a, b, "properties")) return absl::OkStatus();
  }
  return UnsupportedSchema(path,
                           "\"additionalProperties\" beside \"patternProperties\" in a part of allOf, or beside $ref, "
                           "whose properties differ");
}

absl::flat_hash_set<std::string> PropertyNames(const SchemaJson& schema) {
  absl::flat_hash_set<std::string> names;
  if (!schema.contains("properties") || !schema["properties"].is_object()) return names;
  for (const auto& [name, property] : schema["properties"].items()) names.insert(name);
  return names;
}

// A property that `part` does not list is additional to it.
void RestrictOthers(const SchemaJson& part, SchemaJson* merged) {
  if (!RestrictsOthers(part) || HasPatterns(part)) return;
  if (!merged->contains("properties") || !(*merged)["properties"].is_object()) return;
  const absl::flat_hash_set<std::string> listed = PropertyNames(part);
  const SchemaJson& additional = part["additionalProperties"];
  for (auto& [name, property] : (*merged)["properties"].get_ref<SchemaJson::object_t&>()) {
    if (!listed.contains(name)) property = Both(property, additional);
  }
}

// What a schema says of the elements of an array, each keyword looked up once.
struct ElementSchemas {
  explicit ElementSchemas(const SchemaJson& schema) {
    if (const auto found = schema.find("prefixItems"); found != schema.end()) prefix = &*found;
    if (const auto found = schema.find("items"); found != schema.end()) items = &*found;
  }

  size_t num_prefix() const { return prefix == nullptr ? 0 : prefix->size(); }

  // Whatever the index when it is beyond the end of `prefixItems`.
  SchemaJson Of(size_t index) const {
    if (index < num_prefix()) return (*prefix)[index];
    return items == nullptr ? SchemaJson(true) : *items;
  }

  const SchemaJson* prefix = nullptr;  // absent: null
  const SchemaJson* items = nullptr;
};

// `items` speaks of the elements behind those of the `prefixItems` beside it: the two are merged element by element.
absl::Status MergeElements(const SchemaJson& a, const SchemaJson& b, const std::string& path, SchemaJson* merged) {
  const ElementSchemas left(a);
  const ElementSchemas right(b);
  for (const ElementSchemas* schemas : {&left, &right}) {
    if (schemas->prefix == nullptr || schemas->prefix->is_array()) continue;
    return SchemaError(path, "\"prefixItems\" is not a list of schemas");
  }
  const size_t num_prefix = std::max(left.num_prefix(), right.num_prefix());
  if (num_prefix == 0) return absl::OkStatus();
  SchemaJson prefix = SchemaJson::array();
  for (size_t i = 0; i < num_prefix; ++i) prefix.push_back(Both(left.Of(i), right.Of(i)));
  (*merged)["prefixItems"] = std::move(prefix);
  if (left.items != nullptr || right.items != nullptr) {
    (*merged)["items"] = Both(left.Of(num_prefix), right.Of(num_prefix));
  }
  return absl::OkStatus();
}

bool IsLess(const SchemaJson& a, const SchemaJson& b) { return Decimal::FromJson(a) < Decimal::FromJson(b); }

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
    if (IsIn(keyword, {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}))
      return IsLess(a, b) ? b : a;
    if (IsIn(keyword, {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}))
      return IsLess(b, a) ? b : a;
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

// What it takes to copy a value the few times that a merge does. Its text counts: it may be a single long string.
int64_t CopySteps(const SchemaJson& json) {
  constexpr int64_t kStepsPerValue = 40;
  constexpr int64_t kStepsPerByte = 2;
  if (json.is_string()) return kStepsPerValue + kStepsPerByte * std::ssize(json.get_ref<const std::string&>());
  int64_t steps = kStepsPerValue;
  if (json.is_object()) {
    for (const auto& [name, child] : json.get_ref<const SchemaJson::object_t&>()) {
      steps += kStepsPerByte * std::ssize(name) + CopySteps(child);
    }
  } else if (json.is_array()) {
    for (const SchemaJson& child : json) steps += CopySteps(child);
  }
  return steps;
}

// Of lists that are compared item by item.
int64_t CountPairs(const SchemaJson& a, const SchemaJson& b, const char* keyword) {
  if (!a.is_object() || !b.is_object() || !a.contains(keyword) || !b.contains(keyword)) return 0;
  return CountValues(a[keyword]) * CountValues(b[keyword]);
}

// For the copies of additionalProperties that the properties of the other schema get.
int64_t RestrictionSteps(const SchemaJson& part, const SchemaJson& other) {
  if (!part.is_object() || !other.is_object() || !RestrictsOthers(part)) return 0;
  const auto properties = other.find("properties");
  return properties == other.end() ? 0 : std::ssize(*properties) * CopySteps(part["additionalProperties"]);
}

// For the copies of items that the prefixItems of the other schema get.
int64_t ElementSteps(const SchemaJson& part, const SchemaJson& other) {
  if (!part.is_object() || !other.is_object()) return 0;
  const ElementSchemas elements(part);
  const int64_t num_copies =
      static_cast<int64_t>(ElementSchemas(other).num_prefix()) - static_cast<int64_t>(elements.num_prefix());
  return num_copies <= 0 || elements.items == nullptr ? 0 : num_copies * CopySteps(*elements.items);
}

}  // namespace

int64_t MergeSteps(const SchemaJson& a, const SchemaJson& b) {
  // Each keyword of `b` is looked for among those merged so far.
  int64_t steps = CopySteps(a) + CopySteps(b) + (std::ssize(a) + std::ssize(b)) * std::ssize(b);
  steps += RestrictionSteps(a, b) + RestrictionSteps(b, a) + ElementSteps(a, b) + ElementSteps(b, a);
  for (const char* keyword : {"enum", "type"}) steps += CountPairs(a, b, keyword);
  return steps;
}

absl::StatusOr<SchemaJson> MergeSchemas(const SchemaJson& a, const SchemaJson& b, const std::string& path) {
  if (a == false || b == true) return a;
  if (b == false || a == true) return b;
  if (!a.is_object() || !b.is_object()) return SchemaError(path, "a schema is neither an object nor a boolean");
  if (b.empty()) return a;
  if (a.empty()) return AssertionsOf(b);
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
  for (const SchemaJson* part : {&a, &b}) RestrictOthers(*part, &merged);
  CADRE_RETURN_IF_ERROR(MergeElements(a, b, path, &merged));
  return merged;
}

}  // namespace cadre
