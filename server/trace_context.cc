#include "server/trace_context.h"

#include <algorithm>
#include <cstddef>
#include <span>

#include "server/random_bits.h"

namespace cadre {
namespace {

constexpr std::string_view kDigits = "0123456789abcdef";
// "00-" trace id "-" span id "-" flags
constexpr size_t kTraceIdAt = 3;
constexpr size_t kSpanIdAt = kTraceIdAt + 2 * sizeof(TraceId) + 1;
constexpr size_t kFlagsAt = kSpanIdAt + 2 * sizeof(SpanId) + 1;
constexpr size_t kLength = kFlagsAt + 2;
constexpr uint8_t kSampled = 1;

template <size_t kSize>
std::array<uint8_t, kSize> RandomId() {
  std::array<uint8_t, kSize> id = {};
  while (std::ranges::all_of(id, [](uint8_t byte) { return byte == 0; })) {
    for (size_t i = 0; i < kSize; i += sizeof(uint64_t)) {
      const uint64_t bits = RandomBits();
      for (size_t j = 0; j < sizeof(bits); ++j) id[i + j] = static_cast<uint8_t>(bits >> (8 * j));
    }
  }
  return id;
}

std::string ToHex(std::span<const uint8_t> bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const uint8_t byte : bytes) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

// REQUIRES: two digits for each byte of `to`. False if any is none.
bool FromHex(std::string_view text, std::span<uint8_t> to) {
  for (size_t i = 0; i < to.size(); ++i) {
    const size_t high = kDigits.find(text[2 * i]);
    const size_t low = kDigits.find(text[2 * i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) return false;
    to[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

bool IsZero(std::span<const uint8_t> id) {
  return std::ranges::all_of(id, [](uint8_t byte) { return byte == 0; });
}

}  // namespace

TraceId RandomTraceId() { return RandomId<sizeof(TraceId)>(); }
SpanId RandomSpanId() { return RandomId<sizeof(SpanId)>(); }
std::string Hex(const TraceId& id) { return ToHex(id); }
std::string Hex(const SpanId& id) { return ToHex(id); }

std::optional<TraceContext> ParseTraceparent(std::string_view header) {
  constexpr uint8_t kInvalidVersion = 0xff;
  if (header.size() < kLength) return std::nullopt;
  for (const size_t dash : {kTraceIdAt - 1, kSpanIdAt - 1, kFlagsAt - 1}) {
    if (header[dash] != '-') return std::nullopt;
  }
  std::array<uint8_t, 1> version = {};
  std::array<uint8_t, 1> flags = {};
  TraceContext context;
  if (!FromHex(header, version) || version[0] == kInvalidVersion) return std::nullopt;
  const bool has_more = header.size() > kLength;
  if (has_more && (version[0] == 0 || header[kLength] != '-')) return std::nullopt;
  if (!FromHex(header.substr(kTraceIdAt), context.trace_id) || !FromHex(header.substr(kSpanIdAt), context.span_id) ||
      !FromHex(header.substr(kFlagsAt), flags) || IsZero(context.trace_id) || IsZero(context.span_id)) {
    return std::nullopt;
  }
  context.is_sampled = (flags[0] & kSampled) != 0;
  return context;
}

}  // namespace cadre
