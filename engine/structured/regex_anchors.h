#ifndef CADRE_ENGINE_STRUCTURED_REGEX_ANCHORS_H_
#define CADRE_ENGINE_STRUCTURED_REGEX_ANCHORS_H_

#include "absl/status/status.h"
#include "engine/structured/regex_tree.h"

namespace cadre {

// Takes the anchors out of `tree`, which then describes the whole text. InvalidArgument for an anchor that is not at
// the end of the text in every way through the expression.
absl::Status ResolveAnchors(RegexExtent extent, RegexNode* tree);

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_REGEX_ANCHORS_H_
