#include "engine/structured/token_vocabulary.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "engine/base/check.h"
#include "engine/structured/byte_runs.h"

namespace cadre {
namespace {

// Added tokens are shorter; anything longer would be of no use in an answer.
constexpr size_t kMaxTokenBytes = 4096;

std::vector<TokenVocabulary::Token> WithoutEnds(std::vector<TokenVocabulary::Token> tokens,
                                                const std::vector<int32_t>& end_ids) {
  for (const int32_t id : end_ids) {
    if (id >= 0 && static_cast<size_t>(id) < tokens.size()) tokens[static_cast<size_t>(id)] = {};
  }
  for (TokenVocabulary::Token& token : tokens) {
    if (token.later.size() > kMaxTokenBytes || token.later.empty()) token = {};
  }
  return tokens;
}

std::vector<int32_t> SortedIds(std::vector<int32_t> ids, size_t vocab_size) {
  std::erase_if(ids, [vocab_size](int32_t id) { return id < 0 || static_cast<size_t>(id) >= vocab_size; });
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

uint8_t RunSetsOf(uint8_t byte) {
  uint8_t sets = 0;
  for (int set = 0; set < kNumByteRunSets; ++set) {
    if (IsInByteRunSet(set, byte)) sets = static_cast<uint8_t>(sets | (1 << set));
  }
  return sets;
}

size_t CommonPrefix(const std::string& a, const std::string& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

TokenTrie::TokenTrie(std::vector<Entry> entries) {
  std::erase_if(entries, [](const Entry& entry) { return entry.bytes.empty(); });
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.token_id < b.token_id;
  });
  nodes_.push_back({.next = 0, .first_token = 0, .depth = 0, .height = 0, .byte = 0, .run_sets = 0xFF});
  std::vector<uint32_t> path = {0};  // the node of each depth on the way to the last token
  const auto close_below = [&](size_t depth) {
    while (path.size() > depth + 1) {
      Node& closed = nodes_[path.back()];
      closed.next = static_cast<uint32_t>(nodes_.size());
      path.pop_back();
      Node& parent = nodes_[path.back()];
      parent.run_sets &= closed.run_sets;
      parent.height = std::max<uint16_t>(parent.height, static_cast<uint16_t>(closed.height + (parent.depth > 0)));
    }
  };
  std::string last;
  for (const Entry& entry : entries) {
    CADRE_CHECK_LE(entry.bytes.size(), size_t{UINT16_MAX});
    const size_t shared = CommonPrefix(last, entry.bytes);
    close_below(shared);
    for (size_t depth = shared; depth < entry.bytes.size(); ++depth) {
      const auto byte = static_cast<uint8_t>(entry.bytes[depth]);
      path.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({.next = 0,
                        .first_token = static_cast<uint32_t>(tokens_.size()),
                        .depth = static_cast<uint16_t>(depth + 1),
                        .height = 1,
                        .byte = byte,
                        .run_sets = RunSetsOf(byte)});
    }
    tokens_.push_back(entry.token_id);
    last = entry.bytes;
  }
  close_below(0);
  nodes_[0].next = static_cast<uint32_t>(nodes_.size());
  nodes_.push_back({.next = nodes_[0].next + 1,
                    .first_token = static_cast<uint32_t>(tokens_.size()),
                    .depth = 0,
                    .height = 0,
                    .byte = 0,
                    .run_sets = 0});
}

std::span<const int32_t> TokenTrie::TokensBelow(uint32_t node) const {
  const uint32_t begin = nodes_[node].first_token;
  return std::span<const int32_t>(tokens_).subspan(begin, nodes_[nodes_[node].next].first_token - begin);
}

std::span<const int32_t> TokenTrie::TokensAt(uint32_t node) const {
  const uint32_t begin = nodes_[node].first_token;
  return std::span<const int32_t>(tokens_).subspan(begin, nodes_[node + 1].first_token - begin);
}

TokenVocabulary::TokenVocabulary(std::vector<Token> tokens, std::vector<int32_t> end_ids)
    : tokens_(WithoutEnds(std::move(tokens), end_ids)),
      end_ids_(SortedIds(std::move(end_ids), tokens_.size())),
      later_(BuildTrie(tokens_, &Token::later)) {
  bool has_first = false;
  for (size_t id = 0; id < tokens_.size(); ++id) {
    const Token& token = tokens_[id];
    if (token.later.size() == 1) spelled_.set(static_cast<uint8_t>(token.later[0]));
    if (token.first != token.later) has_first = true;
    if (token.first.empty() && !token.later.empty()) silent_first_.push_back(static_cast<int32_t>(id));
  }
  if (has_first) first_ = std::make_unique<const TokenTrie>(BuildTrie(tokens_, &Token::first));
}

TokenTrie TokenVocabulary::BuildTrie(const std::vector<Token>& tokens, std::string Token::*spelling) {
  std::vector<TokenTrie::Entry> entries;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!(tokens[id].*spelling).empty()) entries.push_back({tokens[id].*spelling, static_cast<int32_t>(id)});
  }
  return TokenTrie(std::move(entries));
}

absl::StatusOr<std::shared_ptr<const TokenVocabulary>> TokenVocabulary::FromTokenizer(const Tokenizer& tokenizer,
                                                                                      int32_t vocab_size,
                                                                                      std::vector<int32_t> end_ids) {
  std::vector<Token> tokens(static_cast<size_t>(vocab_size));
  bool has_bytes = false;
  for (int32_t id = 0; id < std::min(vocab_size, tokenizer.vocab_size()); ++id) {
    std::optional<TokenSpelling> spelling = tokenizer.SpellToken(id);
    if (!spelling.has_value()) continue;
    tokens[static_cast<size_t>(id)] = {std::move(spelling->first), std::move(spelling->later)};
    has_bytes = has_bytes || !tokens[static_cast<size_t>(id)].later.empty();
  }
  if (!has_bytes) {
    return absl::UnimplementedError(
        "structured output is not supported with this model's tokenizer: its decoder does "
        "not turn each token into bytes of its own");
  }
  return std::make_shared<const TokenVocabulary>(std::move(tokens), std::move(end_ids));
}

bool TokenVocabulary::IsEnd(int32_t id) const { return std::binary_search(end_ids_.begin(), end_ids_.end(), id); }

}  // namespace cadre
