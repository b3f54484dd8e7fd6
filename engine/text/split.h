#ifndef CADRE_ENGINE_TEXT_SPLIT_H_
#define CADRE_ENGINE_TEXT_SPLIT_H_

#include <cstddef>
#include <optional>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/text/text_span.h"

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

// Cuts a text into pieces at delimiters that come one by one. One thread.
class Splitter {
 public:
  // Hears of each piece, left to right; none is empty.
  using PieceSink = absl::FunctionRef<absl::Status(TextSpan)>;

  // With `invert`, what lies between the matches is the delimiter. An error of `sink`, which must outlive the splitter,
  // is returned by the call that led to it.
  Splitter(SplitBehavior behavior, bool invert, PieceSink sink) : behavior_(behavior), invert_(invert), sink_(sink) {}

  // The next match. REQUIRES: it does not overlap the one before.
  absl::Status OnMatch(TextSpan match);
  // Behind the last match, once. `size` is the text's, in bytes.
  absl::Status Finish(std::size_t size);

 private:
  absl::Status OnPart(TextSpan part, bool is_delimiter);
  bool JoinsPrevious(bool is_delimiter) const;
  absl::Status EmitPiece();

  const SplitBehavior behavior_;
  const bool invert_;
  const PieceSink sink_;
  std::size_t end_ = 0;  // of what was looked at
  TextSpan piece_;       // may still grow
  bool has_piece_ = false;
  bool previous_is_delimiter_ = false;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_SPLIT_H_
