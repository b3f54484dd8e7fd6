#include "tests/support/structured_walk.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace cadre {
namespace {

std::span<const uint64_t> MustAllow(ConstraintState& state) {
  const absl::StatusOr<std::span<const uint64_t>> words = state.AllowedTokens();
  CADRE_CHECK(words.ok());
  return *words;
}

}  // namespace

std::shared_ptr<const TokenVocabulary> ByteVocabulary(const std::vector<std::string>& more) {
  std::vector<TokenVocabulary::Token> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text(1, static_cast<char>(byte));
    tokens.push_back({text, text});
  }
  for (const std::string& text : more) tokens.push_back({text, text});
  const auto end = static_cast<int32_t>(tokens.size());
  tokens.push_back({});
  return std::make_shared<const TokenVocabulary>(std::move(tokens), std::vector<int32_t>{end});
}

std::vector<std::string> JsonPieces() {
  std::vector<std::string> pieces = {
      "{\"",   "\":",       "\": ",     "\", \"", "\",\"",    "\"}",      "\"]",     "}}",    "}]",     "]}",
      "],",    "},",        "}, {",     "[[",     "]]",       "{}",       "[]",      "[{\"",  ", ",     ",\n",
      "\n  ",  "  ",        "true",     "false",  "null",     "12",       "123",     "0.",    "1e",     "-1",
      "00",    "\\n",       "\\u00",    "\\\"",   "\\\\",     "name",     "value",   "hello", "he",     "the",
      " the",  "\xC3\xA9t", "\xE2\x82", "\xAC",   "\xF0\x9F", "\x98\x80", "a\"",     "ab",    "abc",    "abcd",
      "b\":",  "\xC3",      "type",     "id",     "2024",     "-01",      "T00:",    ".5",    "\"a\":", "\": \"",
      "\": [", "\": {",     "\"\n}",    "},\n",   "zzz",      "AAAA",     "aaaaaaaa"};
  return pieces;
}

bool IsAllowed(ConstraintState& state, int32_t token) {
  return (MustAllow(state)[static_cast<size_t>(token) / 64] >> (token % 64) & 1) != 0;
}

std::vector<int32_t> AllowedList(ConstraintState& state) {
  std::vector<int32_t> tokens;
  const std::span<const uint64_t> words = MustAllow(state);
  for (size_t i = 0; i < words.size(); ++i) {
    for (int bit = 0; bit < 64; ++bit) {
      if ((words[i] >> bit & 1) != 0) tokens.push_back(static_cast<int32_t>(i) * 64 + bit);
    }
  }
  return tokens;
}

WalkResult RandomWalk(const TokenConstraint& constraint, const TokenVocabulary& vocabulary, std::mt19937_64& random,
                      int budget) {
  const std::unique_ptr<ConstraintState> state = constraint.Start();
  WalkResult result;
  while (!state->done() && result.num_tokens < 40 * budget) {
    const std::vector<int32_t> allowed = AllowedList(*state);
    CADRE_CHECK(!allowed.empty());
    int32_t chosen = allowed[random() % allowed.size()];
    if (result.num_tokens >= budget) {
      for (const std::string_view closing : {"", "\"", "}", "]"}) {
        const auto found = std::find_if(allowed.begin(), allowed.end(), [&](int32_t id) {
          return closing.empty() ? vocabulary.IsEnd(id) : vocabulary.token(id).later == closing;
        });
        if (found == allowed.end()) continue;
        chosen = *found;
        break;
      }
    }
    const bool is_first = result.num_tokens == 0;
    if (!vocabulary.IsEnd(chosen)) {
      result.text += is_first ? vocabulary.token(chosen).first : vocabulary.token(chosen).later;
    }
    state->Advance(chosen);
    ++result.num_tokens;
  }
  result.is_finished = state->done();
  return result;
}

bool Accepts(const TokenConstraint& constraint, const TokenVocabulary& vocabulary, std::string_view text,
             std::mt19937_64& random) {
  const std::unique_ptr<ConstraintState> state = constraint.Start();
  bool is_first = true;
  while (!text.empty()) {
    std::vector<int32_t> fitting;
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      const TokenVocabulary::Token& token = vocabulary.token(id);
      const std::string& bytes = is_first ? token.first : token.later;
      if (!bytes.empty() && text.starts_with(bytes)) fitting.push_back(id);
    }
    CADRE_CHECK(!fitting.empty());
    const int32_t chosen = fitting[random() % fitting.size()];
    if (!IsAllowed(*state, chosen)) return false;
    text.remove_prefix(is_first ? vocabulary.token(chosen).first.size() : vocabulary.token(chosen).later.size());
    state->Advance(chosen);
    is_first = false;
  }
  if (state->done()) return true;
  return std::any_of(vocabulary.end_ids().begin(), vocabulary.end_ids().end(),
                     [&](int32_t id) { return IsAllowed(*state, id); });
}

}  // namespace cadre
