// Ids in any order, cut anywhere: what was streamed up to a place, and flushed there, is the text of the ids up to it.
// The input is ids, two bytes each.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "engine/text/incremental_detokenizer.h"
#include "engine/text/utf8.h"
#include "tests/support/slow_tokenizers.h"

namespace cadre {
namespace {

constexpr std::size_t kMaxIds = 32;

// Every cut is tried by streaming up to it anew: a detokenizer cannot be asked twice how it ends.
void CheckEveryCut(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids) {
  std::string certain;  // what was sent before must stay a prefix, whatever comes
  for (std::size_t cut = 0; cut <= ids.size(); ++cut) {
    IncrementalDetokenizer detokenizer(&tokenizer, /*skip_special_tokens=*/true);
    std::string sent;
    for (std::size_t i = 0; i < cut; ++i) {
      const std::string piece = detokenizer.Append(ids[i]);
      CADRE_CHECK(IsValidUtf8(piece));
      sent += piece;
    }
    CADRE_CHECK(sent.starts_with(certain));
    certain = sent;
    CADRE_CHECK_EQ(sent + detokenizer.Flush(), tokenizer.Decode(std::span(ids).first(cut)));
  }
}

}  // namespace
}  // namespace cadre

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const cadre::SlowTokenizer byte_level = cadre::SlowTokenizer::ByteLevel();
  static const cadre::SlowTokenizer byte_fallback = cadre::SlowTokenizer::ByteFallback();
  for (const cadre::SlowTokenizer* tokenizer : {&byte_level, &byte_fallback}) {
    std::vector<std::int32_t> ids;
    // A few ids beyond the vocabulary: they add nothing.
    const std::int32_t range = tokenizer->product().vocab_size() + 4;
    for (std::size_t i = 0; i + 1 < size && ids.size() < cadre::kMaxIds; i += 2) {
      ids.push_back((data[i] | data[i + 1] << 8) % range);
    }
    cadre::CheckEveryCut(tokenizer->product(), ids);
  }
  return 0;
}
