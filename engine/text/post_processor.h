#ifndef CADRE_ENGINE_TEXT_POST_PROCESSOR_H_
#define CADRE_ENGINE_TEXT_POST_PROCESSOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace cadre {

// The "post_processor" of a tokenizer.json: TemplateProcessing, ByteLevel (which changes offsets only), Sequence, or
// null. Any other component or option is refused at load, by name. Immutable, thread-safe.
class PostProcessor {
 public:
  // Leaves the tokens as they are, as null does.
  PostProcessor() = default;

  // `where` names the component in error messages.
  static absl::StatusOr<PostProcessor> Parse(const nlohmann::json& json, std::string where);
  // Puts `prefix` before the text and `suffix` after it.
  static PostProcessor Surround(std::vector<std::int32_t> prefix, std::vector<std::int32_t> suffix);

  bool has_template() const { return !template_.empty(); }

  // The tokens of a text with the special tokens of the template around them, or without these.
  std::vector<std::int32_t> Apply(std::vector<std::int32_t> ids, bool add_special_tokens) const;
  // The same, but what stands before the text is left out when the ids begin with it already.
  std::vector<std::int32_t> ApplyOnce(std::vector<std::int32_t> ids, bool add_special_tokens) const;

 private:
  // Either the text itself or special tokens.
  struct Piece {
    bool is_text = false;
    std::vector<std::int32_t> special_ids;
  };

  absl::Status Add(const nlohmann::json& json, std::string where);

  std::vector<Piece> template_;  // empty: no template
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_POST_PROCESSOR_H_
