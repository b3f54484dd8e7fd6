// The tokenizer loader, and what it loads: a tokenizer that parses must encode and decode anything. The input is a
// tokenizer.json, and, behind a NUL byte, an optional text (which may be invalid UTF-8) to encode.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/check.h"
#include "engine/text/incremental_detokenizer.h"
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

namespace cadre {
namespace {

constexpr std::string_view kDefaultText = "Hello  world's\r\n 123\t\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x99\x82<s>";
constexpr std::size_t kMaxTextBytes = 4096;

void CheckDecoding(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids) {
  for (const bool skip_special_tokens : {false, true}) {
    const std::string whole = tokenizer.Decode(ids, skip_special_tokens);
    CADRE_CHECK(IsValidUtf8(whole));
    IncrementalDetokenizer detokenizer(&tokenizer, skip_special_tokens);
    std::string streamed;
    for (const std::int32_t id : ids) {
      const std::string piece = detokenizer.Append(id);
      CADRE_CHECK(IsValidUtf8(piece));
      streamed += piece;
    }
    streamed += detokenizer.Flush();
    CADRE_CHECK_EQ(streamed, whole);
  }
}

void CheckTokenizer(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool parse_special : {false, true}) {
    const absl::StatusOr<std::vector<std::int32_t>> ids = tokenizer.Encode(text, {.parse_special = parse_special});
    CADRE_CHECK(ids.ok() || absl::IsInvalidArgument(ids.status()));
    if (ids.ok()) CheckDecoding(tokenizer, *ids);
  }
  // The bytes of the text as ids, some of them out of range.
  std::vector<std::int32_t> ids = {-1, tokenizer.vocab_size(), INT32_MAX, INT32_MIN};
  for (const char byte : text) ids.push_back(static_cast<std::int8_t>(byte));
  CheckDecoding(tokenizer, ids);
}

}  // namespace
}  // namespace cadre

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t separator = input.find('\0');
  const absl::StatusOr<std::unique_ptr<cadre::Tokenizer>> tokenizer =
      cadre::Tokenizer::Parse(input.substr(0, separator), "");
  if (!tokenizer.ok()) return 0;
  cadre::CheckTokenizer(**tokenizer, cadre::kDefaultText);
  if (separator != std::string_view::npos) {
    cadre::CheckTokenizer(**tokenizer, input.substr(separator + 1, cadre::kMaxTextBytes));
  }
  return 0;
}
