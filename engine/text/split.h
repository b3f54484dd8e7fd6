#ifndef CADRE_ENGINE_TEXT_SPLIT_H_
#define CADRE_ENGINE_TEXT_SPLIT_H_

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/text/regex.h"

namespace cadre {

// What becomes of the delimiters when a text is split at them. With "-" in "the-final--countdown":
enum class SplitBehavior {
  kRemoved,             // the | final | countdown
  kIsolated,            // the | - | final | - | - | countdown
  kMergedWithPrevious,  // the- | final- | - | countdown
  kMergedWithNext,      // the | -final | - | -countdown
  kContiguous,          // the | - | final | -- | countdown
};

// The behavior of that name in tokenizer.json; nullopt for any other name.
std::optional<SplitBehavior> SplitBehaviorNamed(std::string_view name);

// Pieces of a text of `size` bytes that is split at `delimiters` (in order, without overlap). With `invert`, what lies
// between the matches is the delimiter. No piece is empty.
std::vector<TextSpan> SplitAt(const std::vector<TextSpan>& delimiters, std::size_t size, SplitBehavior behavior,
                              bool invert);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_SPLIT_H_
