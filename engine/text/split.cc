#include "engine/text/split.h"

#include "engine/base/status_macros.h"

namespace cadre {

std::optional<SplitBehavior> SplitBehaviorNamed(std::string_view name) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return std::nullopt;
}

absl::Status Splitter::OnMatch(TextSpan match) {
  if (end_ != match.begin) CADRE_RETURN_IF_ERROR(OnPart({end_, match.begin}, invert_));
  end_ = match.end;
  return OnPart(match, !invert_);
}

absl::Status Splitter::Finish(std::size_t size) {
  if (end_ != size) CADRE_RETURN_IF_ERROR(OnPart({end_, size}, invert_));
  return EmitPiece();
}

absl::Status Splitter::OnPart(TextSpan part, bool is_delimiter) {
  if (behavior_ == SplitBehavior::kRemoved && is_delimiter) return absl::OkStatus();
  const bool joins = has_piece_ && JoinsPrevious(is_delimiter);
  previous_is_delimiter_ = is_delimiter;
  if (joins) {
    piece_.end = part.end;
    return absl::OkStatus();
  }
  CADRE_RETURN_IF_ERROR(EmitPiece());
  piece_ = part;
  has_piece_ = true;
  return absl::OkStatus();
}

// Whether a part of that kind belongs to the piece that the part before it ended.
bool Splitter::JoinsPrevious(bool is_delimiter) const {
  switch (behavior_) {
    case SplitBehavior::kRemoved:
    case SplitBehavior::kIsolated:
      return false;
    case SplitBehavior::kContiguous:
      return is_delimiter == previous_is_delimiter_;
    case SplitBehavior::kMergedWithPrevious:
      return is_delimiter && !previous_is_delimiter_;
    case SplitBehavior::kMergedWithNext:
      return !is_delimiter && previous_is_delimiter_;
  }
  return false;
}

absl::Status Splitter::EmitPiece() {
  const bool is_empty = piece_.begin == piece_.end;
  return !has_piece_ || is_empty ? absl::OkStatus() : sink_(piece_);
}

}  // namespace cadre
