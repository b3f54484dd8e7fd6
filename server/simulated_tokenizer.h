// A tokenizer for a model that has none: text is its bytes, and every token has a text of its own.
#ifndef CADRE_SERVER_SIMULATED_TOKENIZER_H_
#define CADRE_SERVER_SIMULATED_TOKENIZER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"

namespace cadre {

// Tokens 0 to 255 are the bytes; token i from there to vocab_size - 1 reads " t<i>" and is never made from text.
// INVALID_ARGUMENT for less than 256 tokens.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSimulatedTokenizer(int32_t vocab_size);

}  // namespace cadre

#endif  // CADRE_SERVER_SIMULATED_TOKENIZER_H_
