#ifndef CADRE_ENGINE_TEXT_BYTE_ALPHABET_H_
#define CADRE_ENGINE_TEXT_BYTE_ALPHABET_H_

#include <string>
#include <string_view>

namespace cadre {

// The byte-level alphabet of GPT-2: one printable character for each of the 256 bytes. Bytes 21-7E, A1-AC and AE-FF are
// the code points of the same value; the other 68 are U+0100 and onward, in byte order (space is U+0120, newline
// U+010A).

// Appends the characters that stand for `bytes`.
void AppendByteAlphabet(std::string_view bytes, std::string* out);

// Appends the bytes that `text` stands for; when one of its characters is outside the alphabet, appends `text` itself.
// REQUIRES: text is valid UTF-8.
void AppendBytesOfAlphabet(std::string_view text, std::string* out);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_BYTE_ALPHABET_H_
