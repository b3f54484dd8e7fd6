#include "engine/text/normalizer.h"

#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/json_fields.h"
#include "engine/text/normal_form.h"
#include "engine/text/pattern.h"
#include "engine/text/regex.h"
#include "engine/text/unicode_classes.h"
#include "engine/text/utf8.h"

namespace cadre {
namespace {

class NormalFormStep : public NormalizerStep {
 public:
  explicit NormalFormStep(NormalForm form) : form_(form) {}
  absl::Status Apply(NormalizedText* text) const override {
    text->text = Normalize(text->text, form_);
    return absl::OkStatus();
  }

 private:
  const NormalForm form_;
};

class LowercaseStep : public NormalizerStep {
 public:
  absl::Status Apply(NormalizedText* text) const override {
    text->text = ToLowercase(text->text);
    return absl::OkStatus();
  }
};

class PrependStep : public NormalizerStep {
 public:
  explicit PrependStep(std::string prefix) : prefix_(std::move(prefix)) {}
  absl::Status Apply(NormalizedText* text) const override {
    if (!text->text.empty()) text->text.insert(0, prefix_);
    return absl::OkStatus();
  }

 private:
  const std::string prefix_;
};

class ReplaceStep : public NormalizerStep {
 public:
  ReplaceStep(Regex pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}

  absl::Status Apply(NormalizedText* text) const override {
    if (text->text.empty()) return absl::OkStatus();
    CADRE_ASSIGN_OR_RETURN(const std::vector<TextSpan> matches, pattern_.FindAll(text->text));
    if (!matches.empty() && matches[0].begin == 0) {
      // The replacement counts as coming from the last character it replaces, and an empty one as coming from nowhere.
      const std::size_t num_replaced = CountCodePoints(std::string_view(text->text).substr(0, matches[0].end));
      if (num_replaced > 1 || (num_replaced == 1 && content_.empty())) text->is_at_origin = false;
    }
    text->text = ReplaceMatches(text->text, matches, content_);
    return absl::OkStatus();
  }

 private:
  const Regex pattern_;
  const std::string content_;
};

class StripStep : public NormalizerStep {
 public:
  StripStep(bool left, bool right) : left_(left), right_(right) {}

  absl::Status Apply(NormalizedText* text) const override {
    const std::string_view whole = text->text;
    std::size_t end = whole.size();
    while (right_ && end > 0) {
      std::size_t position = PreviousBoundary(whole, end);
      const std::size_t boundary = position;
      if (!IsWhiteSpace(NextCodePoint(whole, &position))) break;
      end = boundary;
    }
    std::size_t begin = 0;
    while (left_ && begin < end) {
      std::size_t position = begin;
      if (!IsWhiteSpace(NextCodePoint(whole, &position))) break;
      begin = position;
    }
    if (begin > 0) text->is_at_origin = false;
    text->text = std::string(whole.substr(begin, end - begin));
    return absl::OkStatus();
  }

 private:
  const bool left_;
  const bool right_;
};

std::optional<NormalForm> NormalFormNamed(std::string_view name) {
  if (name == "NFC") return NormalForm::kNfc;
  if (name == "NFD") return NormalForm::kNfd;
  if (name == "NFKC") return NormalForm::kNfkc;
  if (name == "NFKD") return NormalForm::kNfkd;
  return std::nullopt;
}

absl::StatusOr<std::unique_ptr<const NormalizerStep>> ParseStep(const JsonFields& fields, std::string_view type) {
  using Step = std::unique_ptr<const NormalizerStep>;
  if (const std::optional<NormalForm> form = NormalFormNamed(type); form.has_value()) {
    CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type"}));
    return Step(std::make_unique<NormalFormStep>(*form));
  }
  if (type == "Lowercase") {
    CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type"}));
    return Step(std::make_unique<LowercaseStep>());
  }
  if (type == "Prepend") {
    CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "prepend"}));
    CADRE_ASSIGN_OR_RETURN(const std::string_view prefix, fields.String("prepend"));
    return Step(std::make_unique<PrependStep>(std::string(prefix)));
  }
  if (type == "Replace") {
    CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "pattern", "content"}));
    CADRE_ASSIGN_OR_RETURN(Regex pattern, ParsePattern(fields));
    CADRE_ASSIGN_OR_RETURN(const std::string_view content, fields.String("content"));
    return Step(std::make_unique<ReplaceStep>(std::move(pattern), std::string(content)));
  }
  if (type == "Strip") {
    CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "strip_left", "strip_right"}));
    CADRE_ASSIGN_OR_RETURN(const bool left, fields.Bool("strip_left"));
    CADRE_ASSIGN_OR_RETURN(const bool right, fields.Bool("strip_right"));
    return Step(std::make_unique<StripStep>(left, right));
  }
  return fields.Unsupported(absl::StrCat("normalizer type ", Quoted(type), " is not supported"));
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::Parse(const nlohmann::json& json, std::string where) {
  Normalizer normalizer;
  if (!json.is_null()) CADRE_RETURN_IF_ERROR(normalizer.Add(json, std::move(where)));
  return normalizer;
}

absl::Status Normalizer::Add(const nlohmann::json& json, std::string where) {
  CADRE_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Open(json, std::move(where)));
  CADRE_ASSIGN_OR_RETURN(const std::string_view type, fields.String("type"));
  if (type == "Sequence") {
    CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "normalizers"}));
    return ForEachComponent(fields, "normalizers", [this](const nlohmann::json& component, std::string place) {
      return Add(component, std::move(place));
    });
  }
  if (steps_.size() == kMaxComponents) return fields.Invalid(absl::StrCat("more than ", kMaxComponents, " components"));
  CADRE_ASSIGN_OR_RETURN(std::unique_ptr<const NormalizerStep> step, ParseStep(fields, type));
  steps_.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status Normalizer::Apply(NormalizedText* text) const {
  for (const auto& step : steps_) CADRE_RETURN_IF_ERROR(step->Apply(text));
  return absl::OkStatus();
}

}  // namespace cadre
