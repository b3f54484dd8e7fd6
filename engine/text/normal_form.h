#ifndef CADRE_ENGINE_TEXT_NORMAL_FORM_H_
#define CADRE_ENGINE_TEXT_NORMAL_FORM_H_

#include <string>
#include <string_view>

namespace cadre {

// The four normal forms of Unicode Standard Annex 15.
enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// `text` in the given form, for the characters of Unicode 9, as the `tokenizers` library does it; newer characters pass
// through unchanged. Time is O(n log n) in the worst case. REQUIRES: text is valid UTF-8.
std::string Normalize(std::string_view text, NormalForm form);

// Lower case character by character, without regard to context (a final sigma is no exception).
// REQUIRES: text is valid UTF-8.
std::string ToLowercase(std::string_view text);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_NORMAL_FORM_H_
