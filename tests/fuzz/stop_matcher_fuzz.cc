// The stop matcher against naive search, however the text is cut. Input: stop strings separated by byte 1, then byte 2,
// then the text; the size of each piece comes from the text's own bytes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/check.h"
#include "engine/text/stop_matcher.h"

namespace cadre {
namespace {

struct Expected {
  std::string text;
  std::optional<std::string> matched;
};

Expected NaiveSearch(std::string_view text, const std::vector<std::string>& stops, bool include_stop_string) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    const std::string* longest = nullptr;
    for (const std::string& stop : stops) {
      const bool ends_here = !stop.empty() && text.substr(0, end).ends_with(stop);
      if (ends_here && (longest == nullptr || stop.size() > longest->size())) longest = &stop;
    }
    if (longest == nullptr) continue;
    return {std::string(text.substr(0, include_stop_string ? end : end - longest->size())), *longest};
  }
  return {std::string(text), std::nullopt};
}

void Check(std::string_view text, const std::vector<std::string>& stops, bool include_stop_string) {
  const Expected expected = NaiveSearch(text, stops, include_stop_string);
  StopMatcher matcher(stops, include_stop_string);
  std::string sent;
  std::optional<std::string> matched;
  for (std::size_t position = 0; position < text.size();) {
    const std::size_t size = static_cast<std::uint8_t>(text[position]) % 7;
    StopMatcher::Result result = matcher.Append(text.substr(position, size));
    CADRE_CHECK(!matched.has_value() || (result.text.empty() && !result.matched.has_value()));
    sent += result.text;
    if (result.matched.has_value()) matched = result.matched;
    position += std::max<std::size_t>(size, 1);
    if (size == 0) {
      result = matcher.Append(text.substr(position - 1, 1));
      sent += result.text;
      if (result.matched.has_value()) matched = result.matched;
    }
  }
  sent += matcher.Flush();
  CADRE_CHECK_EQ(sent, expected.text);
  CADRE_CHECK(matched == expected.matched);
}

}  // namespace
}  // namespace cadre

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), std::min<std::size_t>(size, 1024));
  const std::size_t separator = std::min(input.find('\2'), input.size());
  std::vector<std::string> stops(1);
  for (const char byte : input.substr(0, separator)) {
    if (byte == '\1') {
      stops.emplace_back();
    } else {
      stops.back() += byte;
    }
  }
  const std::string_view text = input.substr(std::min(separator + 1, input.size()));
  for (const bool include_stop_string : {false, true}) cadre::Check(text, stops, include_stop_string);
  return 0;
}
