#include "engine/text/decoder.h"

#include <cstddef>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/decode_steps.h"
#include "engine/text/json_fields.h"
#include "engine/text/metaspace.h"
#include "engine/text/pattern.h"
#include "engine/text/regex.h"

namespace cadre {
namespace {

using Step = std::unique_ptr<const DecoderStep>;

// The most characters a Strip may take away at one end of a token.
constexpr int kMaxStrip = 1 << 16;

absl::StatusOr<Step> ParseReplace(const JsonFields& fields) {
  CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "pattern", "content"}));
  CADRE_ASSIGN_OR_RETURN(Regex pattern, ParsePattern(fields));
  CADRE_ASSIGN_OR_RETURN(const std::string_view content, fields.String("content"));
  return NewReplaceDecoder(std::move(pattern), std::string(content));
}

absl::StatusOr<Step> ParseStrip(const JsonFields& fields) {
  CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "content", "start", "stop"}));
  CADRE_ASSIGN_OR_RETURN(const std::string_view content, fields.Character("content"));
  CADRE_ASSIGN_OR_RETURN(const int start, fields.Integer("start", kMaxStrip));
  CADRE_ASSIGN_OR_RETURN(const int stop, fields.Integer("stop", kMaxStrip));
  return NewStripDecoder(std::string(content), static_cast<std::size_t>(start), static_cast<std::size_t>(stop));
}

absl::StatusOr<Step> ParseStep(const JsonFields& fields, std::string_view type) {
  if (type == "ByteLevel") {
    // These options are the pre-tokenizer's; a decoder carries and ignores them.
    CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "add_prefix_space", "trim_offsets", "use_regex"}));
    return NewByteLevelDecoder();
  }
  if (type == "ByteFallback" || type == "Fuse") {
    CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type"}));
    return type == "Fuse" ? NewFuseDecoder() : NewByteFallbackDecoder();
  }
  if (type == "Replace") return ParseReplace(fields);
  if (type == "Strip") return ParseStrip(fields);
  if (type == "Metaspace") {
    CADRE_ASSIGN_OR_RETURN(const MetaspaceOptions options, ParseMetaspaceOptions(fields));
    return NewMetaspaceDecoder(options);
  }
  return fields.Unsupported(absl::StrCat("decoder type ", Quoted(type), " is not supported"));
}

}  // namespace

// The end of the chain.
class DecodeStream::Collector : public DecodeFlow {
 public:
  void Append(std::string_view fragment, bool /*ends_token*/) override { text_ += fragment; }
  void Finish() override {}
  std::string Take() { return std::exchange(text_, {}); }

 private:
  std::string text_;
};

DecodeStream::DecodeStream(const std::vector<std::unique_ptr<const DecoderStep>>& steps)
    : collector_(std::make_unique<Collector>()) {
  DecodeFlow* next = collector_.get();
  flows_.resize(steps.size());
  for (std::size_t i = steps.size(); i-- > 0;) {
    flows_[i] = steps[i]->NewFlow(next);
    next = flows_[i].get();
  }
}

DecodeStream::~DecodeStream() = default;
DecodeStream::DecodeStream(DecodeStream&&) noexcept = default;
DecodeStream& DecodeStream::operator=(DecodeStream&&) noexcept = default;

std::string DecodeStream::Append(std::string_view token) {
  if (flows_.empty()) return std::string(token);
  flows_.front()->Append(token, /*ends_token=*/true);
  return collector_->Take();
}

std::string DecodeStream::Finish() {
  if (!flows_.empty()) flows_.front()->Finish();
  return collector_->Take();
}

absl::StatusOr<Decoder> Decoder::Parse(const nlohmann::json& json, std::string where) {
  Decoder decoder;
  if (json.is_null()) {
    decoder.steps_.push_back(NewSpaceJoinDecoder());
  } else {
    CADRE_RETURN_IF_ERROR(decoder.Add(json, std::move(where)));
  }
  return decoder;
}

std::optional<TokenSpelling> Decoder::Spell(std::string_view token) const {
  TokenSpelling spelling{.first = std::string(token), .later = std::string(token)};
  for (const Step& step : steps_) {
    if (!step->Spell(&spelling)) return std::nullopt;
  }
  return spelling;
}

absl::Status Decoder::Add(const nlohmann::json& json, std::string where) {
  CADRE_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Open(json, std::move(where)));
  CADRE_ASSIGN_OR_RETURN(const std::string_view type, fields.String("type"));
  if (type == "Sequence") {
    CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "decoders"}));
    return ForEachComponent(fields, "decoders", [this](const nlohmann::json& component, std::string place) {
      return Add(component, std::move(place));
    });
  }
  if (steps_.size() == kMaxComponents) return fields.Invalid(absl::StrCat("more than ", kMaxComponents, " components"));
  CADRE_ASSIGN_OR_RETURN(Step step, ParseStep(fields, type));
  steps_.push_back(std::move(step));
  return absl::OkStatus();
}

}  // namespace cadre
