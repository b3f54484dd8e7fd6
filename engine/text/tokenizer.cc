#include "engine/text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/text/span_mapping.h"
#include "engine/text/tokenizer_loader.h"
#include "engine/text/utf8.h"

namespace cadre {

Tokenizer::Tokenizer(Normalizer normalizer, PreTokenizer pre_tokenizer, BpeModel model, AddedTokens added_tokens,
                     PostProcessor post_processor, Decoder decoder)
    : normalizer_(std::move(normalizer)),
      pre_tokenizer_(std::move(pre_tokenizer)),
      model_(std::move(model)),
      added_tokens_(std::move(added_tokens)),
      post_processor_(std::move(post_processor)),
      decoder_(std::move(decoder)) {}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& model_dir) {
  CADRE_ASSIGN_OR_RETURN(const TokenizerFiles files, ReadTokenizerFiles(model_dir));
  return Parse(files.tokenizer_json, files.tokenizer_config_json);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(std::string_view tokenizer_json,
                                                            std::string_view tokenizer_config_json) {
  CADRE_ASSIGN_OR_RETURN(TokenizerParts parts, ParseTokenizerFiles(tokenizer_json, tokenizer_config_json));
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(parts.normalizer), std::move(parts.pre_tokenizer),
                                                  std::move(parts.model), std::move(parts.added_tokens),
                                                  std::move(parts.post_processor), std::move(parts.decoder)));
}

absl::StatusOr<std::vector<std::int32_t>> Tokenizer::Encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<TextSpan> client_spans;
  if (!options.parse_special) client_spans.push_back({0, text.size()});
  CADRE_ASSIGN_OR_RETURN(std::vector<std::int32_t> ids, EncodeText(text, client_spans));
  return post_processor_.Apply(std::move(ids), options.add_special_tokens);
}

absl::StatusOr<std::vector<std::int32_t>> Tokenizer::EncodeMarked(std::string_view text,
                                                                  std::span<const TextSpan> client_spans,
                                                                  bool add_special_tokens) const {
  CADRE_ASSIGN_OR_RETURN(std::vector<std::int32_t> ids, EncodeText(text, client_spans));
  return post_processor_.ApplyOnce(std::move(ids), add_special_tokens);
}

absl::StatusOr<std::vector<std::int32_t>> Tokenizer::EncodeText(std::string_view text,
                                                                std::span<const TextSpan> client_spans) const {
  if (text.size() > kMaxEncodeBytes) {
    return absl::InvalidArgumentError(absl::StrCat("text has ", text.size(), " bytes, the limit is ", kMaxEncodeBytes));
  }
  if (!IsValidUtf8(text)) return absl::InvalidArgumentError("text is not valid UTF-8");

  std::vector<std::int32_t> ids;
  BpeModel::Workspace workspace = model_.NewWorkspace();
  for (const AddedTokenPart& part : added_tokens_.Split(text, AddedTokens::Pass::kRawText, client_spans)) {
    if (part.id.has_value()) {
      ids.push_back(*part.id);
    } else {
      const std::string_view piece = text.substr(part.span.begin, part.span.end - part.span.begin);
      CADRE_RETURN_IF_ERROR(EncodePart({std::string(piece), part.span.begin == 0}, SpansWithin(client_spans, part.span),
                                       &workspace, &ids));
    }
  }
  return ids;
}

absl::Status Tokenizer::EncodePart(NormalizedText part, const std::vector<TextSpan>& client_spans,
                                   BpeModel::Workspace* workspace, std::vector<std::int32_t>* ids) const {
  std::vector<TextSpan> normalized_spans;
  if (added_tokens_.has_normalized_special()) {
    CADRE_ASSIGN_OR_RETURN(normalized_spans, NormalizeSpans(normalizer_, part, client_spans));
  }
  CADRE_RETURN_IF_ERROR(normalizer_.Apply(&part));
  const std::string_view whole = part.text;
  const auto encode = [&](TextPiece piece) { return model_.Encode(piece.text, workspace, ids); };
  for (const AddedTokenPart& inner : added_tokens_.Split(whole, AddedTokens::Pass::kNormalizedText, normalized_spans)) {
    if (inner.id.has_value()) {
      ids->push_back(*inner.id);
      continue;
    }
    const TextSpan span = inner.span;
    CADRE_RETURN_IF_ERROR(pre_tokenizer_.Split(
        {whole.substr(span.begin, span.end - span.begin), part.is_at_origin && span.begin == 0}, encode));
  }
  return absl::OkStatus();
}

std::string Tokenizer::Decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  DecodeStream stream = NewDecodeStream();
  std::string text;
  for (const std::int32_t id : ids) {
    const std::optional<std::string_view> token = DecodableToken(id, skip_special_tokens);
    if (token.has_value()) text += stream.Append(*token);
  }
  text += stream.Finish();
  return text;
}

std::int32_t Tokenizer::vocab_size() const { return std::max(model_.max_id_bound(), added_tokens_.max_id_bound()); }

std::optional<std::int32_t> Tokenizer::TokenToId(std::string_view token) const {
  const std::optional<std::int32_t> added_id = added_tokens_.TokenToId(token);
  return added_id.has_value() ? added_id : model_.TokenToId(token);
}

std::string_view Tokenizer::IdToToken(std::int32_t id) const {
  const AddedToken* added = added_tokens_.Find(id);
  return added != nullptr ? std::string_view(added->content) : model_.IdToToken(id).value_or("");
}

bool Tokenizer::IsSpecial(std::int32_t id) const {
  const AddedToken* added = added_tokens_.Find(id);
  return added != nullptr && added->special;
}

std::optional<std::string_view> Tokenizer::DecodableToken(std::int32_t id, bool skip_special_tokens) const {
  const AddedToken* added = added_tokens_.Find(id);
  const std::optional<std::string_view> token =
      added != nullptr ? std::optional<std::string_view>(added->form) : model_.IdToToken(id);
  // Like the reference this asks for the form, not for the id: a special token that the normalizer changes is shown.
  if (skip_special_tokens && token.has_value() && added_tokens_.IsSpecialContent(*token)) return std::nullopt;
  return token;
}

std::optional<TokenSpelling> Tokenizer::SpellToken(std::int32_t id) const {
  if (IsSpecial(id)) return std::nullopt;
  const std::optional<std::string_view> token = DecodableToken(id, /*skip_special_tokens=*/true);
  return token.has_value() ? decoder_.Spell(*token) : std::nullopt;
}

}  // namespace cadre
