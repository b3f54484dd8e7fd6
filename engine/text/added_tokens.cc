#include "engine/text/added_tokens.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/json_fields.h"
#include "engine/text/unicode_classes.h"
#include "engine/text/utf8.h"

namespace cadre {
namespace {

// All tokens together, and one alone, in bytes. The largest published sets (codebooks of audio models) take about 2
// MiB.
constexpr std::size_t kMaxAddedBytes = 8 << 20;
constexpr std::size_t kMaxTokenBytes = 1 << 10;

absl::StatusOr<AddedToken> ParseToken(const nlohmann::json& json, const Normalizer& normalizer, std::string where) {
  CADRE_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Open(json, std::move(where)));
  CADRE_RETURN_IF_ERROR(
      fields.RefuseOthers({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}));
  AddedToken token;
  CADRE_ASSIGN_OR_RETURN(token.id, fields.Integer("id", kMaxTokenIds - 1));
  CADRE_ASSIGN_OR_RETURN(const std::string_view content, fields.String("content"));
  token.content = content;
  CADRE_ASSIGN_OR_RETURN(token.single_word, fields.Bool("single_word"));
  CADRE_ASSIGN_OR_RETURN(token.lstrip, fields.Bool("lstrip"));
  CADRE_ASSIGN_OR_RETURN(token.rstrip, fields.Bool("rstrip"));
  CADRE_ASSIGN_OR_RETURN(token.normalized, fields.Bool("normalized"));
  CADRE_ASSIGN_OR_RETURN(token.special, fields.Bool("special"));
  NormalizedText form{token.content};
  if (token.normalized) CADRE_RETURN_IF_ERROR(normalizer.Apply(&form));
  token.form = std::move(form.text);
  if (token.content.size() > kMaxTokenBytes || token.form.size() > kMaxTokenBytes) {
    return fields.Invalid(absl::StrCat("a token of ", std::max(token.content.size(), token.form.size()),
                                       " bytes, the limit is ", kMaxTokenBytes));
  }
  return token;
}

// Start of the white space that ends at `end`, or `floor` if that is later.
std::size_t WhiteSpaceBefore(std::string_view text, std::size_t end, std::size_t floor) {
  while (end > floor) {
    const std::size_t begin = PreviousBoundary(text, end);
    std::size_t position = begin;
    if (!IsWhiteSpace(NextCodePoint(text, &position))) break;
    end = begin;
  }
  return std::max(end, floor);
}

// Finds where white space ends. Remembers the last run, so that many tokens inside one run do not each walk it.
class WhiteSpaceScanner {
 public:
  explicit WhiteSpaceScanner(std::string_view text) : text_(text) {}

  // End of the white space that starts at `begin`. REQUIRES: `begin` never decreases.
  std::size_t End(std::size_t begin) {
    for (end_ = std::max(end_, begin); end_ < text_.size();) {
      std::size_t position = end_;
      if (!IsWhiteSpace(NextCodePoint(text_, &position))) break;
      end_ = position;
    }
    return end_;
  }

 private:
  const std::string_view text_;
  std::size_t end_ = 0;  // all between the last `begin` and here is white space
};

// The longest text of the trie that starts at `begin`: its end and value, or kNone.
std::pair<std::size_t, int> LongestMatch(const ByteTrie& trie, std::string_view text, std::size_t begin) {
  std::pair<std::size_t, int> longest = {begin, ByteTrie::kNone};
  int node = ByteTrie::kRoot;
  for (std::size_t end = begin; end < text.size();) {
    node = trie.Child(node, text[end++]);
    if (node == ByteTrie::kNone) break;
    if (trie.value(node) != ByteTrie::kNone) longest = {end, trie.value(node)};
  }
  return longest;
}

// The first span that ends behind `position`.
std::span<const TextSpan>::iterator SpanBehind(std::span<const TextSpan> spans, std::size_t position) {
  return std::upper_bound(spans.begin(), spans.end(), position,
                          [](std::size_t p, const TextSpan& span) { return p < span.end; });
}

}  // namespace

absl::StatusOr<AddedTokens> AddedTokens::Parse(const nlohmann::json* json, const BpeModel& model,
                                               const Normalizer& normalizer, const std::string& where) {
  CADRE_ASSIGN_OR_RETURN(Regex word, Regex::CompilePcre2(absl::StrCat("[", PlainWordClass(), "]")));
  AddedTokens tokens(std::move(word));
  if (json == nullptr) return tokens;
  if (!json->is_array()) return absl::InvalidArgumentError(absl::StrCat(where, " is not an array"));
  std::int32_t next_id = model.num_tokens();
  std::size_t num_bytes = 0;
  for (std::size_t i = 0; i < json->size(); ++i) {
    const std::string place = absl::StrCat(where, "[", i, "]");
    CADRE_ASSIGN_OR_RETURN(AddedToken token, ParseToken((*json)[i], normalizer, place));
    num_bytes += token.content.size() + token.form.size();
    if (num_bytes > kMaxAddedBytes) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": more than ", kMaxAddedBytes, " bytes of added tokens"));
    }
    if (!token.content.empty()) CADRE_RETURN_IF_ERROR(tokens.Add(std::move(token), model, &next_id, place));
  }
  return tokens;
}

