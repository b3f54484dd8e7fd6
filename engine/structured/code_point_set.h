#ifndef CADRE_ENGINE_STRUCTURED_CODE_POINT_SET_H_
#define CADRE_ENGINE_STRUCTURED_CODE_POINT_SET_H_

#include <cstdint>
#include <vector>

namespace cadre {

inline constexpr uint32_t kMaxCodePoint = 0x10FFFF;

struct CodePointRange {
  uint32_t first;
  uint32_t last;  // included

  bool operator==(const CodePointRange&) const = default;
};

// A set of Unicode characters. Surrogates are code points but no characters, and are never in it.
class CodePointSet {
 public:
  CodePointSet() = default;
  // REQUIRES: first <= last <= kMaxCodePoint in each.
  explicit CodePointSet(const std::vector<CodePointRange>& ranges);

  static CodePointSet All() { return CodePointSet({{0, kMaxCodePoint}}); }

  CodePointSet Union(const CodePointSet& other) const;
  CodePointSet Complement() const;
  CodePointSet Minus(const CodePointSet& other) const;

  // Sorted, and not touching each other.
  const std::vector<CodePointRange>& ranges() const { return ranges_; }
  bool empty() const { return ranges_.empty(); }

 private:
  std::vector<CodePointRange> ranges_;
};

// A sequence of one to four bytes, each from a range.
struct ByteRange {
  uint8_t first;
  uint8_t last;  // included

  bool operator==(const ByteRange&) const = default;
};
using ByteRangeSequence = std::vector<ByteRange>;

// The UTF-8 encodings of all characters of `range`, as sequences of byte ranges without overlap.
// REQUIRES: no surrogate in the range.
std::vector<ByteRangeSequence> Utf8Sequences(CodePointRange range);

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_CODE_POINT_SET_H_
