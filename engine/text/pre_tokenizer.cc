#include "engine/text/pre_tokenizer.h"

#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/json_fields.h"
#include "engine/text/metaspace.h"
#include "engine/text/pattern.h"
#include "engine/text/regex.h"
#include "engine/text/split.h"
#include "engine/text/unicode_classes.h"

namespace cadre {
namespace {

using Step = std::unique_ptr<const PreTokenizerStep>;

// ByteLevel's own pattern, used with `use_regex`: that of GPT-2.
constexpr std::string_view kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

absl::Status SplitPiece(TextPiece piece, const Regex& delimiter, SplitBehavior behavior, bool invert, PieceSink sink) {
  const auto emit = [piece, sink](TextSpan span) {
    return sink({piece.text.substr(span.begin, span.end - span.begin), piece.is_at_origin && span.begin == 0});
  };
  Splitter splitter(behavior, invert, emit);
  CADRE_RETURN_IF_ERROR(
      delimiter.ForEachMatch(piece.text, [&splitter](TextSpan match) { return splitter.OnMatch(match); }));
  return splitter.Finish(piece.text.size());
}

// Split, and the components that are a Split with a pattern of their own: Digits, Punctuation, Whitespace, ...
class SplitStep : public PreTokenizerStep {
 public:
  SplitStep(Regex delimiter, SplitBehavior behavior, bool invert)
      : delimiter_(std::move(delimiter)), behavior_(behavior), invert_(invert) {}

  absl::Status Apply(TextPiece piece, PieceSink sink) const override {
    return SplitPiece(piece, delimiter_, behavior_, invert_, sink);
  }

 private:
  const Regex delimiter_;
  const SplitBehavior behavior_;
  const bool invert_;
};

class ByteLevelStep : public PreTokenizerStep {
 public:
  ByteLevelStep(bool add_prefix_space, std::optional<Regex> pattern)
      : add_prefix_space_(add_prefix_space), pattern_(std::move(pattern)) {}

  absl::Status Apply(TextPiece piece, PieceSink sink) const override {
    std::string with_space;
    if (add_prefix_space_ && piece.text.front() != ' ') {
      with_space = absl::StrCat(" ", ToAbsl(piece.text));
      piece.text = with_space;
    }
    std::string mapped;
    const auto emit = [&mapped, sink](TextPiece part) {
      mapped.clear();
      AppendByteAlphabet(part.text, &mapped);
      return sink({mapped, part.is_at_origin});
    };
    return pattern_.has_value() ? SplitPiece(piece, *pattern_, SplitBehavior::kIsolated, /*invert=*/false, emit)
                                : emit(piece);
  }

 private:
  const bool add_prefix_space_;
  const std::optional<Regex> pattern_;
};

class MetaspaceStep : public PreTokenizerStep {
 public:
  MetaspaceStep(MetaspaceOptions options, Regex replacement)
      : options_(std::move(options)), replacement_(std::move(replacement)) {}

  absl::Status Apply(TextPiece piece, PieceSink sink) const override {
    std::string marked;
    for (const char c : piece.text) {
      if (c == ' ') {
        marked += options_.replacement;
      } else {
        marked += c;
      }
    }
    const bool wants_prefix = options_.prepend_scheme == PrependScheme::kAlways ||
                              (options_.prepend_scheme == PrependScheme::kFirst && piece.is_at_origin);
    if (wants_prefix && !marked.starts_with(options_.replacement)) marked.insert(0, options_.replacement);
    piece.text = marked;
    if (!options_.split) return sink(piece);
    return SplitPiece(piece, replacement_, SplitBehavior::kMergedWithNext, /*invert=*/false, sink);
  }

 private:
  const MetaspaceOptions options_;
  const Regex replacement_;
};

absl::StatusOr<SplitBehavior> ParseBehavior(const JsonFields& fields) {
  CADRE_ASSIGN_OR_RETURN(const std::string_view name, fields.String("behavior"));
  const std::optional<SplitBehavior> behavior = SplitBehaviorNamed(name);
  if (!behavior.has_value()) {
    return fields.Unsupported(absl::StrCat("split behavior ", Quoted(name), " is not supported"));
  }
  return *behavior;
}

absl::StatusOr<Step> NewSplit(absl::StatusOr<Regex> delimiter, SplitBehavior behavior, bool invert = false) {
  CADRE_RETURN_IF_ERROR(delimiter.status());
  return Step(std::make_unique<SplitStep>(*std::move(delimiter), behavior, invert));
}

absl::StatusOr<Step> ParseSplit(const JsonFields& fields) {
  CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "pattern", "behavior", "invert"}));
  CADRE_ASSIGN_OR_RETURN(const SplitBehavior behavior, ParseBehavior(fields));
  CADRE_ASSIGN_OR_RETURN(const bool invert, fields.Bool("invert"));
  return NewSplit(ParsePattern(fields), behavior, invert);
}

