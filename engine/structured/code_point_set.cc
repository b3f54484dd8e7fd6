#include "engine/structured/code_point_set.h"

#include <algorithm>
#include <utility>

namespace cadre {
namespace {

constexpr CodePointRange kSurrogates = {0xD800, 0xDFFF};
// The last code points that take one, two, three and four bytes.
constexpr uint32_t kLastOfSize[] = {0x7F, 0x7FF, 0xFFFF, kMaxCodePoint};

int EncodedSize(uint32_t code_point) {
  int size = 1;
  while (code_point > kLastOfSize[size - 1]) ++size;
  return size;
}

// Byte `index` of the `size` bytes that encode `code_point`.
uint8_t EncodedByte(uint32_t code_point, int size, int index) {
  const uint32_t bits = code_point >> (6 * (size - 1 - index));
  if (index > 0) return static_cast<uint8_t>(0x80 | (bits & 0x3F));
  constexpr uint32_t kLeadMarks[] = {0x00, 0xC0, 0xE0, 0xF0};
  return static_cast<uint8_t>(kLeadMarks[size - 1] | bits);
}

}  // namespace

CodePointSet::CodePointSet(const std::vector<CodePointRange>& ranges) {
  std::vector<CodePointRange> pieces;
  for (const CodePointRange& range : ranges) {
    if (range.last < kSurrogates.first || range.first > kSurrogates.last) {
      pieces.push_back(range);
      continue;
    }
    if (range.first < kSurrogates.first) pieces.push_back({range.first, kSurrogates.first - 1});
    if (range.last > kSurrogates.last) pieces.push_back({kSurrogates.last + 1, range.last});
  }
  std::sort(pieces.begin(), pieces.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const CodePointRange& piece : pieces) {
    if (!ranges_.empty() && piece.first <= ranges_.back().last + 1) {
      ranges_.back().last = std::max(ranges_.back().last, piece.last);
    } else {
      ranges_.push_back(piece);
    }
  }
}

CodePointSet CodePointSet::Union(const CodePointSet& other) const {
  std::vector<CodePointRange> all = ranges_;
  all.insert(all.end(), other.ranges_.begin(), other.ranges_.end());
  return CodePointSet(all);
}

CodePointSet CodePointSet::Complement() const {
  std::vector<CodePointRange> gaps;
  uint32_t next = 0;
  for (const CodePointRange& range : ranges_) {
    if (range.first > next) gaps.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kMaxCodePoint) gaps.push_back({next, kMaxCodePoint});
  return CodePointSet(gaps);
}

CodePointSet CodePointSet::Minus(const CodePointSet& other) const { return Complement().Union(other).Complement(); }

std::vector<ByteRangeSequence> Utf8Sequences(CodePointRange range) {
  std::vector<ByteRangeSequence> sequences;
  uint32_t first = range.first;
  while (first <= range.last) {
    const int size = EncodedSize(first);
    uint32_t last = std::min(range.last, kLastOfSize[size - 1]);
    // Shrink [first, last] until all but its leading bytes run over every continuation byte.
    for (int tail = 1; tail < size; ++tail) {
      const uint32_t mask = (uint32_t{1} << (6 * tail)) - 1;
      if ((first & ~mask) == (last & ~mask)) break;  // the bytes in front of the tail agree
      if ((first & mask) != 0) {
        last = first | mask;
        break;
      }
      if ((last & mask) != mask) last = (last & ~mask) - 1;
    }
    ByteRangeSequence sequence;
    for (int i = 0; i < size; ++i) sequence.push_back({EncodedByte(first, size, i), EncodedByte(last, size, i)});
    sequences.push_back(std::move(sequence));
    first = last + 1;
  }
  return sequences;
}

}  // namespace cadre
