#include "server/simulated_tokenizer.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/text/byte_alphabet.h"
#include "nlohmann/json.hpp"

namespace cadre {
namespace {

constexpr int32_t kNumBytes = 256;

// A token's name in the vocabulary: its bytes, spelled in the byte-level alphabet.
std::string Spell(std::string_view bytes) {
  std::string spelled;
  AppendByteAlphabet(bytes, &spelled);
  return spelled;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSimulatedTokenizer(int32_t vocab_size) {
  if (vocab_size < kNumBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("sim: vocab is ", vocab_size, ", the least that can spell every text is ", kNumBytes));
  }
  nlohmann::json vocab = nlohmann::json::object();
  for (int32_t id = 0; id < kNumBytes; ++id) vocab[Spell(std::string(1, static_cast<char>(id)))] = id;
  for (int32_t id = kNumBytes; id < vocab_size; ++id) vocab[Spell(absl::StrCat(" t", id))] = id;
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  const nlohmann::json tokenizer = {
      {"version", "1.0"},
      {"added_tokens", nlohmann::json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model", {{"type", "BPE"}, {"vocab", std::move(vocab)}, {"merges", nlohmann::json::array()}}},
  };
  return Tokenizer::Parse(tokenizer.dump(), "");
}

}  // namespace cadre
