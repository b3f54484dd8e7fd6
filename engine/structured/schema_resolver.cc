#include "engine/structured/schema_resolver.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/structured/schema_merge.h"

namespace cadre {
namespace {

constexpr std::string_view kAnnotations[] = {
    "$anchor",         "$comment",         "$defs",    "$id",         "$schema",    "$vocabulary",
    "contentEncoding", "contentMediaType", "default",  "definitions", "deprecated", "description",
    "discriminator",   "example",          "examples", "readOnly",    "title",      "writeOnly"};

// What a byte of a merged schema costs: it is copied, written, hashed and compared.
constexpr int64_t kStepsPerKeptByte = 4;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// One part of a JSON pointer in a URI fragment: %XX, then ~1 and ~0.
std::string UnescapePointerPart(std::string_view part) {
  std::string bytes;
  for (size_t i = 0; i < part.size(); ++i) {
    const bool is_escape =
        part[i] == '%' && i + 2 < part.size() && HexDigit(part[i + 1]) >= 0 && HexDigit(part[i + 2]) >= 0;
    bytes += is_escape ? static_cast<char>(HexDigit(part[i + 1]) * 16 + HexDigit(part[i + 2])) : part[i];
    if (is_escape) i += 2;
  }
  std::string name;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const bool is_escape = bytes[i] == '~' && i + 1 < bytes.size() && (bytes[i + 1] == '0' || bytes[i + 1] == '1');
    name += !is_escape ? bytes[i] : bytes[i + 1] == '0' ? '~' : '/';
    if (is_escape) ++i;
  }
  return name;
}

const SchemaJson* Child(const SchemaJson& json, const std::string& name) {
  if (json.is_object()) return json.contains(name) ? &json[name] : nullptr;
  if (!json.is_array() || name.empty() || name.size() > 9 || name.find_first_not_of("0123456789") != name.npos) {
    return nullptr;
  }
  const size_t index = std::stoul(name);
  return index < json.size() ? &json[index] : nullptr;
}

// Of drafts before 2020-12, which call prefixItems items, and items behind them additionalItems.
bool IsOldTuple(const SchemaJson& schema) {
  return schema.contains("items") && schema["items"].is_array() && !schema.contains("prefixItems");
}

SchemaJson WithPrefixItems(const SchemaJson& schema) {
  SchemaJson tuple = SchemaJson::object();
  for (const auto& [keyword, value] : schema.items()) {
    if (IsAnnotation(keyword) || keyword == "items" || keyword == "additionalItems") continue;
    tuple.get_ref<SchemaJson::object_t&>().emplace_back(keyword, value);
  }
  if (!schema["items"].empty()) tuple["prefixItems"] = schema["items"];
  if (schema.contains("additionalItems")) tuple["items"] = schema["additionalItems"];
  return tuple;
}

}  // namespace

bool IsAnnotation(std::string_view keyword) {
  return keyword.starts_with("x-") ||
         std::find(std::begin(kAnnotations), std::end(kAnnotations), keyword) != std::end(kAnnotations);
}

SchemaJson AssertionsOf(const SchemaJson& schema, std::string_view left_out) {
  SchemaJson assertions = SchemaJson::object();
  for (const auto& [keyword, value] : schema.items()) {
    // Not by operator[], which looks at every keyword before it.
    if (IsAnnotation(keyword) || keyword == left_out) continue;
    assertions.get_ref<SchemaJson::object_t&>().emplace_back(keyword, value);
  }
  return assertions;
}

absl::Status SchemaError(std::string_view path, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(ToAbsl(path), ": ", ToAbsl(what)));
}

absl::Status UnsupportedSchema(std::string_view path, std::string_view what) {
  return absl::UnimplementedError(absl::StrCat(ToAbsl(path), ": ", ToAbsl(what), " is not supported"));
}

absl::Status SchemaResolver::Spend(int64_t steps, const std::string& path) const {
  absl::Status status = budget_.Spend(steps);
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

absl::StatusOr<const SchemaJson*> SchemaResolver::Keep(SchemaJson schema, const std::string& path) {
  std::string text = schema.dump(-1, ' ', false, SchemaJson::error_handler_t::replace);
  CADRE_RETURN_IF_ERROR(Spend(kStepsPerKeptByte * std::ssize(text), path));
  if (const auto found = kept_by_text_.find(text); found != kept_by_text_.end()) return found->second;
  kept_bytes_ += std::ssize(text);
  if (kept_bytes_ > kMaxMergedSchemaBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": merged schemas have more than ", kMaxMergedSchemaBytes, " bytes"));
  }
  const SchemaJson* kept = &kept_.emplace_back(std::move(schema));
  kept_by_text_[std::move(text)] = kept;
  return kept;
}

