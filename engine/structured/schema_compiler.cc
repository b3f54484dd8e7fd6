#include "engine/structured/schema_compiler.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/json.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/structured/json_schema.h"
#include "engine/structured/schema_disjoint.h"
#include "engine/structured/schema_values.h"

namespace cadre {

absl::StatusOr<Grammar> CompileJsonSchema(std::string_view schema, const ByteSet& spelled) {
  if (schema.size() > kMaxSchemaBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the schema has ", schema.size(), " bytes, the limit is ", kMaxSchemaBytes));
  }
  CADRE_ASSIGN_OR_RETURN(const SchemaJson root, ParseOrderedJson(schema, "#", kMaxSchemaDepth, kMaxSchemaValues));
  return SchemaCompiler(&root).Compile(spelled);
}

absl::StatusOr<Grammar> SchemaCompiler::Compile(const ByteSet& spelled) {
  CADRE_ASSIGN_OR_RETURN(const int32_t start, RuleOf(root_, "#"));
  while (!pending_.empty()) {
    const Pending pending = std::move(pending_.front());
    pending_.pop_front();
    CADRE_RETURN_IF_ERROR(Fill(pending.schema, pending.start));
    if (grammar_.is_too_large()) break;
  }
  int32_t left_recursive_rule = -1;
  absl::StatusOr<Grammar> grammar = grammar_.Build(start, spelled, &left_recursive_rule);
  if (grammar.ok()) return grammar;
  if (left_recursive_rule >= 0) {
    return SchemaError(paths_[left_recursive_rule], "the schema asks for itself without anything around it");
  }
  return absl::Status(grammar.status().code(), absl::StrCat("#: ", ToAbsl(ToStd(grammar.status().message()))));
}

absl::StatusOr<int32_t> SchemaCompiler::RuleOf(const SchemaJson& schema, const std::string& path) {
  CADRE_ASSIGN_OR_RETURN(const SchemaJson* resolved, resolver_.Resolve(schema, path));
  if (const auto found = rules_.find(resolved); found != rules_.end()) return found->second;
  if (std::ssize(rules_) >= kMaxSchemaRules) {
    return absl::ResourceExhaustedError(absl::StrCat(path, ": more than ", kMaxSchemaRules, " subschemas"));
  }
  const int32_t start = grammar_.AddState();
  rules_[resolved] = start;
  paths_[start] = path;
  pending_.push_back({{resolved, path}, start});
  return start;
}

absl::StatusOr<ByteDfa> SchemaCompiler::Charge(absl::StatusOr<ByteDfa> dfa) {
  if (!dfa.ok()) return dfa;
  CADRE_RETURN_IF_ERROR(budget_.Spend(dfa->work()));
  return dfa;
}

absl::Status SchemaCompiler::Fill(const PlacedSchema& schema, int32_t start) {
  if (schema.json->is_boolean()) {
    if (*schema.json == true) json_.AddLast(start, json_.AnyValue());
    return absl::OkStatus();
  }
  CADRE_RETURN_IF_ERROR(CheckKeywords(schema));
  for (const char* keyword : {"anyOf", "oneOf"}) {
    if (schema.Has(keyword)) return FillAlternatives(schema, keyword, start);
  }
  CADRE_ASSIGN_OR_RETURN(const auto values, ValuesOf(schema));
  if (values.has_value()) return FillValues(schema, *values, start);
  CADRE_ASSIGN_OR_RETURN(const std::vector<std::string> types, TypesOf(schema));
  for (const std::string& type : types) CADRE_RETURN_IF_ERROR(FillType(schema, type, start));
  return absl::OkStatus();
}

absl::Status SchemaCompiler::FillAlternatives(const PlacedSchema& schema, const char* keyword, int32_t start) {
  CADRE_ASSIGN_OR_RETURN(const std::vector<const SchemaJson*> alternatives,
                         resolver_.Alternatives(*schema.json, keyword, schema.path));
  if (std::string_view(keyword) == "oneOf") {
    CADRE_RETURN_IF_ERROR(CheckOneOf(alternatives, schema.path, &resolver_, &budget_));
  }
  for (size_t i = 0; i < alternatives.size(); ++i) {
    const std::string path = absl::StrCat(schema.path, "/", keyword, "/", i);
    CADRE_ASSIGN_OR_RETURN(const int32_t rule, RuleOf(*alternatives[i], path));
    json_.AddLast(start, rule);
  }
  return absl::OkStatus();
}

absl::Status SchemaCompiler::FillValues(const PlacedSchema& schema, const std::vector<SchemaJson>& values,
                                        int32_t start) {
  CADRE_ASSIGN_OR_RETURN(const std::vector<SchemaJson> conforming, KeepConforming(schema, values));
  std::vector<std::string> scalars;
  for (const SchemaJson& value : conforming) {
    if (value.is_structured()) {
      grammar_.SetReturn(json_.AddValue(start, value));
    } else {
      scalars.push_back(value.dump(-1, ' ', false, SchemaJson::error_handler_t::replace));
    }
  }
  const int32_t end = grammar_.AddState();
  grammar_.SetReturn(end);
  CADRE_ASSIGN_OR_RETURN(const ByteDfa texts, OneOf(scalars));
  grammar_.AddDfa(start, texts, end);
  return absl::OkStatus();
}

absl::Status SchemaCompiler::FillType(const PlacedSchema& schema, const std::string& type, int32_t start) {
  if (type == "object") return FillObject(schema, start);
  if (type == "array") return FillArray(schema, start);
  if (type == "string") return FillString(schema, start);
  if (type == "number" || type == "integer") return FillNumber(schema, type == "integer", start);
  if (type == "null") {
    grammar_.SetReturn(grammar_.AddText(start, "null"));
  } else {
    grammar_.SetReturn(grammar_.AddText(start, "true"));
    grammar_.SetReturn(grammar_.AddText(start, "false"));
  }
  return absl::OkStatus();
}

}  // namespace cadre
