// Sets of bytes that automata often treat alike, so that whole subtrees of the vocabulary are decided at once.
#ifndef CADRE_ENGINE_STRUCTURED_BYTE_RUNS_H_
#define CADRE_ENGINE_STRUCTURED_BYTE_RUNS_H_

#include <cstdint>

namespace cadre {

inline constexpr int kNumByteRunSets = 6;

inline bool IsInByteRunSet(int set, uint8_t byte) {
  const bool is_printable = byte >= 0x20 && byte <= 0x7E;
  const bool is_lower = byte >= 'a' && byte <= 'z';
  const bool is_letter = is_lower || (byte >= 'A' && byte <= 'Z');
  const bool is_digit = byte >= '0' && byte <= '9';
  switch (set) {
    case 0:
      return is_printable;
    case 1:
      return is_printable && byte != '"' && byte != '\\';  // inside a JSON string
    case 2:
      return is_letter || is_digit || byte == '_';
    case 3:
      return is_letter;
    case 4:
      return is_lower;
    default:
      return is_digit;
  }
}

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_BYTE_RUNS_H_
