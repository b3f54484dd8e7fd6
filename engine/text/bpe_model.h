#ifndef CADRE_ENGINE_TEXT_BPE_MODEL_H_
#define CADRE_ENGINE_TEXT_BPE_MODEL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/merge_table.h"
#include "engine/text/merger.h"
#include "nlohmann/json.hpp"

namespace cadre {

// Token ids lie in [0, kMaxTokenIds).
inline constexpr std::int32_t kMaxTokenIds = 1 << 24;

// Byte pair encoding (Sennrich et al. 2016): the "model" of a tokenizer.json with its vocabulary and merges, and the
// options unk_token, fuse_unk, byte_fallback, ignore_merges, continuing_subword_prefix and end_of_word_suffix.
// Immutable, thread-safe.
class BpeModel {
 public:
  // InvalidArgument for a vocabulary or merges that contradict themselves; Unimplemented for another type of model or
  // an option that is not listed above, by name. `where` names the component in error messages.
  static absl::StatusOr<BpeModel> Parse(const nlohmann::json& json, const std::string& where);

  // The memory of Encode, worth keeping from piece to piece. One thread; must not outlive the model.
  struct Workspace {
    Merger merger;
    std::vector<std::int32_t> symbols;
  };
  Workspace NewWorkspace() const { return {Merger(&merges_), {}}; }

  // Appends the tokens of one pre-tokenized piece: its characters, merged by lowest rank first, leftmost first among
  // equals. The time is linear in the piece's length (see Merger). InvalidArgument when a character needs an unk_token
  // that is not in the vocabulary. REQUIRES: piece is valid UTF-8; the workspace is of this model.
  absl::Status Encode(std::string_view piece, Workspace* workspace, std::vector<std::int32_t>* ids) const;

  std::optional<std::int32_t> TokenToId(std::string_view token) const;
  // Valid as long as the model.
  std::optional<std::string_view> IdToToken(std::int32_t id) const;
  // 1 + the largest id; 0 when there is none.
  std::int32_t max_id_bound() const { return static_cast<std::int32_t>(slot_of_id_.size()); }
  std::int32_t num_tokens() const { return static_cast<std::int32_t>(tokens_.size()); }

 private:
  absl::Status ParseVocab(const nlohmann::json& vocab, const std::string& where);
  absl::Status ParseMerges(const nlohmann::json& merges, const std::string& where);
  absl::Status AddMerge(std::string_view left, std::string_view right, std::uint32_t rank, const std::string& where);
  absl::Status AppendSymbols(std::string_view piece, std::vector<std::int32_t>* symbols) const;
  std::optional<std::int32_t> CharacterToId(char32_t code_point, std::string_view character) const;
  bool AppendFallbackBytes(std::string_view character, std::vector<std::int32_t>* symbols) const;

  absl::flat_hash_map<std::string, std::int32_t> vocab_;
  std::vector<std::string> tokens_;       // by slot, the order in which the file lists them
  std::vector<std::int32_t> slot_of_id_;  // -1 where the ids have a gap
  // Ids of the tokens that are one character, for the first code points: the byte alphabet and most alphabets of
  // letters.
  std::vector<std::int32_t> id_of_code_point_;
  MergeTable merges_;
  std::optional<std::string> unk_token_;
  std::string continuing_subword_prefix_;
  std::string end_of_word_suffix_;
  bool fuse_unk_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  std::vector<std::optional<std::int32_t>> fallback_ids_;  // of "<0x00>" to "<0xFF>"
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_BPE_MODEL_H_
