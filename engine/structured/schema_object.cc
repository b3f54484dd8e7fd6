// SchemaCompiler: objects.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/structured/json_schema.h"
#include "engine/structured/schema_compiler.h"
#include "engine/structured/schema_values.h"

namespace cadre {
namespace {

// As it is written in an answer: every character in one way.
std::string WrittenKey(const std::string& name) {
  return SchemaJson(name).dump(-1, ' ', false, SchemaJson::error_handler_t::replace);
}

std::string Unquoted(const std::string& written) { return written.substr(1, written.size() - 2); }

std::string PointerPart(const std::string& name) {
  std::string part;
  for (const char c : name) part += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return part;
}

// What it takes to see that a key does not match an expression.
constexpr int64_t kStepsPerMatch = 4;
// To write a list of texts as an automaton, a state for each byte.
constexpr int64_t kStepsPerTextByte = 12;

absl::Status CheckIsObject(const PlacedSchema& schema, const char* keyword) {
  if (!schema.Has(keyword) || schema[keyword].is_object()) return absl::OkStatus();
  return SchemaError(schema.path, absl::StrCat("\"", keyword, "\" is not an object of schemas"));
}

}  // namespace

absl::Status SchemaCompiler::FillObject(const PlacedSchema& schema, int32_t start) {
  CADRE_ASSIGN_OR_RETURN(const ObjectParts parts, ReadObject(schema));
  AddMembers(parts, start);
  return absl::OkStatus();
}

absl::StatusOr<const ByteDfa*> SchemaCompiler::NamesOf(const PlacedSchema& schema) {
  if (!schema.Has("propertyNames")) return nullptr;
  PlacedSchema names{nullptr, absl::StrCat(schema.path, "/propertyNames")};
  CADRE_ASSIGN_OR_RETURN(names.json, resolver_.Resolve(schema["propertyNames"], names.path));
  if (const auto found = names_.find(names.json); found != names_.end()) return found->second.get();
  CADRE_ASSIGN_OR_RETURN(std::optional<ByteDfa> conforming, NamesThatConform(names));
  std::unique_ptr<const ByteDfa>& kept = names_[names.json];
  if (conforming.has_value()) kept = std::make_unique<const ByteDfa>(*std::move(conforming));
  return kept.get();
}

absl::StatusOr<ByteDfa> SchemaCompiler::OneOf(const std::vector<std::string>& texts) {
  int64_t num_bytes = 0;
  for (const std::string& text : texts) num_bytes += std::ssize(text);
  CADRE_RETURN_IF_ERROR(budget_.Spend(kStepsPerTextByte * num_bytes));
  return ByteDfa::FromTexts(texts);
}

absl::StatusOr<std::optional<ByteDfa>> SchemaCompiler::NamesThatConform(const PlacedSchema& names) {
  if (*names.json == true) return std::nullopt;
  if (*names.json == false) return ByteDfa({});
  CADRE_RETURN_IF_ERROR(CheckKeywords(names));
  for (const char* keyword : {"anyOf", "oneOf"}) {
    if (names.Has(keyword)) return UnsupportedSchema(names.path, absl::StrCat("\"", keyword, "\""));
  }
  CADRE_ASSIGN_OR_RETURN(const std::vector<std::string> types, ConformingTypesOf(names));
  if (std::find(types.begin(), types.end(), "string") == types.end()) return ByteDfa({});
  CADRE_ASSIGN_OR_RETURN(const auto values, ValuesOf(names));
  if (values.has_value()) {
    CADRE_ASSIGN_OR_RETURN(const std::vector<SchemaJson> conforming, KeepConforming(names, *values));
    std::vector<std::string> texts;
    for (const SchemaJson& value : conforming) {
      if (value.is_string()) texts.push_back(Unquoted(WrittenKey(value)));
    }
    return OneOf(texts);
  }
  CADRE_ASSIGN_OR_RETURN(std::optional<ByteDfa> content, StringContent(names));
  const bool has_length = names.Has("minLength") || names.Has("maxLength");
  if (content.has_value() || !has_length) return content;
  CADRE_ASSIGN_OR_RETURN(const int32_t min, ReadMinimumCount(names, "minLength"));
  CADRE_ASSIGN_OR_RETURN(const int32_t max, ReadMaximumCount(names, "maxLength"));
  CADRE_ASSIGN_OR_RETURN(const ByteDfa all, AllKeys());
  absl::StatusOr<ByteDfa> limited = Charge(LimitLength(all, min, max));
  if (limited.ok()) return *std::move(limited);
  return absl::Status(limited.status().code(), absl::StrCat(names.path, ": ", limited.status().message()));
}

absl::StatusOr<ByteDfa> SchemaCompiler::AllKeys() {
  if (!all_keys_.has_value()) {
    CADRE_ASSIGN_OR_RETURN(all_keys_,
                           CompileRegex("[\\u0000-\\u{10FFFF}]*", RegexExtent::kWholeText, CharacterCode::kJsonString));
  }
  return *all_keys_;
}

absl::StatusOr<ByteDfa> SchemaCompiler::KeysMatching(const PlacedSchema& schema, const std::string& pattern) {
  absl::StatusOr<ByteDfa> keys = Charge(CompileRegex(pattern, RegexExtent::kSearch, CharacterCode::kJsonString));
  if (keys.ok()) return keys;
  return absl::Status(keys.status().code(), absl::StrCat(schema.path, "/patternProperties/", PointerPart(pattern), ": ",
                                                         ToAbsl(ToStd(keys.status().message()))));
}

absl::StatusOr<SchemaCompiler::ObjectKeys> SchemaCompiler::ReadKeys(const PlacedSchema& schema) {
  ObjectKeys keys;
  CADRE_ASSIGN_OR_RETURN(keys.conforming, NamesOf(schema));
  if (!schema.Has("patternProperties")) return keys;
  for (const auto& [pattern, value] : schema["patternProperties"].items()) {
    CADRE_ASSIGN_OR_RETURN(ByteDfa matching, KeysMatching(schema, pattern));
    keys.matching.push_back(std::move(matching));
  }
  return keys;
}

absl::StatusOr<const SchemaJson*> SchemaCompiler::PropertySchema(const PlacedSchema& schema, const ObjectKeys& keys,
                                                                 const std::string& name, const SchemaJson* listed) {
  const std::string written = Unquoted(WrittenKey(name));
  if (keys.conforming != nullptr && !keys.conforming->Accepts(written)) {
    return resolver_.Keep(SchemaJson(false), schema.path);
  }
  SchemaJson all = SchemaJson::array();
  const SchemaJson* only = nullptr;
  const auto add = [&](const SchemaJson& part) {
    only = &part;
    all.push_back(part);
  };
  if (listed != nullptr) add(*listed);
  if (schema.Has("patternProperties")) {
    size_t index = 0;
    CADRE_RETURN_IF_ERROR(budget_.Spend(std::ssize(keys.matching) * (kStepsPerMatch + std::ssize(written))));
    for (const auto& [pattern, part] : schema["patternProperties"].items()) {
      if (keys.matching[index++].Accepts(written)) add(part);
    }
  }
  if (all.empty() && schema.Has("additionalProperties")) add(schema["additionalProperties"]);
  if (all.empty()) add(SchemaJson(true));
  if (all.size() == 1 && listed != nullptr) return only;
  return resolver_.Keep(SchemaJson{{"allOf", std::move(all)}}, schema.path);
}

absl::StatusOr<SchemaCompiler::ObjectParts> SchemaCompiler::ReadObject(const PlacedSchema& schema) {
  CADRE_RETURN_IF_ERROR(CheckIsObject(schema, "properties"));
  CADRE_RETURN_IF_ERROR(CheckIsObject(schema, "patternProperties"));
  ObjectParts parts;
  CADRE_ASSIGN_OR_RETURN(parts.min_members, ReadMinimumCount(schema, "minProperties"));
  CADRE_ASSIGN_OR_RETURN(parts.max_members, ReadMaximumCount(schema, "maxProperties"));
  CADRE_ASSIGN_OR_RETURN(const std::vector<std::string> required, ReadRequired(schema));

  CADRE_ASSIGN_OR_RETURN(const ObjectKeys keys, ReadKeys(schema));

  std::vector<std::string> names;  // in the order of the answer
  absl::flat_hash_map<std::string, const SchemaJson*> listed;
  if (schema.Has("properties")) {
    for (const auto& [name, property] : schema["properties"].items()) {
      names.push_back(name);
      listed[name] = &property;
    }
  }
  const size_t num_listed = names.size();
  for (const std::string& name : required) {
    if (!listed.contains(name)) names.push_back(name);
  }
  const absl::flat_hash_map<std::string, bool> is_required = [&] {
    absl::flat_hash_map<std::string, bool> map;
    for (const std::string& name : required) map[name] = true;
    return map;
  }();
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string path = i < num_listed ? absl::StrCat(schema.path, "/properties/", PointerPart(names[i]))
                                            : absl::StrCat(schema.path, "/required");
    CADRE_ASSIGN_OR_RETURN(const SchemaJson* value,
                           PropertySchema(schema, keys, names[i], i < num_listed ? listed[names[i]] : nullptr));
    CADRE_ASSIGN_OR_RETURN(const int32_t value_rule, RuleOf(*value, path));
    const std::string key = WrittenKey(names[i]);
    const int32_t rule = grammar_.AddState();
    json_.AddLast(json_.AddColon(grammar_.AddText(rule, key)), value_rule);
    parts.members.push_back({key, rule, is_required.contains(names[i])});
  }
  CADRE_ASSIGN_OR_RETURN(const std::vector<OpenMembers> open_members, ReadOpenMembers(schema, keys, names));
  for (const OpenMembers& open : open_members) {
    const int32_t rule = grammar_.AddState();
    const int32_t behind_key = grammar_.AddState();
    grammar_.AddDfa(grammar_.AddText(rule, "\""), open.keys, behind_key);
    json_.AddLast(json_.AddColon(grammar_.AddText(behind_key, "\"")), open.value_rule);
    parts.open_rules.push_back(rule);
  }
  if (parts.open_rules.empty()) parts.max_members = std::min(parts.max_members, static_cast<int32_t>(names.size()));
  const int64_t num_counts = std::max({1, parts.min_members, parts.max_members});
  if (std::ssize(names) * num_counts > kMaxGrammarStates / 4) {
    return absl::ResourceExhaustedError(absl::StrCat(schema.path, ": ", names.size(), " properties, counted up to ",
                                                     num_counts, ", need more than ", kMaxGrammarStates, " states"));
  }
  if (parts.min_members > 1 && !parts.open_rules.empty()) {
    // A key that comes twice would be counted twice.
    return UnsupportedSchema(schema.path, "\"minProperties\" above 1 beside properties that are not listed");
  }
  return parts;
}

