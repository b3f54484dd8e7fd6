// Any text against the definition of byte pair encoding, and against itself in pieces where pieces cannot touch.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/base/check.h"
#include "engine/text/utf8.h"
#include "tests/support/slow_tokenizers.h"

namespace cadre {
namespace {

constexpr std::size_t kMaxTextBytes = 512;

std::vector<std::int32_t> MustEncode(const Tokenizer& tokenizer, std::string_view text) {
  const absl::StatusOr<std::vector<std::int32_t>> ids = tokenizer.Encode(text);
  CADRE_CHECK(ids.ok());
  return *ids;
}

void CheckLinesStandAlone(const Tokenizer& tokenizer, std::string_view text) {
  const std::size_t line_break = text.find('\n');
  if (line_break == std::string_view::npos) return;
  std::vector<std::int32_t> joined;
  for (const std::string_view part :
       {text.substr(0, line_break), text.substr(line_break, 1), text.substr(line_break + 1)}) {
    const std::vector<std::int32_t> ids = MustEncode(tokenizer, part);
    joined.insert(joined.end(), ids.begin(), ids.end());
  }
  CADRE_CHECK(joined == MustEncode(tokenizer, text));
}

}  // namespace
}  // namespace cadre

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const cadre::SlowTokenizer byte_level = cadre::SlowTokenizer::ByteLevel();
  static const cadre::SlowTokenizer byte_fallback = cadre::SlowTokenizer::ByteFallback();
  const std::string_view text(reinterpret_cast<const char*>(data), std::min(size, cadre::kMaxTextBytes));
  for (const cadre::SlowTokenizer* tokenizer : {&byte_level, &byte_fallback}) {
    if (!cadre::IsValidUtf8(text)) {
      CADRE_CHECK(absl::IsInvalidArgument(tokenizer->product().Encode(text).status()));
      continue;
    }
    CADRE_CHECK(cadre::MustEncode(tokenizer->product(), text) == tokenizer->Encode(text));
    // A U+2581 of the text itself comes back as a space where spaces are spelled so.
    if (text.find("\xE2\x96\x81") != std::string_view::npos) continue;
    CADRE_CHECK_EQ(tokenizer->product().Decode(tokenizer->Encode(text)), text);
  }
  if (cadre::IsValidUtf8(text)) cadre::CheckLinesStandAlone(byte_level.product(), text);
  return 0;
}
