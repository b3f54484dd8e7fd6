#ifndef CADRE_ENGINE_TEXT_DECODER_H_
#define CADRE_ENGINE_TEXT_DECODER_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace cadre {

// One step of decoding in motion, with the state of one sequence. Tokens come in as fragments: all text of a token,
// then a mark that it ended (`ends_token`). A step passes on what no later token can change, and keeps the rest.
class DecodeFlow {
 public:
  virtual ~DecodeFlow() = default;
  virtual void Append(std::string_view fragment, bool ends_token) = 0;
  // The sequence is over: passes on what was kept.
  virtual void Finish() = 0;
};

// The bytes that one token adds to the text, as far as the steps so far make them.
struct TokenSpelling {
  std::string first;       // as the first token of a sequence
  std::string later;       // behind other tokens
  bool is_fused = false;   // the next step sees all tokens as one
  bool has_bytes = false;  // the next step sees runs of byte tokens as one
};

// One step of decoding. Immutable.
class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  // Does to one token what the flow does to it. False when that depends on more than whether the token is the first.
  virtual bool Spell(TokenSpelling* spelling) const = 0;
  // A flow at the start of a sequence that writes to `next`, which must outlive it.
  virtual std::unique_ptr<DecodeFlow> NewFlow(DecodeFlow* next) const = 0;
};

// Turns the tokens of one sequence into text, as they come. Not thread-safe.
class DecodeStream {
 public:
  explicit DecodeStream(const std::vector<std::unique_ptr<const DecoderStep>>& steps);
  ~DecodeStream();
  DecodeStream(DecodeStream&&) noexcept;
  DecodeStream& operator=(DecodeStream&&) noexcept;

  // Text that the tokens so far make certain, and that no earlier call returned; possibly empty, always valid UTF-8.
  std::string Append(std::string_view token);
  // The rest of the text. No call may follow.
  std::string Finish();

 private:
  class Collector;

  std::unique_ptr<Collector> collector_;
  std::vector<std::unique_ptr<DecodeFlow>> flows_;  // the last one writes to the collector
};

// The "decoder" of a tokenizer.json: ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, Sequence, or null
// (tokens joined by spaces). Any other component or option is refused at load, by name. Immutable, thread-safe.
class Decoder {
 public:
  // `where` names the component in error messages.
  static absl::StatusOr<Decoder> Parse(const nlohmann::json& json, std::string where);

  // A stream at the start of a sequence; it must not outlive the decoder.
  DecodeStream NewStream() const { return DecodeStream(steps_); }

  // The bytes that `token` adds to a text, which may be part of a character: a sequence whose bytes are valid UTF-8 is
  // decoded into them. nullopt when this decoder does not decide token by token.
  std::optional<TokenSpelling> Spell(std::string_view token) const;

 private:
  absl::Status Add(const nlohmann::json& json, std::string where);

  std::vector<std::unique_ptr<const DecoderStep>> steps_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_DECODER_H_
