#include "engine/structured/schema_disjoint.h"

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/structured/json_schema.h"

namespace cadre {
namespace {

constexpr int kMaxDepth = 4;  // properties of properties of ...
// What the smallest comparison takes: lists of types are made and compared.
constexpr int64_t kStepsPerComparison = 150;
constexpr int64_t kStepsPerAlternative = 4;
constexpr int64_t kStepsPerName = 10;

bool Contains(const std::vector<std::string>& list, const std::string& item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

bool HasTypeOf(const std::vector<std::string>& types, const std::string& type) {
  return Contains(types, type) || (type == "integer" && Contains(types, "number")) ||
         (type == "number" && Contains(types, "integer"));
}

void AddShared(const std::vector<std::string>& a, const std::vector<std::string>& b, std::vector<std::string>* shared) {
  for (const std::string& type : a) {
    if (HasTypeOf(b, type) && !Contains(*shared, type)) shared->push_back(type);
  }
}

bool Forbids(const PlacedSchema& schema, const std::string& name) {
  if (schema.Has("properties") && schema["properties"].contains(name)) return schema["properties"][name] == false;
  return schema.Has("additionalProperties") && schema["additionalProperties"] == false &&
         !schema.Has("patternProperties");
}

class Comparison {
 public:
  Comparison(SchemaResolver* resolver, SchemaBudget* budget) : resolver_(*resolver), budget_(*budget) {}

  absl::StatusOr<bool> AreDisjoint(const SchemaJson& a, const SchemaJson& b, const std::string& path, int depth) {
    CADRE_ASSIGN_OR_RETURN(const SchemaJson* left, resolver_.Resolve(a, path));
    CADRE_ASSIGN_OR_RETURN(const SchemaJson* right, resolver_.Resolve(b, path));
    if (*left == false || *right == false) return true;
    if (!left->is_object() || !right->is_object() || depth > kMaxDepth) return false;
    // Alternatives often lead to the same schemas again.
    const Key key = {left, right, depth};
    if (const auto found = known_.find(key); found != known_.end()) return found->second;
    CADRE_ASSIGN_OR_RETURN(const bool is_disjoint, AreResolvedDisjoint(left, right, path, depth));
    known_[key] = is_disjoint;
    return is_disjoint;
  }

 private:
  using Key = std::tuple<const SchemaJson*, const SchemaJson*, int>;

  absl::StatusOr<bool> AreResolvedDisjoint(const SchemaJson* left, const SchemaJson* right, const std::string& path,
                                           int depth) {
    CADRE_RETURN_IF_ERROR(Spend(kStepsPerComparison, path));
    for (const char* keyword : {"anyOf", "oneOf"}) {
      if (left->contains(keyword)) return AreAllDisjoint(*left, keyword, *right, path, depth);
      if (right->contains(keyword)) return AreAllDisjoint(*right, keyword, *left, path, depth);
    }
    return ArePlainDisjoint({left, path}, {right, path}, depth);
  }

  absl::StatusOr<bool> AreAllDisjoint(const SchemaJson& schema, const char* keyword, const SchemaJson& other,
                                      const std::string& path, int depth) {
    CADRE_ASSIGN_OR_RETURN(const std::vector<const SchemaJson*> alternatives,
                           resolver_.Alternatives(schema, keyword, path));
    CADRE_RETURN_IF_ERROR(Spend(kStepsPerAlternative * std::ssize(alternatives), path));
    for (const SchemaJson* alternative : alternatives) {
      CADRE_ASSIGN_OR_RETURN(const bool is_disjoint, AreDisjoint(*alternative, other, path, depth + 1));
      if (!is_disjoint) return false;
    }
    return true;
  }

  absl::StatusOr<bool> ArePlainDisjoint(const PlacedSchema& a, const PlacedSchema& b, int depth) {
    const auto num_values = [](const PlacedSchema& schema) {
      return schema.Has("enum") ? std::ssize(schema["enum"]) : std::ptrdiff_t{1};
    };
    CADRE_RETURN_IF_ERROR(
        Spend((1 + num_values(a)) * (1 + num_values(b)) + 8 * (std::ssize(*a.json) + std::ssize(*b.json)), a.path));
    CADRE_ASSIGN_OR_RETURN(const auto a_values, ValuesOf(a));
    CADRE_ASSIGN_OR_RETURN(const auto b_values, ValuesOf(b));
    if (a_values.has_value() && b_values.has_value()) {
      return std::none_of(a_values->begin(), a_values->end(), [&](const SchemaJson& value) {
        return std::find(b_values->begin(), b_values->end(), value) != b_values->end();
      });
    }
    CADRE_ASSIGN_OR_RETURN(const std::vector<std::string> a_types, ConformingTypesOf(a));
    CADRE_ASSIGN_OR_RETURN(const std::vector<std::string> b_types, ConformingTypesOf(b));
    if (a_values.has_value()) return HasNone(*a_values, b_types);
    if (b_values.has_value()) return HasNone(*b_values, a_types);
    CADRE_ASSIGN_OR_RETURN(const std::vector<std::string> a_generated, TypesOf(a));
    CADRE_ASSIGN_OR_RETURN(const std::vector<std::string> b_generated, TypesOf(b));
    std::vector<std::string> shared;
    AddShared(a_generated, b_types, &shared);
    AddShared(b_generated, a_types, &shared);
    if (shared.empty()) return true;
    return shared == std::vector<std::string>{"object"} ? AreObjectsDisjoint(a, b, depth) : false;
  }

  static bool HasNone(const std::vector<SchemaJson>& values, const std::vector<std::string>& types) {
    return std::none_of(values.begin(), values.end(), [&](const SchemaJson& value) {
      return std::any_of(types.begin(), types.end(), [&](const std::string& type) { return HasType(value, type); });
    });
  }

  absl::StatusOr<bool> AreObjectsDisjoint(const PlacedSchema& a, const PlacedSchema& b, int depth) {
    CADRE_ASSIGN_OR_RETURN(const std::vector<std::string> a_required, ReadRequired(a));
    CADRE_ASSIGN_OR_RETURN(const std::vector<std::string> b_required, ReadRequired(b));
    // Each name is looked for among the others, and among the properties.
    const auto num_names = [](const PlacedSchema& schema) {
      return schema.Has("properties") ? std::ssize(schema["properties"]) : std::ptrdiff_t{0};
    };
    const int64_t num_looked_at = 1 + std::ssize(a_required) + std::ssize(b_required) + num_names(a) + num_names(b);
    CADRE_RETURN_IF_ERROR(
        Spend((std::ssize(a_required) + std::ssize(b_required)) * (kStepsPerName + num_looked_at), a.path));
    for (const std::string& name : a_required) {
      if (Forbids(b, name)) return true;
      const bool both_list = a.Has("properties") && a["properties"].contains(name) && b.Has("properties") &&
                             b["properties"].contains(name);
      if (!Contains(b_required, name) || !both_list) continue;
      CADRE_ASSIGN_OR_RETURN(const bool is_disjoint,
                             AreDisjoint(a["properties"][name], b["properties"][name], a.path, depth + 1));
      if (is_disjoint) return true;
    }
    return std::any_of(b_required.begin(), b_required.end(), [&](const std::string& name) { return Forbids(a, name); });
  }

  absl::Status Spend(int64_t steps, const std::string& path) {
    absl::Status status = budget_.Spend(steps);
    if (status.ok()) return status;
    return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  }

  SchemaResolver& resolver_;
  SchemaBudget& budget_;
  absl::flat_hash_map<Key, bool> known_;
};

}  // namespace

absl::Status CheckOneOf(const std::vector<const SchemaJson*>& alternatives, const std::string& path,
                        SchemaResolver* resolver, SchemaBudget* budget) {
  if (alternatives.size() > kMaxOneOf) {
    return UnsupportedSchema(path, absl::StrCat("\"oneOf\" with ", alternatives.size(),
                                                " alternatives, above the limit of ", kMaxOneOf, ","));
  }
  Comparison comparison(resolver, budget);
  for (size_t i = 0; i < alternatives.size(); ++i) {
    for (size_t j = i + 1; j < alternatives.size(); ++j) {
      CADRE_ASSIGN_OR_RETURN(const bool is_disjoint,
                             comparison.AreDisjoint(*alternatives[i], *alternatives[j], path, 0));
      if (is_disjoint) continue;
      return UnsupportedSchema(path, absl::StrCat("\"oneOf\" whose alternatives ", i, " and ", j,
                                                  " may both hold (anyOf asks for one or both)"));
    }
  }
  return absl::OkStatus();
}

}  // namespace cadre
