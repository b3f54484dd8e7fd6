#include "engine/text/jinja/string_functions.h"

#include <algorithm>
#include <string>

#include "engine/base/status_macros.h"
#include "engine/text/jinja/unicode.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

// The text with each character mapped: `map` appends what becomes of the character `c` at `position`.
template <typename Map>
Text MapCharacters(const Text& text, const Map& map) {
  Text result;
  std::string mapped;
  for (std::size_t position = 0; position < text.size();) {
    const std::size_t begin = position;
    const char32_t c = NextCodePoint(text.bytes(), &position);
    mapped.clear();
    map(c, begin, &mapped);
    result.AppendDerived(mapped, text, begin);
  }
  return result;
}

bool IsStripped(char32_t c, std::optional<std::string_view> characters) {
  if (!characters.has_value()) return IsSpace(c);
  for (std::size_t position = 0; position < characters->size();) {
    if (NextCodePoint(*characters, &position) == c) return true;
  }
  return false;
}

std::vector<Text> SplitAtSpace(const Text& text, std::int64_t max_splits) {
  std::vector<Text> parts;
  const std::string& bytes = text.bytes();
  const auto skip = [&bytes](std::size_t position, bool spaces) {
    while (position < bytes.size()) {
      std::size_t next = position;
      if (IsSpace(NextCodePoint(bytes, &next)) != spaces) break;
      position = next;
    }
    return position;
  };
  for (std::size_t begin = skip(0, true); begin < bytes.size();) {
    if (max_splits == 0) {
      parts.push_back(text.Slice(begin, bytes.size()));
      break;
    }
    const std::size_t end = skip(begin, false);
    parts.push_back(text.Slice(begin, end));
    begin = skip(end, true);
    --max_splits;
  }
  return parts;
}

std::vector<Text> SplitAtSpaceFromRight(const Text& text, std::int64_t max_splits) {
  std::vector<Text> parts;
  Text rest = Strip(text, std::nullopt, Side::kRight);
  while (!rest.empty()) {
    std::size_t begin = rest.size();
    while (max_splits != 0 && begin > 0) {
      const std::size_t before = PreviousBoundary(rest.bytes(), begin);
      std::size_t position = before;
      if (IsSpace(NextCodePoint(rest.bytes(), &position))) break;
      begin = before;
    }
    if (max_splits == 0) {
      parts.push_back(rest);
      break;
    }
    parts.push_back(rest.Slice(begin, rest.size()));
    rest = Strip(rest.Slice(0, begin), std::nullopt, Side::kRight);
    --max_splits;
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

Text Upper(const Text& text) {
  return MapCharacters(text, [](char32_t c, std::size_t, std::string* out) { AppendUpper(c, out); });
}

Text Lower(const Text& text) {
  return MapCharacters(
      text, [&text](char32_t, std::size_t position, std::string* out) { AppendLower(text.bytes(), position, out); });
}

Text Capitalize(const Text& text) {
  return MapCharacters(text, [&text](char32_t c, std::size_t position, std::string* out) {
    if (position == 0) {
      AppendTitle(c, out);
    } else {
      AppendLower(text.bytes(), position, out);
    }
  });
}

Text Title(const Text& text) {
  bool is_inside = false;  // a run of letters
  return MapCharacters(text, [&](char32_t c, std::size_t position, std::string* out) {
    if (is_inside) {
      AppendLower(text.bytes(), position, out);
    } else {
      AppendTitle(c, out);
    }
    is_inside = IsCased(c);
  });
}

Text Strip(const Text& text, std::optional<std::string_view> characters, Side side) {
  std::size_t begin = 0;
  std::size_t end = text.size();
  while (side != Side::kRight && begin < end) {
    std::size_t next = begin;
    if (!IsStripped(NextCodePoint(text.bytes(), &next), characters)) break;
    begin = next;
  }
  while (side != Side::kLeft && begin < end) {
    const std::size_t before = PreviousBoundary(text.bytes(), end);
    std::size_t position = before;
    if (!IsStripped(NextCodePoint(text.bytes(), &position), characters)) break;
    end = before;
  }
  return text.Slice(begin, end);
}

absl::StatusOr<Text> Replace(Runtime& runtime, const Text& text, std::string_view from, const Text& to,
                             std::int64_t count) {
  Text result;
  std::size_t copied = 0;
  std::size_t search = 0;
  while (count != 0) {
    const std::size_t found = from.empty() ? search : text.bytes().find(from, search);
    if (found > text.size()) break;  // npos, too
    result.AppendSlice(text, copied, found);
    result.Append(to);
    CADRE_RETURN_IF_ERROR(runtime.Charge(1));
    CADRE_RETURN_IF_ERROR(runtime.CheckSize(result.size()));
    copied = found + from.size();
    search = copied;
    --count;
    if (!from.empty()) continue;
    if (search == text.size()) break;
    NextCodePoint(text.bytes(), &search);
  }
  result.AppendSlice(text, std::min(copied, text.size()), text.size());
  CADRE_RETURN_IF_ERROR(runtime.CheckSize(result.size()));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(text.size() + result.size()));
  return result;
}

std::vector<Text> Split(const Text& text, std::optional<std::string_view> separator, std::int64_t max_splits,
                        Side from) {
  if (!separator.has_value()) {
    return from == Side::kRight ? SplitAtSpaceFromRight(text, max_splits) : SplitAtSpace(text, max_splits);
  }
  std::vector<Text> parts;
  if (from == Side::kRight) {
    std::size_t end = text.size();
    while (max_splits-- != 0) {
      const std::size_t found =
          end < separator->size() ? std::string::npos : text.bytes().rfind(*separator, end - separator->size());
      if (found == std::string::npos) break;
      parts.push_back(text.Slice(found + separator->size(), end));
      end = found;
    }
    parts.push_back(text.Slice(0, end));
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  std::size_t begin = 0;
  while (max_splits-- != 0) {
    const std::size_t found = text.bytes().find(*separator, begin);
    if (found == std::string::npos) break;
    parts.push_back(text.Slice(begin, found));
    begin = found + separator->size();
  }
  parts.push_back(text.Slice(begin, text.size()));
  return parts;
}

std::vector<Text> SplitLines(const Text& text, bool keep_ends) {
  std::vector<Text> lines;
  std::size_t begin = 0;
  for (std::size_t position = 0; position < text.size();) {
    const std::size_t end = position;
    const char32_t c = NextCodePoint(text.bytes(), &position);
    if (!IsLineBreak(c)) continue;
    if (c == '\r' && position < text.size() && text.bytes()[position] == '\n') ++position;
    lines.push_back(text.Slice(begin, keep_ends ? position : end));
    begin = position;
  }
  if (begin < text.size()) lines.push_back(text.Slice(begin, text.size()));
  return lines;
}

Text Pad(const Text& text, std::int64_t left, std::int64_t right, std::string_view fill) {
  Text padded;
  for (; left > 0; --left) padded.Append(fill);
  padded.Append(text);
  for (; right > 0; --right) padded.Append(fill);
  return padded;
}

}  // namespace cadre::jinja
