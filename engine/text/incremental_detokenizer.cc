#include "engine/text/incremental_detokenizer.h"

#include <optional>
#include <string_view>

namespace cadre {

IncrementalDetokenizer::IncrementalDetokenizer(const Tokenizer* tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens), stream_(tokenizer->NewDecodeStream()) {}

std::string IncrementalDetokenizer::Append(std::int32_t id) {
  const std::optional<std::string_view> token = tokenizer_->DecodableToken(id, skip_special_tokens_);
  return token.has_value() ? stream_.Append(*token) : std::string();
}

std::string IncrementalDetokenizer::Flush() { return stream_.Finish(); }

}  // namespace cadre
