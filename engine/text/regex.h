#ifndef CADRE_ENGINE_TEXT_REGEX_H_
#define CADRE_ENGINE_TEXT_REGEX_H_

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/text_span.h"

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;

namespace cadre {

// A compiled pattern: PCRE2 with Unicode, just-in-time compiled where the machine allows it. Immutable; may be used
// from many threads at once (each has its own match memory). Movable.
class Regex {
 public:
  // A pattern in the syntax of tokenizer.json files (regex_syntax.h). InvalidArgument or Unimplemented, with the place
  // and the reason, when it cannot be compiled.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);
  // A pattern that is already PCRE2's.
  static absl::StatusOr<Regex> CompilePcre2(std::string_view pattern);
  // Matches exactly `text`; the empty text matches everywhere.
  static absl::StatusOr<Regex> CompileLiteral(std::string_view text);

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // All matches, left to right, without overlap: each search starts where the last match ended, and an empty match
  // there is passed over. InvalidArgument when the pattern needs more work on this text than the limits allow.
  // REQUIRES: text is valid UTF-8.
  absl::StatusOr<std::vector<TextSpan>> FindAll(std::string_view text) const;
  // The same, a match at a time, so that nothing has to be kept. An error of `visit` ends the search and is returned.
  absl::Status ForEachMatch(std::string_view text, absl::FunctionRef<absl::Status(TextSpan)> visit) const;

 private:
  struct CodeDeleter {
    void operator()(pcre2_real_code_8* code) const;
  };
  struct ContextDeleter {
    void operator()(pcre2_real_match_context_8* context) const;
  };

  static absl::StatusOr<Regex> CompileWith(std::string_view pattern, unsigned int options);

  Regex(pcre2_real_code_8* code, pcre2_real_match_context_8* context);

  std::unique_ptr<pcre2_real_code_8, CodeDeleter> code_;
  std::unique_ptr<pcre2_real_match_context_8, ContextDeleter> context_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_REGEX_H_
