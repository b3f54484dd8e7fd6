#ifndef CADRE_ENGINE_TEXT_PRE_TOKENIZER_H_
#define CADRE_ENGINE_TEXT_PRE_TOKENIZER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace cadre {

// What the model never merges across.
struct TextPiece {
  std::string_view text;  // valid UTF-8
  bool is_at_origin;      // as in NormalizedText
};

// Hears of each piece, left to right; none is empty. The text of a piece lives as long as the call.
using PieceSink = absl::FunctionRef<absl::Status(TextPiece)>;

// One step of pre-tokenization. Immutable.
class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  // Hands the pieces of `piece`, which is not empty, to `sink`, whose error it returns. InvalidArgument when a regex
  // gives up on the text.
  virtual absl::Status Apply(TextPiece piece, PieceSink sink) const = 0;
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

  // Hands the pieces of `text` to `sink`, one by one: a long text of short pieces takes no more memory than a short
  // one. InvalidArgument when a regex gives up on the text, perhaps behind pieces that were handed out; or the sink's
  // error.
  absl::Status Split(TextPiece text, PieceSink sink) const;

 private:
  absl::Status Add(const nlohmann::json& json, std::string where);
  absl::Status SplitFrom(std::size_t step, TextPiece piece, PieceSink sink) const;

  std::vector<std::unique_ptr<const PreTokenizerStep>> steps_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_PRE_TOKENIZER_H_
