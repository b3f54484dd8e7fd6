#include "engine/text/utf8.h"

#include <algorithm>
#include <cstdint>

namespace cadre {
namespace {

// Which second bytes may follow a lead byte: this alone keeps out overlong forms, surrogates and what is past U+10FFFF
// (Unicode 15, table 3-7).
struct LeadByte {
  int length;  // of the whole character; 0 for a byte that begins none
  std::uint8_t second_min = 0x80;
  std::uint8_t second_max = 0xBF;
};

LeadByte ClassifyLead(std::uint8_t lead) {
  if (lead < 0x80) return {1};
  if (lead < 0xC2) return {0};
  if (lead < 0xE0) return {2};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead < 0xF0) return {3};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

bool IsContinuation(char byte) { return (static_cast<std::uint8_t>(byte) & 0xC0) == 0x80; }

}  // namespace

Utf8Head ReadUtf8Head(std::string_view text) {
  const LeadByte lead = ClassifyLead(static_cast<std::uint8_t>(text[0]));
  if (lead.length <= 1) return {lead.length == 1 ? Utf8Head::Kind::kCharacter : Utf8Head::Kind::kInvalid, 1};
  const std::size_t length = static_cast<std::size_t>(lead.length);
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Utf8Head::Kind::kIncomplete, i};
    const std::uint8_t byte = static_cast<std::uint8_t>(text[i]);
    const bool fits = i == 1 ? byte >= lead.second_min && byte <= lead.second_max : IsContinuation(text[i]);
    if (!fits) return {Utf8Head::Kind::kInvalid, i};
  }
  return {Utf8Head::Kind::kCharacter, length};
}

bool IsValidUtf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Head head = ReadUtf8Head(text);
    if (head.kind != Utf8Head::Kind::kCharacter) return false;
    text.remove_prefix(head.size);
  }
  return true;
}

std::size_t IncompleteSuffixSize(std::string_view text) {
  // The beginning of a character is a lead byte and at most two continuations.
  for (std::size_t size = 1; size <= std::min<std::size_t>(3, text.size()); ++size) {
    const std::string_view suffix = text.substr(text.size() - size);
    if (IsContinuation(suffix[0])) continue;
    return ReadUtf8Head(suffix).kind == Utf8Head::Kind::kIncomplete ? size : 0;
  }
  return 0;
}

void AppendValidUtf8(std::string_view bytes, std::string* out) {
  while (!bytes.empty()) {
    const Utf8Head head = ReadUtf8Head(bytes);
    out->append(head.kind == Utf8Head::Kind::kCharacter ? bytes.substr(0, head.size) : kReplacementCharacter);
    bytes.remove_prefix(head.size);
  }
}

char32_t NextCodePoint(std::string_view text, std::size_t* position) {
  const std::uint8_t lead = static_cast<std::uint8_t>(text[*position]);
  const int length = ClassifyLead(lead).length;
  char32_t code_point = length == 1 ? lead : lead & (0x7F >> length);
  for (int i = 1; i < length; ++i) {
    code_point = code_point << 6 | (static_cast<std::uint8_t>(text[*position + static_cast<std::size_t>(i)]) & 0x3F);
  }
  *position += static_cast<std::size_t>(length);
  return code_point;
}

void AppendCodePoint(char32_t code_point, std::string* out) {
  const auto push = [out](char32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    push(code_point);
  } else if (code_point < 0x800) {
    push(0xC0 | code_point >> 6);
    push(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    push(0xE0 | code_point >> 12);
    push(0x80 | (code_point >> 6 & 0x3F));
    push(0x80 | (code_point & 0x3F));
  } else {
    push(0xF0 | code_point >> 18);
    push(0x80 | (code_point >> 12 & 0x3F));
    push(0x80 | (code_point >> 6 & 0x3F));
    push(0x80 | (code_point & 0x3F));
  }
}

std::size_t PreviousBoundary(std::string_view text, std::size_t position) {
  do {
    --position;
  } while (IsContinuation(text[position]));
  return position;
}

std::size_t CountCodePoints(std::string_view text) {
  return text.size() - static_cast<std::size_t>(std::count_if(text.begin(), text.end(), IsContinuation));
}

}  // namespace cadre