absl::StatusOr<std::vector<SchemaCompiler::OpenMembers>> SchemaCompiler::ReadOpenMembers(
    const PlacedSchema& schema, const ObjectKeys& keys, const std::vector<std::string>& names) {
  std::vector<std::string> contents;
  contents.reserve(names.size());
  for (const std::string& name : names) contents.push_back(Unquoted(WrittenKey(name)));
  const auto placed = [&](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(schema.path, ": ", ToAbsl(ToStd(status.message()))));
  };

  const bool has_patterns = schema.Has("patternProperties");
  const bool is_closed_by_default = schema.Has("properties") || has_patterns;
  const bool has_rest =
      schema.Has("additionalProperties") ? schema["additionalProperties"] != false : !is_closed_by_default;
  std::vector<OpenMembers> open;
  if (!has_patterns && !has_rest) return open;
  const absl::StatusOr<ByteDfa> listed_or = OneOf(contents);
  if (!listed_or.ok()) return placed(listed_or.status());
  const ByteDfa& listed = *listed_or;
  CADRE_ASSIGN_OR_RETURN(const ByteDfa all, AllKeys());
  absl::StatusOr<ByteDfa> rest = Charge(Subtract(keys.conforming != nullptr ? *keys.conforming : all, listed));
  if (!rest.ok()) return placed(rest.status());
  if (has_patterns) {
    size_t index = 0;
    for (const auto& [pattern, value] : schema["patternProperties"].items()) {
      const std::string path = absl::StrCat(schema.path, "/patternProperties/", PointerPart(pattern));
      absl::StatusOr<ByteDfa> matching = Charge(Subtract(keys.matching[index++], listed));
      if (matching.ok() && keys.conforming != nullptr) matching = Charge(Intersect(*matching, *keys.conforming));
      if (matching.ok() && matching->empty()) {
        CADRE_RETURN_IF_ERROR(RuleOf(value, path).status());
        continue;
      }
      for (const OpenMembers& other : open) {
        absl::StatusOr<ByteDfa> shared = matching.ok() ? Charge(Intersect(*matching, other.keys)) : matching.status();
        if (!shared.ok()) return placed(shared.status());
        if (!shared->empty()) return UnsupportedSchema(path, "an expression that shares keys with another");
      }
      if (matching.ok()) rest = Charge(Subtract(*rest, *matching));
      if (!matching.ok() || !rest.ok()) return placed(matching.ok() ? rest.status() : matching.status());
      CADRE_ASSIGN_OR_RETURN(const int32_t rule, RuleOf(value, path));
      open.push_back({*std::move(matching), rule});
    }
  }
  if (!has_rest) return open;
  int32_t rule = json_.AnyValue();
  if (schema.Has("additionalProperties")) {
    CADRE_ASSIGN_OR_RETURN(rule, RuleOf(schema["additionalProperties"], schema.path + "/additionalProperties"));
  }
  open.push_back({*std::move(rest), rule});
  return open;
}