absl::Status AddedTokens::Add(AddedToken token, const BpeModel& model, std::int32_t* next_id,
                              const std::string& where) {
  const std::optional<std::int32_t> model_id = model.TokenToId(token.content);
  const std::int32_t id = model_id.has_value() ? *model_id : (*next_id)++;
  if (id != token.id) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": the file gives this token the id ", token.id, ", but ",
                     model_id.has_value() ? "the vocabulary gives it " : "the next free id is ", id));
  }
  const int index = static_cast<int>(tokens_.size());
  if (!index_of_content_.emplace(token.content, index).second || !index_of_id_.emplace(id, index).second) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": this token was already added"));
  }
  max_id_bound_ = std::max(max_id_bound_, id + 1);
  // What the normalizer leaves nothing of is never found. Two tokens with one form would be found by chance.
  ByteTrie& trie = token.normalized ? normalized_trie_ : raw_trie_;
  has_normalized_special_ |= token.normalized && token.special;
  if (!token.form.empty() && !trie.Add(token.form, index)) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": normalized, this token is equal to another"));
  }
  tokens_.push_back(std::move(token));
  return absl::OkStatus();
}

bool AddedTokens::IsWord(std::string_view character) const {
  const absl::StatusOr<std::vector<TextSpan>> matches = word_.FindAll(character);
  return matches.ok() && !matches->empty();
}

bool AddedTokens::IsSingleWord(std::string_view text, TextSpan match) const {
  if (match.begin > 0) {
    const std::size_t begin = PreviousBoundary(text, match.begin);
    if (IsWord(text.substr(begin, match.begin - begin))) return false;
  }
  if (match.end < text.size()) {
    std::size_t end = match.end;
    NextCodePoint(text, &end);
    if (IsWord(text.substr(match.end, end - match.end))) return false;
  }
  return true;
}

std::vector<AddedTokenPart> AddedTokens::Split(std::string_view text, Pass pass,
                                               std::span<const TextSpan> client_spans) const {
  const ByteTrie& trie = pass == Pass::kRawText ? raw_trie_ : normalized_trie_;
  if (trie.is_empty()) return {{{0, text.size()}, std::nullopt}};
  std::vector<AddedTokenPart> parts;
  WhiteSpaceScanner white_space(text);
  std::size_t covered = 0;  // end of the last part
  for (std::size_t position = 0; position < text.size();) {
    auto [match_end, index] = LongestMatch(trie, text, position);
    if (index != ByteTrie::kNone && tokens_[static_cast<std::size_t>(index)].special) {
      const auto client = SpanBehind(client_spans, position);
      if (client != client_spans.end() && client->begin < match_end) {
        if (client->begin <= position && match_end <= client->end) {
          position = match_end;
          continue;
        }
        // Across a seam: what is left of the template's own text may still be a token.
        std::tie(match_end, index) = LongestMatch(trie, text.substr(0, std::max(client->begin, position)), position);
      }
    }
    if (index == ByteTrie::kNone) {
      ++position;
      continue;
    }
    const TextSpan match{position, match_end};
    position = match.end;
    const AddedToken& token = tokens_[static_cast<std::size_t>(index)];
    if (token.single_word && !IsSingleWord(text, match)) continue;
    const std::size_t begin = token.lstrip ? WhiteSpaceBefore(text, match.begin, covered) : match.begin;
    const std::size_t end = token.rstrip ? white_space.End(match.end) : match.end;
    if (covered < begin) parts.push_back({{covered, begin}, std::nullopt});
    parts.push_back({{begin, end}, token.id});
    covered = end;
  }
  if (covered != text.size()) parts.push_back({{covered, text.size()}, std::nullopt});
  return parts;
}

const AddedToken* AddedTokens::Find(std::int32_t id) const {
  const auto entry = index_of_id_.find(id);
  return entry == index_of_id_.end() ? nullptr : &tokens_[static_cast<std::size_t>(entry->second)];
}

std::optional<std::int32_t> AddedTokens::TokenToId(std::string_view content) const {
  const auto entry = index_of_content_.find(ToAbsl(content));
  if (entry == index_of_content_.end()) return std::nullopt;
  return tokens_[static_cast<std::size_t>(entry->second)].id;
}

bool AddedTokens::IsSpecialContent(std::string_view token) const {
  const auto entry = index_of_content_.find(ToAbsl(token));
  return entry != index_of_content_.end() && tokens_[static_cast<std::size_t>(entry->second)].special;
}

}  // namespace cadre
