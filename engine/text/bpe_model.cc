#include "engine/text/bpe_model.h"

#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/json_fields.h"
#include "engine/text/utf8.h"

namespace cadre {
namespace {

constexpr std::int32_t kNoSlot = -1;
constexpr std::int32_t kNoId = -1;
constexpr int kNumBytes = 256;
constexpr char32_t kNumTabledCodePoints = 0x800;

absl::Status CheckType(const JsonFields& fields) {
  CADRE_ASSIGN_OR_RETURN(const std::optional<std::string_view> type, fields.OptionalString("type"));
  // Old files do not name the type; only BPE has merges.
  const bool is_bpe = type.has_value() ? *type == "BPE" : fields.Find("merges") != nullptr;
  if (!is_bpe) {
    return fields.Unsupported(absl::StrCat("model type ", Quoted(type.value_or("")), " is not supported (BPE is)"));
  }
  return fields.RefuseOthers({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                              "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"});
}

// Dropout makes every encoding random; a server that gives the same answer twice cannot have it.
absl::Status CheckDropout(const JsonFields& fields) {
  const nlohmann::json* dropout = fields.Find("dropout");
  if (dropout == nullptr || (dropout->is_number() && *dropout == 0)) return absl::OkStatus();
  return fields.Unsupported(absl::StrCat("dropout ", Quoted(dropout->dump()), " is not supported (0 is)"));
}

}  // namespace

absl::StatusOr<BpeModel> BpeModel::Parse(const nlohmann::json& json, const std::string& where) {
  CADRE_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Open(json, where));
  CADRE_RETURN_IF_ERROR(CheckType(fields));
  CADRE_RETURN_IF_ERROR(CheckDropout(fields));
  BpeModel model;
  CADRE_ASSIGN_OR_RETURN(const auto unk_token, fields.OptionalString("unk_token"));
  if (unk_token.has_value()) model.unk_token_ = std::string(*unk_token);
  CADRE_ASSIGN_OR_RETURN(const auto prefix, fields.OptionalString("continuing_subword_prefix"));
  CADRE_ASSIGN_OR_RETURN(const auto suffix, fields.OptionalString("end_of_word_suffix"));
  model.continuing_subword_prefix_ = prefix.value_or("");
  model.end_of_word_suffix_ = suffix.value_or("");
  CADRE_ASSIGN_OR_RETURN(model.fuse_unk_, fields.BoolOr("fuse_unk", false));
  CADRE_ASSIGN_OR_RETURN(model.byte_fallback_, fields.BoolOr("byte_fallback", false));
  CADRE_ASSIGN_OR_RETURN(model.ignore_merges_, fields.BoolOr("ignore_merges", false));

  CADRE_ASSIGN_OR_RETURN(const nlohmann::json* vocab, fields.Require("vocab"));
  CADRE_RETURN_IF_ERROR(model.ParseVocab(*vocab, where));
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json* merges, fields.Require("merges"));
  CADRE_RETURN_IF_ERROR(model.ParseMerges(*merges, where));
  for (char32_t c = 0; c < kNumTabledCodePoints; ++c) {
    std::string character;
    AppendCodePoint(c, &character);
    model.id_of_code_point_.push_back(model.TokenToId(character).value_or(kNoId));
  }
  for (int byte = 0; byte < kNumBytes; ++byte) {
    model.fallback_ids_.push_back(model.TokenToId(absl::StrFormat("<0x%02X>", byte)));
  }
  return model;
}

absl::Status BpeModel::ParseVocab(const nlohmann::json& vocab, const std::string& where) {
  if (!vocab.is_object()) return absl::InvalidArgumentError(absl::StrCat(where, ".vocab is not an object"));
  vocab_.reserve(vocab.size());
  tokens_.reserve(vocab.size());
  for (const auto& entry : vocab.items()) {
    const nlohmann::json& value = entry.value();
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() >= static_cast<std::uint64_t>(kMaxTokenIds)) {
      return absl::InvalidArgumentError(absl::StrCat(where, ".vocab: the id ",
                                                     value.is_number() ? value.dump() : value.type_name(), " of token ",
                                                     tokens_.size(), " is not a whole number below ", kMaxTokenIds));
    }
    const auto id = value.get<std::int32_t>();
    if (id >= max_id_bound()) slot_of_id_.resize(static_cast<std::size_t>(id) + 1, kNoSlot);
    if (slot_of_id_[static_cast<std::size_t>(id)] != kNoSlot) {
      return absl::InvalidArgumentError(absl::StrCat(where, ".vocab: two tokens have the id ", id));
    }
    slot_of_id_[static_cast<std::size_t>(id)] = num_tokens();
    tokens_.push_back(entry.key());
    vocab_.emplace(entry.key(), id);
  }
  return absl::OkStatus();
}

absl::Status BpeModel::ParseMerges(const nlohmann::json& merges, const std::string& where) {
  if (!merges.is_array()) return absl::InvalidArgumentError(absl::StrCat(where, ".merges is not an array"));
  merges_.Reserve(merges.size());
  const bool are_pairs = !merges.empty() && merges[0].is_array();
  std::uint32_t rank = 0;
  for (const nlohmann::json& merge : merges) {
    const std::string place = absl::StrCat(where, ".merges[", rank, "]");
    if (are_pairs) {
      if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) {
        return absl::InvalidArgumentError(absl::StrCat(place, " is not a pair of strings"));
      }
      CADRE_RETURN_IF_ERROR(
          AddMerge(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>(), rank++, place));
      continue;
    }
    if (!merge.is_string()) return absl::InvalidArgumentError(absl::StrCat(place, " is not a string"));
    const std::string_view line = merge.get_ref<const std::string&>();
    if (line.starts_with("#version")) continue;  // the head of a merges.txt that was taken over line by line
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat(place, " is not two tokens with one space between them"));
    }
    CADRE_RETURN_IF_ERROR(AddMerge(line.substr(0, space), line.substr(space + 1), rank++, place));
  }
  return absl::OkStatus();
}