// Two states for each member and number of members written, as far as it matters: `next[i]` where member i or a later
// one comes, `behind[i]` where a comma or the end comes and members before i are done with.
void SchemaCompiler::AddMembers(const ObjectParts& parts, int32_t start) {
  const size_t num_members = parts.members.size();
  const int32_t max = parts.max_members;
  const auto last_count = static_cast<size_t>(std::max({1, parts.min_members, max}));
  constexpr int32_t kNotMade = -1;
  std::vector<int32_t> behind((num_members + 1) * (last_count + 1), kNotMade);
  std::vector<int32_t> next = behind;
  const auto state_of = [&](std::vector<int32_t>* states, size_t member, size_t count) {
    int32_t& state = (*states)[member * (last_count + 1) + std::min(count, last_count)];
    if (state == kNotMade) state = grammar_.AddState();
    return state;
  };
  // From here on no member is required.
  size_t first_free = num_members;
  while (first_free > 0 && !parts.members[first_free - 1].is_required) --first_free;
  const auto may_close = [&](size_t member, size_t count) {
    return member >= first_free && count >= static_cast<size_t>(parts.min_members);
  };
  const auto is_full = [&](size_t count) { return max != kNoLengthLimit && count >= static_cast<size_t>(max); };

  const int32_t opened = json_.AddSpace(grammar_.AddText(start, "{"));
  if (may_close(0, 0)) grammar_.SetReturn(grammar_.AddText(opened, "}"));
  grammar_.AddJump(opened, state_of(&next, 0, 0));
  for (size_t i = 0; i <= num_members; ++i) {
    for (size_t count = 0; count <= std::min(last_count, parts.open_rules.empty() ? i : last_count); ++count) {
      if (grammar_.is_too_large()) return;
      if (count > 0) {
        const int32_t state = state_of(&behind, i, count);
        if (may_close(i, count)) grammar_.SetReturn(grammar_.AddText(json_.AddSpace(state), "}"));
        if (!is_full(count)) {
          grammar_.AddJump(json_.AddSpace(grammar_.AddText(state, ",")), state_of(&next, i, count));
        }
      }
      if (is_full(count)) continue;
      const int32_t state = state_of(&next, i, count);
      if (i == num_members) {
        for (const int32_t rule : parts.open_rules) grammar_.AddCall(state, rule, state_of(&behind, i, count + 1));
        continue;
      }
      grammar_.AddCall(state, parts.members[i].rule, state_of(&behind, i + 1, count + 1));
      if (!parts.members[i].is_required) grammar_.AddJump(state, state_of(&next, i + 1, count));
    }
  }
}

}  // namespace cadre
