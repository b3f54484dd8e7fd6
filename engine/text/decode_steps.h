#ifndef CADRE_ENGINE_TEXT_DECODE_STEPS_H_
#define CADRE_ENGINE_TEXT_DECODE_STEPS_H_

#include <cstddef>
#include <memory>
#include <string>

#include "engine/text/decoder.h"
#include "engine/text/metaspace.h"
#include "engine/text/regex.h"

namespace cadre {

// Characters of the byte-level alphabet become bytes, and all tokens one text; bytes that are no character become
// U+FFFD.
std::unique_ptr<const DecoderStep> NewByteLevelDecoder();

// A run of tokens "<0xXX>" becomes one token, the text of their bytes; when these are no valid UTF-8, one token U+FFFD
// for each of them. So the run is judged as a whole, and kept until it ends.
std::unique_ptr<const DecoderStep> NewByteFallbackDecoder();

// All tokens become one.
std::unique_ptr<const DecoderStep> NewFuseDecoder();

// In each token, every match of `pattern` becomes `content`. A match the regex gives up on is left as it stands.
std::unique_ptr<const DecoderStep> NewReplaceDecoder(Regex pattern, std::string content);

// Each token loses up to `start` leading and up to `stop` trailing `content`, which is one character.
std::unique_ptr<const DecoderStep> NewStripDecoder(std::string content, std::size_t start, std::size_t stop);

// The replacement character becomes a space, or nothing in the first token (unless the scheme is "never").
std::unique_ptr<const DecoderStep> NewMetaspaceDecoder(const MetaspaceOptions& options);

// A space between tokens: what a tokenizer without decoder does.
std::unique_ptr<const DecoderStep> NewSpaceJoinDecoder();

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_DECODE_STEPS_H_
