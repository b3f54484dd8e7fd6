#ifndef CADRE_ENGINE_TEXT_TOKENIZER_H_
#define CADRE_ENGINE_TEXT_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/added_tokens.h"
#include "engine/text/bpe_model.h"
#include "engine/text/decoder.h"
#include "engine/text/normalizer.h"
#include "engine/text/post_processor.h"
#include "engine/text/pre_tokenizer.h"

namespace cadre {

// The longest text that is encoded, in bytes: about two million tokens.
inline constexpr std::size_t kMaxEncodeBytes = 8 << 20;

struct EncodeOptions {
  bool add_special_tokens = true;  // run the post-processor (BOS, ...)
  // Recognize special added tokens inside `text`. Off, their text is plain text: what a client writes cannot forge the
  // tokens that structure a conversation. Added tokens that are not special are always recognized.
  bool parse_special = false;
};

// Text to token ids and back, equal to the Hugging Face `tokenizers` library (0.23) for the tokenizer.json files of BPE
// models: added tokens, normalizer, pre-tokenizer, model, post-processor, decoder, in this order. What this class does
// not know is refused at load, never approximated. Immutable, thread-safe.
class Tokenizer {
 public:
  // Reads tokenizer.json and, if it exists, tokenizer_config.json. NotFound without the former; the errors of Parse.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::filesystem::path& model_dir);

  // The contents of the two files; the second may be empty. InvalidArgument for what is malformed or contradicts
  // itself, Unimplemented for a component or option that is not supported; both name it.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(std::string_view tokenizer_json,
                                                          std::string_view tokenizer_config_json);

  // InvalidArgument: text is not valid UTF-8, longer than kMaxEncodeBytes, more work than a regex may do, or has a
  // character that the model cannot express.
  absl::StatusOr<std::vector<std::int32_t>> Encode(std::string_view text, const EncodeOptions& options = {}) const;

  // The same for a text of which only `client_spans` (rising, not overlapping, at boundaries of characters) come from a
  // client, such as a conversation that a template rendered: special tokens are recognized where no byte of theirs is a
  // client's. The text is not cut at the seams: without special tokens in the client's parts the ids are those of
  // Encode with `parse_special`. Nothing is added in front of what begins with it already: no second BOS.
  absl::StatusOr<std::vector<std::int32_t>> EncodeMarked(std::string_view text, std::span<const TextSpan> client_spans,
                                                         bool add_special_tokens) const;

  // Always valid UTF-8. Ids that are not tokens are left out.
  std::string Decode(std::span<const std::int32_t> ids, bool skip_special_tokens = true) const;

  // 1 + the largest id, added tokens included.
  std::int32_t vocab_size() const;

  std::optional<std::int32_t> TokenToId(std::string_view token) const;

  // The token as the vocabulary spells it ("Ġthe", "▁the"); "" when there is no such token. Valid as long as the
  // tokenizer.
  std::string_view IdToToken(std::int32_t id) const;

  // Whether the id is that of a special added token (BOS, EOS, <|im_start|>, ...).
  bool IsSpecial(std::int32_t id) const;

  // The bytes that a token adds to the output text (see Decoder::Spell), which may be none. nullopt for special tokens,
  // for ids that are no tokens, and for every id of a decoder that does not decide token by token.
  std::optional<TokenSpelling> SpellToken(std::int32_t id) const;

  // Decoding in steps: what Decode does, for ids that come one by one (incremental_detokenizer.h). The stream takes
  // what DecodableToken returns; an empty optional means that the id adds nothing. It must not outlive the tokenizer.
  DecodeStream NewDecodeStream() const { return decoder_.NewStream(); }
  std::optional<std::string_view> DecodableToken(std::int32_t id, bool skip_special_tokens) const;

 private:
  Tokenizer(Normalizer normalizer, PreTokenizer pre_tokenizer, BpeModel model, AddedTokens added_tokens,
            PostProcessor post_processor, Decoder decoder);

  // The ids of the text alone.
  absl::StatusOr<std::vector<std::int32_t>> EncodeText(std::string_view text,
                                                       std::span<const TextSpan> client_spans) const;
  // Ids of a part without tokens of the first pass; `client_spans` are of the part.
  absl::Status EncodePart(NormalizedText part, const std::vector<TextSpan>& client_spans,
                          BpeModel::Workspace* workspace, std::vector<std::int32_t>* ids) const;

  const Normalizer normalizer_;
  const PreTokenizer pre_tokenizer_;
  const BpeModel model_;
  const AddedTokens added_tokens_;
  const PostProcessor post_processor_;
  const Decoder decoder_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_TOKENIZER_H_
