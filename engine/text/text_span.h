#ifndef CADRE_ENGINE_TEXT_TEXT_SPAN_H_
#define CADRE_ENGINE_TEXT_TEXT_SPAN_H_

#include <cstddef>

namespace cadre {

// Part of a text, in bytes: [begin, end).
struct TextSpan {
  std::size_t begin = 0;
  std::size_t end = 0;
  friend bool operator==(const TextSpan&, const TextSpan&) = default;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_TEXT_SPAN_H_
