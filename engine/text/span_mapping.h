#ifndef CADRE_ENGINE_TEXT_SPAN_MAPPING_H_
#define CADRE_ENGINE_TEXT_SPAN_MAPPING_H_

#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/normalizer.h"
#include "engine/text/text_span.h"

namespace cadre {

// The parts of `spans` that lie in `part`, counted from its beginning.
std::vector<TextSpan> SpansWithin(std::span<const TextSpan> spans, TextSpan part);

// Where `spans` of `text` lie once `normalizer` has been applied: each reaches at least as far as what became of it. A
// span whose ends cannot be told apart from their neighbors (the normalizer joined them) becomes the whole text, as
// does everything where telling would take too long. Errors are the normalizer's.
absl::StatusOr<std::vector<TextSpan>> NormalizeSpans(const Normalizer& normalizer, const NormalizedText& text,
                                                     const std::vector<TextSpan>& spans);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_SPAN_MAPPING_H_
