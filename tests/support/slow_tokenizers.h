// Tokenizers small enough that their answers can be computed the slow way, from the definition of byte pair encoding.
#ifndef CADRE_TESTS_SUPPORT_SLOW_TOKENIZERS_H_
#define CADRE_TESTS_SUPPORT_SLOW_TOKENIZERS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/text/tokenizer.h"
#include "nlohmann/json.hpp"

namespace cadre {

// A vocabulary with merges, as a tokenizer.json and as tables. The merges are made of the first tokens of the
// vocabulary by a fixed sequence of pseudo-random choices, so that they overlap and compete for the same characters.
class SlowTokenizer {
 public:
  // Byte-level: each byte is a token, each line a piece (the line break is a piece of its own).
  static SlowTokenizer ByteLevel();
  // The whole text is one piece, spaces are U+2581, one stands in front, and characters outside the vocabulary are
  // spelled in tokens of their bytes.
  static SlowTokenizer ByteFallback();

  // What the product makes of the same tokenizer.json.
  const Tokenizer& product() const { return *product_; }
  // From the definition, in O(n^2). REQUIRES: valid UTF-8.
  std::vector<std::int32_t> Encode(std::string_view text) const;

 private:
  SlowTokenizer(bool byte_level, std::vector<std::string> symbols, int num_merges);

  void MakeMerges(std::vector<std::string> symbols, int num_merges);
  nlohmann::json ToJson() const;
  void EncodePiece(const std::vector<std::string>& characters, std::vector<std::int32_t>* ids) const;

  bool byte_level_;
  std::vector<std::string> tokens_;  // by id
  absl::flat_hash_map<std::string, std::int32_t> ids_;
  std::vector<std::pair<std::string, std::string>> merges_;  // by rank
  absl::flat_hash_map<std::pair<std::int32_t, std::int32_t>, std::size_t> ranks_;
  std::unique_ptr<Tokenizer> product_;
};

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_SLOW_TOKENIZERS_H_