absl::Status BpeModel::AddMerge(std::string_view left, std::string_view right, std::uint32_t rank,
                                const std::string& where) {
  const std::optional<std::int32_t> left_id = TokenToId(left);
  const std::optional<std::int32_t> right_id = TokenToId(right);
  if (!left_id.has_value() || !right_id.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": the ", left_id.has_value() ? "second" : "first", " token is not in the vocabulary"));
  }
  if (right.size() < continuing_subword_prefix_.size()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": the second token lacks continuing_subword_prefix"));
  }
  const std::string merged = absl::StrCat(ToAbsl(left), ToAbsl(right.substr(continuing_subword_prefix_.size())));
  const std::optional<std::int32_t> merged_id = TokenToId(merged);
  if (!merged_id.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": the merged token is not in the vocabulary"));
  }
  merges_.Add(*left_id, *right_id, {rank, *merged_id});
  return absl::OkStatus();
}

std::optional<std::int32_t> BpeModel::TokenToId(std::string_view token) const {
  const auto entry = vocab_.find(ToAbsl(token));
  return entry == vocab_.end() ? std::nullopt : std::optional<std::int32_t>(entry->second);
}

std::optional<std::string_view> BpeModel::IdToToken(std::int32_t id) const {
  if (id < 0 || id >= max_id_bound()) return std::nullopt;
  const std::int32_t slot = slot_of_id_[static_cast<std::size_t>(id)];
  if (slot == kNoSlot) return std::nullopt;
  return tokens_[static_cast<std::size_t>(slot)];
}

std::optional<std::int32_t> BpeModel::CharacterToId(char32_t code_point, std::string_view character) const {
  if (code_point >= kNumTabledCodePoints) return TokenToId(character);
  const std::int32_t id = id_of_code_point_[code_point];
  return id == kNoId ? std::nullopt : std::optional<std::int32_t>(id);
}

bool BpeModel::AppendFallbackBytes(std::string_view character, std::vector<std::int32_t>* symbols) const {
  const std::size_t size_before = symbols->size();
  for (const char byte : character) {
    const std::optional<std::int32_t> id = fallback_ids_[static_cast<std::uint8_t>(byte)];
    if (!id.has_value()) {
      symbols->resize(size_before);
      return false;
    }
    symbols->push_back(*id);
  }
  return true;
}

absl::Status BpeModel::AppendSymbols(std::string_view piece, std::vector<std::int32_t>* symbols) const {
  // An unknown token waits, to be fused with those that follow. Fallback bytes overtake it: so does the reference.
  std::optional<std::int32_t> waiting_unk;
  std::string decorated;
  for (std::size_t position = 0; position < piece.size();) {
    const std::size_t begin = position;
    const char32_t code_point = NextCodePoint(piece, &position);
    std::string_view character = piece.substr(begin, position - begin);
    const bool has_prefix = begin > 0 && !continuing_subword_prefix_.empty();
    const bool has_suffix = position == piece.size() && !end_of_word_suffix_.empty();
    const bool is_decorated = has_prefix || has_suffix;
    if (is_decorated) {
      decorated = absl::StrCat(has_prefix ? continuing_subword_prefix_ : "", ToAbsl(character),
                               has_suffix ? end_of_word_suffix_ : "");
      character = decorated;
    }
    const std::optional<std::int32_t> id = is_decorated ? TokenToId(character) : CharacterToId(code_point, character);
    if (id.has_value()) {
      if (waiting_unk.has_value()) symbols->push_back(*std::exchange(waiting_unk, std::nullopt));
      symbols->push_back(*id);
      continue;
    }
    if (byte_fallback_ && AppendFallbackBytes(character, symbols)) continue;
    if (!unk_token_.has_value()) continue;  // the character is lost, as in the reference
    if (waiting_unk.has_value() && !fuse_unk_) symbols->push_back(*waiting_unk);
    waiting_unk = TokenToId(*unk_token_);
    if (!waiting_unk.has_value()) {
      return absl::InvalidArgumentError(
          "the text has a character that is not in the vocabulary, and neither is the tokenizer's unk_token");
    }
  }
  if (waiting_unk.has_value()) symbols->push_back(*waiting_unk);
  return absl::OkStatus();
}

absl::Status BpeModel::Encode(std::string_view piece, Workspace* workspace, std::vector<std::int32_t>* ids) const {
  if (ignore_merges_) {
    if (const std::optional<std::int32_t> id = TokenToId(piece); id.has_value()) {
      ids->push_back(*id);
      return absl::OkStatus();
    }
  }
  std::vector<std::int32_t>& symbols = workspace->symbols;
  symbols.clear();
  symbols.reserve(piece.size());
  CADRE_RETURN_IF_ERROR(AppendSymbols(piece, &symbols));
  workspace->merger.Merge(symbols, ids);
  return absl::OkStatus();
}

}  // namespace cadre