absl::StatusOr<Step> ParseByteLevel(const JsonFields& fields) {
  CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "add_prefix_space", "trim_offsets", "use_regex"}));
  CADRE_ASSIGN_OR_RETURN(const bool add_prefix_space, fields.Bool("add_prefix_space"));
  CADRE_ASSIGN_OR_RETURN(const bool use_regex, fields.BoolOr("use_regex", true));
  std::optional<Regex> pattern;
  if (use_regex) {
    CADRE_ASSIGN_OR_RETURN(pattern, Regex::Compile(kGpt2Pattern));
  }
  return Step(std::make_unique<ByteLevelStep>(add_prefix_space, std::move(pattern)));
}

absl::StatusOr<Step> ParseDigits(const JsonFields& fields) {
  CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "individual_digits"}));
  CADRE_ASSIGN_OR_RETURN(const bool individual, fields.Bool("individual_digits"));
  return NewSplit(Regex::CompilePcre2(absl::StrCat("[", NumericClass(), "]")),
                  individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
}

absl::StatusOr<Step> ParsePunctuation(const JsonFields& fields) {
  CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "behavior"}));
  SplitBehavior behavior = SplitBehavior::kIsolated;
  if (fields.Find("behavior") != nullptr) {
    CADRE_ASSIGN_OR_RETURN(behavior, ParseBehavior(fields));
  }
  return NewSplit(Regex::CompilePcre2(absl::StrCat("(?![", PunctuationExclusions(), "])[", PunctuationClass(), "]")),
                  behavior);
}

absl::StatusOr<Step> ParseWhitespace(const JsonFields& fields) {
  CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type"}));
  const std::string word = PlainWordClass();
  return NewSplit(Regex::CompilePcre2(absl::StrCat("[", word, "]+|[^", word, WhiteSpaceClass(), "]+")),
                  SplitBehavior::kRemoved, /*invert=*/true);
}

absl::StatusOr<Step> ParseWhitespaceSplit(const JsonFields& fields) {
  CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type"}));
  return NewSplit(Regex::CompilePcre2(absl::StrCat("[", WhiteSpaceClass(), "]")), SplitBehavior::kRemoved);
}

absl::StatusOr<Step> ParseMetaspace(const JsonFields& fields) {
  CADRE_ASSIGN_OR_RETURN(MetaspaceOptions options, ParseMetaspaceOptions(fields));
  CADRE_ASSIGN_OR_RETURN(Regex replacement, Regex::CompileLiteral(options.replacement));
  return Step(std::make_unique<MetaspaceStep>(std::move(options), std::move(replacement)));
}

absl::StatusOr<Step> ParseStep(const JsonFields& fields, std::string_view type) {
  if (type == "Split") return ParseSplit(fields);
  if (type == "ByteLevel") return ParseByteLevel(fields);
  if (type == "Digits") return ParseDigits(fields);
  if (type == "Punctuation") return ParsePunctuation(fields);
  if (type == "Whitespace") return ParseWhitespace(fields);
  if (type == "WhitespaceSplit") return ParseWhitespaceSplit(fields);
  if (type == "Metaspace") return ParseMetaspace(fields);
  return fields.Unsupported(absl::StrCat("pre-tokenizer type ", Quoted(type), " is not supported"));
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Parse(const nlohmann::json& json, std::string where) {
  PreTokenizer pre_tokenizer;
  if (!json.is_null()) CADRE_RETURN_IF_ERROR(pre_tokenizer.Add(json, std::move(where)));
  return pre_tokenizer;
}

absl::Status PreTokenizer::Add(const nlohmann::json& json, std::string where) {
  CADRE_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Open(json, std::move(where)));
  CADRE_ASSIGN_OR_RETURN(const std::string_view type, fields.String("type"));
  if (type == "Sequence") {
    CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "pretokenizers"}));
    return ForEachComponent(fields, "pretokenizers", [this](const nlohmann::json& component, std::string place) {
      return Add(component, std::move(place));
    });
  }
  if (steps_.size() == kMaxComponents) return fields.Invalid(absl::StrCat("more than ", kMaxComponents, " components"));
  CADRE_ASSIGN_OR_RETURN(Step step, ParseStep(fields, type));
  steps_.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status PreTokenizer::Split(TextPiece text, PieceSink sink) const {
  return text.text.empty() ? absl::OkStatus() : SplitFrom(0, text, sink);
}

// Each step hands its pieces to the next: as deep as there are steps, kMaxComponents.
absl::Status PreTokenizer::SplitFrom(std::size_t step, TextPiece piece, PieceSink sink) const {
  if (step == steps_.size()) return sink(piece);
  return steps_[step]->Apply(piece, [this, step, sink](TextPiece part) { return SplitFrom(step + 1, part, sink); });
}

}  // namespace cadre
