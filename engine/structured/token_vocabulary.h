#ifndef CADRE_ENGINE_STRUCTURED_TOKEN_VOCABULARY_H_
#define CADRE_ENGINE_STRUCTURED_TOKEN_VOCABULARY_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/structured/grammar.h"
#include "engine/text/tokenizer.h"

namespace cadre {

// Tokens by their bytes, with shared beginnings shared. Immutable.
class TokenTrie {
 public:
  // Nodes stand in the order of a walk that visits children in byte order, node 0 being the root.
  struct Node {
    uint32_t next;         // the node behind this one's subtree
    uint32_t first_token;  // tokens()[first_token, that of node + 1) end here; up to that of `next`, in the subtree
    uint16_t depth;        // bytes from the root
    uint16_t height;       // bytes to the end of the longest token of the subtree, this node's own included
    uint8_t byte;
    uint8_t run_sets;  // bit s: all bytes of the subtree, this node's included, are in set s of byte_runs.h
  };
  struct Entry {
    std::string bytes;
    int32_t token_id;
  };

  // REQUIRES: no entry has more than 65535 bytes. Empty ones are left out.
  explicit TokenTrie(std::vector<Entry> entries);

  // With a last node behind all others, which has no token.
  std::span<const Node> nodes() const { return nodes_; }
  std::span<const int32_t> tokens() const { return tokens_; }
  // Those of the whole subtree.
  std::span<const int32_t> TokensBelow(uint32_t node) const;
  // Those that end in `node`.
  std::span<const int32_t> TokensAt(uint32_t node) const;

 private:
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;  // by bytes, then id
};

// What structured output knows of a model's tokens: the bytes that each adds to the output text. Immutable.
class TokenVocabulary {
 public:
  struct Token {
    std::string first;  // as the first token of the output
    std::string later;  // anywhere else
  };

  // `tokens` is [V]; empty ones (special tokens, gaps) are never allowed. `end_ids` end a sequence, whatever they
  // spell.
  TokenVocabulary(std::vector<Token> tokens, std::vector<int32_t> end_ids);
  // The tokens below `vocab_size` (of the model, which may have more or fewer than the tokenizer). Unimplemented when
  // the tokenizer does not decode token by token.
  static absl::StatusOr<std::shared_ptr<const TokenVocabulary>> FromTokenizer(const Tokenizer& tokenizer,
                                                                              int32_t vocab_size,
                                                                              std::vector<int32_t> end_ids);

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  size_t num_mask_words() const { return (tokens_.size() + 63) / 64; }
  const Token& token(int32_t id) const { return tokens_[static_cast<size_t>(id)]; }
  std::span<const int32_t> end_ids() const { return end_ids_; }
  bool IsEnd(int32_t id) const;

  const TokenTrie& trie() const { return later_; }
  // By what the tokens spell at the start of the output.
  const TokenTrie& first_trie() const { return first_ != nullptr ? *first_ : later_; }
  // Whether the two differ.
  bool has_first_trie() const { return first_ != nullptr; }
  // Tokens that spell nothing at the start of the output, but something elsewhere: a first space that is stripped.
  std::span<const int32_t> silent_first() const { return silent_first_; }

  // Bytes that are tokens of their own.
  const ByteSet& spelled() const { return spelled_; }

 private:
  static TokenTrie BuildTrie(const std::vector<Token>& tokens, std::string Token::*spelling);

  const std::vector<Token> tokens_;
  const std::vector<int32_t> end_ids_;  // ascending
  const TokenTrie later_;
  std::unique_ptr<const TokenTrie> first_;
  std::vector<int32_t> silent_first_;
  ByteSet spelled_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_TOKEN_VOCABULARY_H_
