#include "engine/text/byte_alphabet.h"

#include <array>
#include <cstddef>
#include <cstdint>

#include "engine/text/utf8.h"

namespace cadre {
namespace {

constexpr int kNumBytes = 256;
constexpr char32_t kFirstSubstitute = 0x100;
constexpr std::size_t kNumAlphabetCodePoints = 0x100 + 68;
constexpr std::int16_t kNoByte = -1;

struct Alphabet {
  std::array<char32_t, kNumBytes> character_of{};
  std::array<std::int16_t, kNumAlphabetCodePoints> byte_of{};
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  alphabet.byte_of.fill(kNoByte);
  char32_t next_substitute = kFirstSubstitute;
  for (int byte = 0; byte < kNumBytes; ++byte) {
    const bool stands_for_itself =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
    const char32_t character = stands_for_itself ? static_cast<char32_t>(byte) : next_substitute++;
    alphabet.character_of[static_cast<std::size_t>(byte)] = character;
    alphabet.byte_of[character] = static_cast<std::int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();
static_assert(kAlphabet.character_of[0x20] == 0x120 && kAlphabet.character_of[0xAD] == 0x143);

}  // namespace

void AppendByteAlphabet(std::string_view bytes, std::string* out) {
  for (const char byte : bytes) AppendCodePoint(kAlphabet.character_of[static_cast<std::uint8_t>(byte)], out);
}

void AppendBytesOfAlphabet(std::string_view text, std::string* out) {
  const std::size_t size_before = out->size();
  for (std::size_t position = 0; position < text.size();) {
    const char32_t character = NextCodePoint(text, &position);
    if (character >= kNumAlphabetCodePoints || kAlphabet.byte_of[character] == kNoByte) {
      out->resize(size_before);
      out->append(text);
      return;
    }
    out->push_back(static_cast<char>(kAlphabet.byte_of[character]));
  }
}

}  // namespace cadre
