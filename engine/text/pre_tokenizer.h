#ifndef CADRE_ENGINE_TEXT_PRE_TOKENIZER_H_
#define CADRE_ENGINE_TEXT_PRE_TOKENIZER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/normalizer.h"
#include "nlohmann/json.hpp"

namespace cadre {

// One step of pre-tokenization. Immutable.
class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  // Appends the pieces of `piece`, which is not empty, to `pieces`; none of them is empty. InvalidArgument when a regex
  // gives up on the text.
  virtual absl::Status Apply(NormalizedText piece, std::vector<NormalizedText>* pieces) const = 0;
};

// The "pre_tokenizer" of a tokenizer.json: Split, ByteLevel, Digits, Punctuation, Whitespace, WhitespaceSplit,
// Metaspace, Sequence, or null. It cuts a normalized text into the pieces that the model never merges across, and may
// rewrite them on the way (ByteLevel, Metaspace). Any other component or option is refused at load, by name. Immutable,
// thread-safe.
class PreTokenizer {
 public:
  // Leaves the text whole, as null does.
  PreTokenizer() = default;

  // `where` names the component in error messages.
  static absl::StatusOr<PreTokenizer> Parse(const nlohmann::json& json, std::string where);

  // The pieces of `text`, none of them empty. InvalidArgument when a regex gives up on the text.
  absl::StatusOr<std::vector<NormalizedText>> Split(NormalizedText text) const;

 private:
  absl::Status Add(const nlohmann::json& json, std::string where);

  std::vector<std::unique_ptr<const PreTokenizerStep>> steps_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_PRE_TOKENIZER_H_
