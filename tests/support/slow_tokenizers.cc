#include "tests/support/slow_tokenizers.h"

#include <random>

#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "engine/text/byte_alphabet.h"

namespace cadre {
namespace {

constexpr int kNumMerges = 400;
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

// The characters of valid UTF-8.
std::vector<std::string> Characters(std::string_view text) {
  std::vector<std::string> characters;
  for (const char byte : text) {
    const bool continues = (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
    if (!continues) characters.emplace_back();
    characters.back() += byte;
  }
  return characters;
}

std::string EncodeByteAlphabet(std::string_view bytes) {
  std::string characters;
  AppendByteAlphabet(bytes, &characters);
  return characters;
}

std::string ByteToken(unsigned char byte) { return absl::StrFormat("<0x%02X>", byte); }

}  // namespace

SlowTokenizer SlowTokenizer::ByteLevel() {
  std::vector<std::string> symbols;
  for (int byte = 0; byte < 256; ++byte) {
    symbols.push_back(EncodeByteAlphabet(std::string(1, static_cast<char>(byte))));
  }
  return SlowTokenizer(/*byte_level=*/true, std::move(symbols), kNumMerges);
}

SlowTokenizer SlowTokenizer::ByteFallback() {
  std::vector<std::string> symbols;
  for (int byte = 0; byte < 256; ++byte) symbols.push_back(ByteToken(static_cast<unsigned char>(byte)));
  for (const std::string_view character : {"a", "b", "c", "d", "e", "\n", "0", "1", ".", "\xC3\xA9", "\xE4\xB8\xAD"}) {
    symbols.emplace_back(character);
  }
  symbols.emplace_back(kSpaceMark);
  return SlowTokenizer(/*byte_level=*/false, std::move(symbols), kNumMerges);
}

SlowTokenizer::SlowTokenizer(bool byte_level, std::vector<std::string> symbols, int num_merges)
    : byte_level_(byte_level), tokens_(std::move(symbols)) {
  for (std::size_t id = 0; id < tokens_.size(); ++id) ids_[tokens_[id]] = static_cast<std::int32_t>(id);
  std::vector<std::string> mergeable;
  if (byte_level_) {
    for (const char byte : std::string_view("ab c\xC3\xA9\xE4\xB8\xAD.1")) {
      mergeable.push_back(EncodeByteAlphabet(std::string(1, byte)));
    }
  } else {
    mergeable.assign(tokens_.begin() + 256, tokens_.end());
  }
  MakeMerges(std::move(mergeable), num_merges);
  absl::StatusOr<std::unique_ptr<Tokenizer>> product = Tokenizer::Parse(ToJson().dump(), "");
  CADRE_CHECK(product.ok());
  product_ = *std::move(product);
}

void SlowTokenizer::MakeMerges(std::vector<std::string> symbols, int num_merges) {
  std::mt19937 random(20);
  while (static_cast<int>(merges_.size()) < num_merges) {
    const std::string left = symbols[random() % symbols.size()];
    const std::string right = symbols[random() % symbols.size()];
    const std::pair<std::int32_t, std::int32_t> pair(ids_.at(left), ids_.at(right));
    if (left.size() + right.size() > 24 || ranks_.contains(pair)) continue;
    ranks_[pair] = merges_.size();
    merges_.emplace_back(left, right);
    // Two merges may lead to the same token.
    if (ids_.try_emplace(left + right, static_cast<std::int32_t>(tokens_.size())).second) {
      tokens_.push_back(left + right);
      symbols.push_back(left + right);
    }
  }
}

nlohmann::json SlowTokenizer::ToJson() const {
  nlohmann::json model = {{"type", "BPE"}, {"byte_fallback", !byte_level_}, {"fuse_unk", false}};
  model["vocab"] = nlohmann::json::object();
  for (std::size_t id = 0; id < tokens_.size(); ++id) model["vocab"][tokens_[id]] = id;
  model["merges"] = merges_;
  nlohmann::json json = {{"model", model}};
  if (byte_level_) {
    json["pre_tokenizer"] = nlohmann::json::parse(R"({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})");
    json["decoder"] = nlohmann::json::parse(R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                                  "use_regex": false})");
  } else {
    json["normalizer"] = nlohmann::json::parse(R"({"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})");
    json["decoder"] = nlohmann::json::parse(R"({"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})");
  }
  return json;
}

std::vector<std::int32_t> SlowTokenizer::Encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  std::vector<std::string> piece;
  if (byte_level_) {
    for (const char byte : text) {
      if (byte == '\n') {
        EncodePiece(piece, &ids);
        piece.clear();
        EncodePiece({EncodeByteAlphabet("\n")}, &ids);
      } else {
        piece.push_back(EncodeByteAlphabet(std::string(1, byte)));
      }
    }
    EncodePiece(piece, &ids);
    return ids;
  }
  if (text.empty()) return ids;
  piece.emplace_back(kSpaceMark);
  for (const std::string& character : Characters(text)) {
    if (character == " ") {
      piece.emplace_back(kSpaceMark);
    } else if (ids_.contains(character)) {
      piece.push_back(character);
    } else {
      for (const char byte : character) piece.push_back(ByteToken(static_cast<unsigned char>(byte)));
    }
  }
  EncodePiece(piece, &ids);
  return ids;
}

void SlowTokenizer::EncodePiece(const std::vector<std::string>& characters, std::vector<std::int32_t>* ids) const {
  std::vector<std::int32_t> piece;
  for (const std::string& character : characters) piece.push_back(ids_.at(character));
  while (true) {
    std::size_t best_rank = merges_.size();
    std::size_t best = 0;
    for (std::size_t i = 0; i + 1 < piece.size(); ++i) {
      const auto found = ranks_.find({piece[i], piece[i + 1]});
      if (found != ranks_.end() && found->second < best_rank) {
        best_rank = found->second;
        best = i;
      }
    }
    if (best_rank == merges_.size()) break;
    piece[best] = ids_.at(merges_[best_rank].first + merges_[best_rank].second);
    piece.erase(piece.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  ids->insert(ids->end(), piece.begin(), piece.end());
}

}  // namespace cadre
