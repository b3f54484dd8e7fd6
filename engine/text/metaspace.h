#ifndef CADRE_ENGINE_TEXT_METASPACE_H_
#define CADRE_ENGINE_TEXT_METASPACE_H_

#include <string>

#include "absl/status/statusor.h"
#include "engine/text/json_fields.h"

namespace cadre {

// Which pieces get a leading space: all, the one at the very start of the input (not after an added token), or none.
enum class PrependScheme { kAlways, kFirst, kNever };

// The options of the Metaspace component, which serves as pre-tokenizer and as decoder.
struct MetaspaceOptions {
  std::string replacement;  // the one character that stands for a space
  PrependScheme prepend_scheme = PrependScheme::kAlways;
  bool split = true;
};

// Reads the component, in today's spelling (prepend_scheme) or the older one (add_prefix_space, str_rep).
absl::StatusOr<MetaspaceOptions> ParseMetaspaceOptions(const JsonFields& fields);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_METASPACE_H_
