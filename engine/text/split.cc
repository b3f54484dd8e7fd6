#include "engine/text/split.h"

#include <algorithm>

namespace cadre {
namespace {

struct Part {
  TextSpan span;
  bool is_delimiter;
};

// The text as an alternation of delimiters and what lies between them, the latter never empty.
std::vector<Part> PartsOf(const std::vector<TextSpan>& delimiters, std::size_t size, bool invert) {
  std::vector<Part> parts;
  parts.reserve(2 * delimiters.size() + 1);
  std::size_t end = 0;
  for (const TextSpan& delimiter : delimiters) {
    if (end != delimiter.begin) parts.push_back({{end, delimiter.begin}, invert});
    parts.push_back({delimiter, !invert});
    end = delimiter.end;
  }
  if (end != size) parts.push_back({{end, size}, invert});
  return parts;
}

// Joins a part to the part before it when `joins(part, previous)` says so.
template <typename Joins>
std::vector<TextSpan> JoinParts(const std::vector<Part>& parts, Joins joins) {
  std::vector<TextSpan> pieces;
  bool previous_is_delimiter = false;  // as if something plain stood before the text
  for (const Part& part : parts) {
    if (!pieces.empty() && joins(part.is_delimiter, previous_is_delimiter)) {
      pieces.back() = {std::min(pieces.back().begin, part.span.begin), std::max(pieces.back().end, part.span.end)};
    } else {
      pieces.push_back(part.span);
    }
    previous_is_delimiter = part.is_delimiter;
  }
  return pieces;
}

std::vector<TextSpan> Pieces(std::vector<Part> parts, SplitBehavior behavior) {
  const auto delimiter_after_text = [](bool is_delimiter, bool previous) { return is_delimiter && !previous; };
  switch (behavior) {
    case SplitBehavior::kRemoved:
      parts.erase(std::remove_if(parts.begin(), parts.end(), [](const Part& part) { return part.is_delimiter; }),
                  parts.end());
      return JoinParts(parts, [](bool, bool) { return false; });
    case SplitBehavior::kIsolated:
      return JoinParts(parts, [](bool, bool) { return false; });
    case SplitBehavior::kContiguous:
      return JoinParts(parts, [](bool is_delimiter, bool previous) { return is_delimiter == previous; });
    case SplitBehavior::kMergedWithPrevious:
      return JoinParts(parts, delimiter_after_text);
    case SplitBehavior::kMergedWithNext: {
      // The same, read from right to left.
      std::reverse(parts.begin(), parts.end());
      std::vector<TextSpan> pieces = JoinParts(parts, delimiter_after_text);
      std::reverse(pieces.begin(), pieces.end());
      return pieces;
    }
  }
  return {};
}

}  // namespace

std::optional<SplitBehavior> SplitBehaviorNamed(std::string_view name) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return std::nullopt;
}

std::vector<TextSpan> SplitAt(const std::vector<TextSpan>& delimiters, std::size_t size, SplitBehavior behavior,
                              bool invert) {
  std::vector<TextSpan> pieces = Pieces(PartsOf(delimiters, size, invert), behavior);
  pieces.erase(std::remove_if(pieces.begin(), pieces.end(), [](const TextSpan& p) { return p.begin == p.end; }),
               pieces.end());
  return pieces;
}

}  // namespace cadre