absl::StatusOr<std::vector<const SchemaJson*>> SchemaResolver::Alternatives(const SchemaJson& schema,
                                                                            const char* keyword,
                                                                            const std::string& path) {
  const SchemaJson& listed = schema[keyword];
  if (!listed.is_array() || listed.empty()) {
    return SchemaError(path, absl::StrCat("\"", keyword, "\" is not a list of schemas"));
  }
  CADRE_RETURN_IF_ERROR(Spend(std::ssize(schema) + std::ssize(listed), path));
  const SchemaJson beside = AssertionsOf(schema, keyword);
  std::vector<const SchemaJson*> alternatives;
  for (const SchemaJson& alternative : listed) {
    const SchemaJson* whole = &alternative;
    if (!beside.empty()) {
      const SchemaJson both = SchemaJson::array({beside, alternative});
      const std::string place = absl::StrCat(path, "/", keyword, "/", alternatives.size());
      CADRE_ASSIGN_OR_RETURN(whole, Keep(SchemaJson{{"allOf", both}}, place));
    }
    alternatives.push_back(whole);
  }
  return alternatives;
}

absl::StatusOr<const SchemaJson*> SchemaResolver::Target(const SchemaJson& reference, const std::string& path) const {
  if (!reference.is_string()) return SchemaError(path, "\"$ref\" is not a string");
  const auto& text = reference.get_ref<const std::string&>();
  if (text != "#" && !text.starts_with("#/")) {
    return UnsupportedSchema(path, absl::StrCat("\"$ref\" to ", Quoted(text), ", outside this document or by anchor,"));
  }
  const SchemaJson* target = &root_;
  std::string_view rest = std::string_view(text).substr(1);
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const size_t size = std::min(rest.find('/'), rest.size());
    // Each child of an object is looked at.
    CADRE_RETURN_IF_ERROR(Spend(1 + std::ssize(*target), path));
    target = Child(*target, UnescapePointerPart(rest.substr(0, size)));
    if (target == nullptr)
      return SchemaError(path, absl::StrCat("\"$ref\" to ", Quoted(text), ", which does not exist"));
    rest.remove_prefix(size);
  }
  return target;
}

absl::StatusOr<const SchemaJson*> SchemaResolver::Resolve(const SchemaJson& schema, const std::string& path) {
  if (const auto found = resolved_.find(&schema); found != resolved_.end()) return found->second;
  if (depth_ == kMaxReferenceHops) return SchemaError(path, "\"allOf\" and \"$ref\" that lead back to themselves");
  ++depth_;
  absl::StatusOr<const SchemaJson*> resolved = ResolveAfresh(schema, path);
  --depth_;
  if (resolved.ok()) resolved_[&schema] = *resolved;
  return resolved;
}

absl::StatusOr<const SchemaJson*> SchemaResolver::ResolveAfresh(const SchemaJson& schema, const std::string& path) {
  const SchemaJson* current = &schema;
  for (int hop = 0; hop < kMaxReferenceHops; ++hop) {
    if (current->is_boolean()) return current;
    if (!current->is_object()) return SchemaError(path, "a schema is neither an object nor a boolean");
    CADRE_RETURN_IF_ERROR(Spend(std::ssize(*current), path));
    if (IsOldTuple(*current)) {
      CADRE_ASSIGN_OR_RETURN(current, Keep(WithPrefixItems(*current), path));
    } else if (current->contains("$ref")) {
      const SchemaJson& reference = (*current)["$ref"];
      SchemaJson beside = AssertionsOf(*current, "$ref");
      if (beside.empty()) {
        CADRE_ASSIGN_OR_RETURN(current, Target(reference, path));
      } else {
        const SchemaJson parts = SchemaJson::array({{{"$ref", reference}}, std::move(beside)});
        CADRE_ASSIGN_OR_RETURN(current, Keep({{"allOf", parts}}, path));
      }
    } else if (current->contains("allOf")) {
      const SchemaJson& parts = (*current)["allOf"];
      if (!parts.is_array() || parts.empty()) return SchemaError(path, "\"allOf\" is not a list of schemas");
      SchemaJson merged = AssertionsOf(*current, "allOf");
      for (const SchemaJson& part : parts) {
        CADRE_ASSIGN_OR_RETURN(const SchemaJson* plain, Resolve(part, path));
        CADRE_RETURN_IF_ERROR(Spend(MergeSteps(merged, *plain), path));
        CADRE_ASSIGN_OR_RETURN(merged, MergeSchemas(merged, *plain, path));
      }
      CADRE_ASSIGN_OR_RETURN(current, Keep(std::move(merged), path));
    } else {
      return current;
    }
  }
  return SchemaError(path, absl::StrCat("a \"$ref\" that leads back to itself, or more than ", kMaxReferenceHops,
                                        " that follow each other"));
}

}  // namespace cadre
