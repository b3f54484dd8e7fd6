#ifndef CADRE_ENGINE_TEXT_ADDED_TOKENS_H_
#define CADRE_ENGINE_TEXT_ADDED_TOKENS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/text/bpe_model.h"
#include "engine/text/byte_trie.h"
#include "engine/text/normalizer.h"
#include "engine/text/regex.h"
#include "nlohmann/json.hpp"

namespace cadre {

// A token that is looked for in the text itself, before the model sees it.
struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  // What is looked for and what decodes: the content as the normalizer leaves it if `normalized`, else the content.
  std::string form;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // swallows the white space to its left
  bool rstrip = false;       // swallows the white space to its right
  bool normalized = false;   // looked for in the normalized text, else in the text as it came
  bool special = false;      // a control token: plain text in user input, and not shown by default
};

// A part of a text: one added token, or text between them.
struct AddedTokenPart {
  TextSpan span;
  std::optional<std::int32_t> id;
};

// The "added_tokens" of a tokenizer.json. Immutable, thread-safe.
class AddedTokens {
 public:
  // The ids that the reference gives the tokens (that of the model if it knows the token, else the next free one) must
  // be the ids in the file; a file that contradicts itself is InvalidArgument. Tokens without content are left out.
  static absl::StatusOr<AddedTokens> Parse(const nlohmann::json* json, const BpeModel& model,
                                           const Normalizer& normalizer, const std::string& where);

  enum class Pass { kRawText, kNormalizedText };

  // Cuts `text` at the tokens of that pass: the leftmost match wins, among those that start there the longest. Matches
  // that are passed over (special ones inside a client's span, a `single_word` inside a word) hide what they cover. A
  // special one that a client's span has only a part of is no match, and hides nothing: what a client writes beside a
  // token of the template can neither forge nor break it. Time is O(size * longest token). REQUIRES: text is valid
  // UTF-8, `client_spans` rise and do not overlap.
  std::vector<AddedTokenPart> Split(std::string_view text, Pass pass, std::span<const TextSpan> client_spans) const;

  // Whether the pass over normalized text can find a special token.
  bool has_normalized_special() const { return has_normalized_special_; }

  // Null when the id is not that of an added token. Valid as long as this object.
  const AddedToken* Find(std::int32_t id) const;
  std::optional<std::int32_t> TokenToId(std::string_view content) const;
  // Whether decoding leaves `token` out when it skips special tokens.
  bool IsSpecialContent(std::string_view token) const;
  // 1 + the largest id; 0 when there is none.
  std::int32_t max_id_bound() const { return max_id_bound_; }

 private:
  explicit AddedTokens(Regex word) : word_(std::move(word)) {}

  absl::Status Add(AddedToken token, const BpeModel& model, std::int32_t* next_id, const std::string& where);
  bool IsWord(std::string_view character) const;
  bool IsSingleWord(std::string_view text, TextSpan match) const;

  Regex word_;  // matches one word character
  std::vector<AddedToken> tokens_;
  absl::flat_hash_map<std::int32_t, int> index_of_id_;
  absl::flat_hash_map<std::string, int> index_of_content_;
  ByteTrie raw_trie_;
  ByteTrie normalized_trie_;
  bool has_normalized_special_ = false;
  std::int32_t max_id_bound_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_ADDED_TOKENS_H_
