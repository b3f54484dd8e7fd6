#include "server/translate_structured.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "server/errors.h"

namespace cadre {
namespace {

// Fields that would forbid what the constraint needs.
absl::Status CheckConflicts(const v1::GenerateRequest& wire) {
  if (wire.stopping().ignore_eos()) {
    return InvalidField("stopping.ignore_eos",
                        "cannot be combined with structured_output, which says where the output may end");
  }
  if (wire.sampling().allowed_token_ids_size() > 0) {
    return InvalidField("sampling.allowed_token_ids",
                        "cannot be combined with structured_output, which may need other tokens");
  }
  return absl::OkStatus();
}

// The error of a constraint as the field's error.
absl::Status FieldError(std::string field, const absl::Status& status) {
  std::string description(status.message());
  if (status.code() != absl::StatusCode::kUnimplemented) return InvalidField(std::move(field), std::move(description));
  ErrorSpec spec{.code = absl::StatusCode::kUnimplemented, .reason = reason::kUnsupportedField};
  spec.message = absl::StrCat(field, ": ", description);
  spec.metadata.emplace_back("field", field);
  spec.violations.push_back({std::move(field), std::move(description)});
  return MakeError(std::move(spec));
}

}  // namespace

absl::Status TranslateStructuredOutput(const v1::GenerateRequest& wire, ConstraintCache* cache, Request* request) {
  if (!wire.has_structured_output()) return absl::OkStatus();
  CADRE_RETURN_IF_ERROR(CheckConflicts(wire));
  const v1::StructuredOutput& output = wire.structured_output();
  ConstraintCache::Kind kind = ConstraintCache::Kind::kJsonSchema;
  std::string field = "structured_output.json_schema";
  std::vector<std::string> texts;
  switch (output.constraint_case()) {
    case v1::StructuredOutput::kJsonSchema:
      texts.push_back(output.json_schema());
      break;
    case v1::StructuredOutput::kRegex:
      kind = ConstraintCache::Kind::kRegex;
      field = "structured_output.regex";
      texts.push_back(output.regex());
      break;
    case v1::StructuredOutput::kChoices:
      kind = ConstraintCache::Kind::kChoices;
      field = "structured_output.choices.choices";
      texts.assign(output.choices().choices().begin(), output.choices().choices().end());
      break;
    default:
      return InvalidField("structured_output", "no constraint: set json_schema, regex or choices");
  }
  CompiledConstraint constraint = cache->Get(kind, texts);
  if (!constraint.ok()) return FieldError(std::move(field), constraint.status());
  request->constraint = *std::move(constraint);
  return absl::OkStatus();
}

}  // namespace cadre
