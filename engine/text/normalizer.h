#ifndef CADRE_ENGINE_TEXT_NORMALIZER_H_
#define CADRE_ENGINE_TEXT_NORMALIZER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace cadre {

// A text on its way to the model, with the one thing later stages ask about where it came from.
struct NormalizedText {
  std::string text;  // valid UTF-8
  // Whether the first character comes from the first character of what the caller sent: Metaspace "first" asks.
  bool is_at_origin = false;

  bool operator==(const NormalizedText&) const = default;
};

// One step of normalization. Immutable.
class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  // InvalidArgument when a regex gives up on the text.
  virtual absl::Status Apply(NormalizedText* text) const = 0;
};

// The "normalizer" of a tokenizer.json: NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip, Sequence, or null.
// Any other component or option is refused at load, by name. Immutable, thread-safe.
class Normalizer {
 public:
  // Does nothing, as null does.
  Normalizer() = default;

  // `where` names the component in error messages.
  static absl::StatusOr<Normalizer> Parse(const nlohmann::json& json, std::string where);

  absl::Status Apply(NormalizedText* text) const;

 private:
  absl::Status Add(const nlohmann::json& json, std::string where);

  std::vector<std::unique_ptr<const NormalizerStep>> steps_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_NORMALIZER_H_
