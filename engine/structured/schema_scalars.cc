// SchemaCompiler: numbers, strings and arrays.
#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/structured/json_schema.h"
#include "engine/structured/schema_compiler.h"
#include "engine/structured/string_format.h"

namespace cadre {
namespace {

// The error of an automaton, with its place in the schema.
absl::Status Placed(const PlacedSchema& schema, const char* keyword, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(schema.path, "/", keyword, ": ", ToAbsl(ToStd(status.message()))));
}

}  // namespace

absl::Status SchemaCompiler::FillNumber(const PlacedSchema& schema, bool is_integer, int32_t start) {
  CADRE_ASSIGN_OR_RETURN(const NumberBounds bounds, ReadBounds(schema));
  if (!bounds.any()) {
    json_.AddLast(start, is_integer ? json_.AnyInteger() : json_.AnyNumber());
    return absl::OkStatus();
  }
  const absl::StatusOr<ByteDfa> dfa = Charge(is_integer ? IntegerDfa(bounds) : NumberDfa(bounds));
  if (!dfa.ok()) {
    // The keyword as it is written; the multiples, if any, cost the most.
    for (const char* keyword : {"multipleOf", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
      if (schema.Has(keyword)) return Placed(schema, keyword, dfa.status());
    }
    return dfa.status();
  }
  const int32_t end = grammar_.AddState();
  grammar_.SetReturn(end);
  grammar_.AddDfa(start, *dfa, end);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<ByteDfa>> SchemaCompiler::PatternContent(const PlacedSchema& schema) {
  std::optional<ByteDfa> content;
  if (schema.Has("pattern")) {
    if (!schema["pattern"].is_string()) return SchemaError(schema.path, "\"pattern\" is not a string");
    absl::StatusOr<ByteDfa> dfa = Charge(CompileRegex(schema["pattern"].get_ref<const std::string&>(),
                                                      RegexExtent::kSearch, CharacterCode::kJsonString));
    if (!dfa.ok()) return Placed(schema, "pattern", dfa.status());
    content = *std::move(dfa);
  }
  if (schema.Has("format")) {
    if (!schema["format"].is_string()) return SchemaError(schema.path, "\"format\" is not a string");
    const auto& name = schema["format"].get_ref<const std::string&>();
    if (IsFormatOfAnyText(name)) return content;
    const std::optional<std::string> pattern = FormatPattern(name);
    if (!pattern.has_value()) {
      return UnsupportedSchema(schema.path,
                               absl::StrCat("the format ", Quoted(name), " (supported: ", SupportedFormats(), ")"));
    }
    absl::StatusOr<ByteDfa> dfa = Charge(CompileRegex(*pattern, RegexExtent::kWholeText, CharacterCode::kJsonString));
    if (dfa.ok() && content.has_value()) dfa = Charge(Intersect(*content, *dfa));
    if (!dfa.ok()) return Placed(schema, "format", dfa.status());
    content = *std::move(dfa);
  }
  return content;
}

absl::StatusOr<std::optional<ByteDfa>> SchemaCompiler::StringContent(const PlacedSchema& schema) {
  CADRE_ASSIGN_OR_RETURN(const int32_t min, ReadMinimumCount(schema, "minLength"));
  CADRE_ASSIGN_OR_RETURN(const int32_t max, ReadMaximumCount(schema, "maxLength"));
  CADRE_ASSIGN_OR_RETURN(std::optional<ByteDfa> content, PatternContent(schema));
  if (!content.has_value() || (min == 0 && max == kNoLengthLimit)) return content;
  absl::StatusOr<ByteDfa> limited = Charge(LimitLength(*content, min, max));
  if (!limited.ok()) return Placed(schema, max != kNoLengthLimit ? "maxLength" : "minLength", limited.status());
  return *std::move(limited);
}

absl::Status SchemaCompiler::FillString(const PlacedSchema& schema, int32_t start) {
  CADRE_ASSIGN_OR_RETURN(const int32_t min, ReadMinimumCount(schema, "minLength"));
  CADRE_ASSIGN_OR_RETURN(const int32_t max, ReadMaximumCount(schema, "maxLength"));
  CADRE_ASSIGN_OR_RETURN(const std::optional<ByteDfa> content, StringContent(schema));
  if (content.has_value()) {
    const int32_t end = grammar_.AddState();
    grammar_.AddDfa(grammar_.AddText(start, "\""), *content, end);
    grammar_.SetReturn(grammar_.AddText(end, "\""));
  } else if (min > 0 || max != kNoLengthLimit) {
    AddCountedCharacters(start, min, max);
  } else {
    json_.AddLast(start, json_.AnyString());
  }
  return absl::OkStatus();
}

void SchemaCompiler::AddCountedCharacters(int32_t start, int32_t min, int32_t max) {
  const int32_t end = grammar_.AddState();
  grammar_.SetReturn(end);
  int32_t state = grammar_.AddText(start, "\"");
  for (int32_t count = 0;; ++count) {
    if (count >= min && (max == kNoLengthLimit || count <= max)) grammar_.AddBytes(state, '"', '"', end);
    if (count == std::max(min, max) || grammar_.is_too_large()) break;
    const int32_t next = grammar_.AddState();
    grammar_.AddCall(state, json_.Character(), next);
    state = next;
  }
  if (max == kNoLengthLimit) grammar_.AddCall(state, json_.Character(), state);
}

absl::Status SchemaCompiler::FillArray(const PlacedSchema& schema, int32_t start) {
  CADRE_ASSIGN_OR_RETURN(const int32_t min, ReadMinimumCount(schema, "minItems"));
  CADRE_ASSIGN_OR_RETURN(int32_t max, ReadMaximumCount(schema, "maxItems"));
  std::vector<int32_t> prefix;
  if (schema.Has("prefixItems")) {
    if (!schema["prefixItems"].is_array()) return SchemaError(schema.path, "\"prefixItems\" is not a list of schemas");
    for (const SchemaJson& item : schema["prefixItems"]) {
      CADRE_ASSIGN_OR_RETURN(const int32_t rule,
                             RuleOf(item, absl::StrCat(schema.path, "/prefixItems/", prefix.size())));
      prefix.push_back(rule);
    }
  }
  int32_t rest = json_.AnyValue();
  if (schema.Has("items")) {
    if (schema["items"].is_array()) return UnsupportedSchema(schema.path, "\"items\" as a list beside \"prefixItems\"");
    CADRE_ASSIGN_OR_RETURN(rest, RuleOf(schema["items"], schema.path + "/items"));
  }
  // From the last counted element on, every state would be the same.
  const auto num_prefix = static_cast<int32_t>(prefix.size());
  const int32_t num_counted = max == kNoLengthLimit ? std::max({min, num_prefix, 1}) : max;
  const int32_t opened = json_.AddSpace(grammar_.AddText(start, "["));
  if (min == 0) grammar_.SetReturn(grammar_.AddText(opened, "]"));
  int32_t before_element = opened;
  for (int32_t count = 1; count <= num_counted && !grammar_.is_too_large(); ++count) {
    const int32_t element = count <= num_prefix ? prefix[static_cast<size_t>(count) - 1] : rest;
    const int32_t behind = grammar_.AddState();
    grammar_.AddCall(before_element, element, behind);
    if (count >= min) grammar_.SetReturn(grammar_.AddText(json_.AddSpace(behind), "]"));
    before_element = json_.AddSpace(grammar_.AddText(behind, ","));
    if (count == num_counted && max == kNoLengthLimit) grammar_.AddCall(before_element, rest, behind);
  }
  return absl::OkStatus();
}

}  // namespace cadre
