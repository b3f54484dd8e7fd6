#ifndef CADRE_ENGINE_TEXT_TOKENIZER_LOADER_H_
#define CADRE_ENGINE_TEXT_TOKENIZER_LOADER_H_

#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/added_tokens.h"
#include "engine/text/bpe_model.h"
#include "engine/text/decoder.h"
#include "engine/text/normalizer.h"
#include "engine/text/post_processor.h"
#include "engine/text/pre_tokenizer.h"

namespace cadre {

// The contents of a checkpoint's tokenizer files.
struct TokenizerFiles {
  std::string tokenizer_json;
  std::string tokenizer_config_json;  // empty when there is no such file
};

// The stages of a tokenizer, each one parsed and checked.
struct TokenizerParts {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  BpeModel model;
  AddedTokens added_tokens;
  PostProcessor post_processor;
  Decoder decoder;
};

// NotFound without a tokenizer.json in `model_dir`; InvalidArgument for a file of more than 256 MiB.
absl::StatusOr<TokenizerFiles> ReadTokenizerFiles(const std::filesystem::path& model_dir);

// Errors as for Tokenizer::Parse.
//
// "truncation" and "padding" are accepted and have no effect: the callers of the reference library reset them before
// every encoding.
//
// tokenizer_config.json matters in one case. The tokenizer class LlamaTokenizer (with or without "Fast"; DeepSeek's
// checkpoints name it) surrounds texts with BOS and EOS as add_bos_token and add_eos_token say. We follow when the file
// sets one of these and tokenizer.json has no template of its own; where it has one, that is what counts. Other classes
// ignore the two settings, and so do we.
absl::StatusOr<TokenizerParts> ParseTokenizerFiles(std::string_view tokenizer_json,
                                                   std::string_view tokenizer_config_json);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_TOKENIZER_LOADER_H_
