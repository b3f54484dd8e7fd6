#include "engine/text/span_mapping.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>

#include "engine/base/status_macros.h"
#include "engine/text/utf8.h"

namespace cadre {
namespace {

// Bytes that may be normalized to find the ends of all spans of one text.
constexpr std::size_t kMaxNormalizedBytes = 64 << 20;

// How long the first `size` bytes of `text` are once normalized; absent when what follows changes them.
absl::StatusOr<std::optional<std::size_t>> NormalizedSize(const Normalizer& normalizer, const NormalizedText& text,
                                                          std::string_view whole, std::size_t size) {
  NormalizedText prefix{text.text.substr(0, size), text.is_at_origin};
  CADRE_RETURN_IF_ERROR(normalizer.Apply(&prefix));
  if (!whole.starts_with(prefix.text)) return std::nullopt;
  return prefix.text.size();
}

}  // namespace

std::vector<TextSpan> SpansWithin(std::span<const TextSpan> spans, TextSpan part) {
  std::vector<TextSpan> within;
  auto span = std::upper_bound(spans.begin(), spans.end(), part.begin,
                               [](std::size_t p, const TextSpan& s) { return p < s.end; });
  for (; span != spans.end() && span->begin < part.end; ++span) {
    within.push_back({std::max(span->begin, part.begin) - part.begin, std::min(span->end, part.end) - part.begin});
  }
  return within;
}

absl::StatusOr<std::vector<TextSpan>> NormalizeSpans(const Normalizer& normalizer, const NormalizedText& text,
                                                     const std::vector<TextSpan>& spans) {
  NormalizedText normalized = text;
  CADRE_RETURN_IF_ERROR(normalizer.Apply(&normalized));
  const std::vector<TextSpan> everything = {{0, normalized.text.size()}};
  const std::size_t size = text.text.size();
  if (spans.empty()) return spans;
  if (spans.size() == 1 && spans[0] == TextSpan{0, size}) return everything;
  if (2 * spans.size() * size > kMaxNormalizedBytes) return everything;
  std::vector<TextSpan> mapped;
  for (TextSpan span : spans) {
    // Where the normalizer joins characters across an end (a letter and its accent), the span takes both.
    std::optional<std::size_t> begin;
    std::optional<std::size_t> end;
    for (int attempt = 0; attempt < 2 && (!begin.has_value() || !end.has_value()); ++attempt) {
      if (attempt > 0 && !begin.has_value() && span.begin > 0) span.begin = PreviousBoundary(text.text, span.begin);
      if (attempt > 0 && !end.has_value() && span.end < size) NextCodePoint(text.text, &span.end);
      CADRE_ASSIGN_OR_RETURN(begin, NormalizedSize(normalizer, text, normalized.text, span.begin));
      CADRE_ASSIGN_OR_RETURN(end, NormalizedSize(normalizer, text, normalized.text, span.end));
    }
    if (!begin.has_value() || !end.has_value()) return everything;
    // The spans stay apart even where both took the same character.
    const std::size_t floor = mapped.empty() ? 0 : mapped.back().end;
    if (*end > std::max(*begin, floor)) mapped.push_back({std::max(*begin, floor), *end});
  }
  return mapped;
}

}  // namespace cadre
