#include "engine/text/jinja/string_functions.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/container/flat_hash_set.h"
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

// The characters that strip takes away: white space, or those of a string.
class StrippedSet {
 public:
  explicit StrippedSet(std::optional<std::string_view> characters) : is_space_(!characters.has_value()) {
    for (std::size_t position = 0; characters.has_value() && position < characters->size();) {
      characters_.insert(NextCodePoint(*characters, &position));
    }
  }
  bool Has(char32_t c) const { return is_space_ ? IsSpace(c) : characters_.contains(c); }

 private:
  const bool is_space_;
  absl::flat_hash_set<char32_t> characters_;
};

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
  const std::string& bytes = text.bytes();
  const auto skip_back = [&bytes](std::size_t end, bool spaces) {
    while (end > 0) {
      const std::size_t before = PreviousBoundary(bytes, end);
      std::size_t position = before;
      if (IsSpace(NextCodePoint(bytes, &position)) != spaces) break;
      end = before;
    }
    return end;
  };
  for (std::size_t end = skip_back(bytes.size(), true); end > 0;) {
    const std::size_t begin = max_splits == 0 ? 0 : skip_back(end, false);
    parts.push_back(text.Slice(begin, end));
    end = skip_back(begin, true);
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

Text SwapCase(const Text& text) {
  return MapCharacters(text, [&text](char32_t c, std::size_t position, std::string* out) {
    if (IsLower(c)) {
      AppendUpper(c, out);
    } else if (IsUpper(c)) {
      AppendLower(text.bytes(), position, out);
    } else {
      AppendCodePoint(c, out);
    }
  });
}

Text CaseFold(const Text& text) {
  return MapCharacters(text, [](char32_t c, std::size_t, std::string* out) { AppendFolded(c, out); });
}

Text Strip(const Text& text, std::optional<std::string_view> characters, Side side) {
  const StrippedSet stripped(characters);
  std::size_t begin = 0;
  std::size_t end = text.size();
  while (side != Side::kRight && begin < end) {
    std::size_t next = begin;
    if (!stripped.Has(NextCodePoint(text.bytes(), &next))) break;
    begin = next;
  }
  while (side != Side::kLeft && begin < end) {
    const std::size_t before = PreviousBoundary(text.bytes(), end);
    std::size_t position = before;
    if (!stripped.Has(NextCodePoint(text.bytes(), &position))) break;
    end = before;
  }
  return text.Slice(begin, end);
}

std::size_t FindText(std::string_view text, std::string_view what, std::size_t from) {
  if (from > text.size()) return std::string_view::npos;
  const void* const found = memmem(text.data() + from, text.size() - from, what.data(), what.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
}

std::size_t FindLastText(std::string_view text, std::string_view what) {
  const std::string reversed(text.rbegin(), text.rend());
  const std::string reversed_what(what.rbegin(), what.rend());
  const std::size_t found = FindText(reversed, reversed_what);
  return found == std::string_view::npos ? found : text.size() - found - what.size();
}

absl::StatusOr<Text> Replace(Runtime& runtime, const Text& text, std::string_view from, const Text& to,
                             std::int64_t count) {
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(text.size() + from.size() + to.size()));
  Text result;
  std::size_t copied = 0;
  std::size_t search = 0;
  while (count != 0) {
    const std::size_t found = from.empty() ? search : FindText(text.bytes(), from, search);
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
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(result.size()));
  return result;
}

std::vector<Text> Split(const Text& text, std::optional<std::string_view> separator, std::int64_t max_splits,
                        Side from) {
  if (!separator.has_value()) {
    return from == Side::kRight ? SplitAtSpaceFromRight(text, max_splits) : SplitAtSpace(text, max_splits);
  }
  std::vector<Text> parts;
  if (from == Side::kRight) {
    const std::string reversed(text.bytes().rbegin(), text.bytes().rend());
    const std::string reversed_separator(separator->rbegin(), separator->rend());
    std::size_t begin = 0;  // from the end of the text
    while (max_splits-- != 0) {
      const std::size_t found = FindText(reversed, reversed_separator, begin);
      if (found == std::string::npos) break;
      parts.push_back(text.Slice(text.size() - found, text.size() - begin));
      begin = found + separator->size();
    }
    parts.push_back(text.Slice(0, text.size() - begin));
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  std::size_t begin = 0;
  while (max_splits-- != 0) {
    const std::size_t found = FindText(text.bytes(), *separator, begin);
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

Text Pad(const Text& text, std::int64_t left, std::int64_t right, const Text& fill) {
  Text padded;
  for (; left > 0; --left) padded.Append(fill);
  padded.Append(text);
  for (; right > 0; --right) padded.Append(fill);
  return padded;
}

}  // namespace cadre::jinja
