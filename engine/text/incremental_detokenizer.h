#ifndef CADRE_ENGINE_TEXT_INCREMENTAL_DETOKENIZER_H_
#define CADRE_ENGINE_TEXT_INCREMENTAL_DETOKENIZER_H_

#include <cstdint>
#include <string>

#include "engine/text/decoder.h"
#include "engine/text/tokenizer.h"

namespace cadre {

// Turns the ids of one sequence into text while they are generated. All pieces together are what Tokenizer::Decode
// returns for all ids, and each piece consists of complete characters: what later ids could still change is held back
// (half a character, a run of byte-fallback tokens). Movable; not thread-safe.
class IncrementalDetokenizer {
 public:
  // `tokenizer` must outlive this object.
  IncrementalDetokenizer(const Tokenizer* tokenizer, bool skip_special_tokens);

  // The text that `id` makes certain; often the token's own, sometimes empty. Ids that are not tokens add nothing.
  std::string Append(std::int32_t id);

  // What was held back, at the end of the sequence. No call may follow.
  std::string Flush();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  DecodeStream stream_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_INCREMENTAL_DETOKENIZER_H_
