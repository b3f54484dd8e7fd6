#include "engine/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/text/regex_syntax.h"
#include "engine/text/utf8.h"

namespace cadre {
namespace {

// The longest pattern, in bytes, after translation. The longest published ones translate to about 10 KiB.
constexpr std::size_t kMaxPatternBytes = 64 << 10;
// Backtracking steps of one search: about a second of work. A published pattern takes a few steps per byte.
constexpr std::uint32_t kMatchLimit = 50'000'000;
// Memory for backtracking where there is no just-in-time compiler, in KiB, and where there is one, in bytes.
constexpr std::uint32_t kHeapLimitKib = 64 << 10;
constexpr std::size_t kJitStackStartBytes = 32 << 10;
constexpr std::size_t kJitStackMaxBytes = 16 << 20;

// What a search writes to. One per thread, shared by all patterns: only the bounds of the whole match are asked for.
struct MatchMemory {
  MatchMemory() { CADRE_CHECK(match_data != nullptr); }
  ~MatchMemory() {
    pcre2_match_data_free(match_data);
    if (jit_stack != nullptr) pcre2_jit_stack_free(jit_stack);
  }
  MatchMemory(const MatchMemory&) = delete;
  MatchMemory& operator=(const MatchMemory&) = delete;

  pcre2_match_data* match_data = pcre2_match_data_create(1, nullptr);
  // Null where PCRE2 was built without the compiler; it then uses no such stack.
  pcre2_jit_stack* jit_stack = pcre2_jit_stack_create(kJitStackStartBytes, kJitStackMaxBytes, nullptr);
};

MatchMemory& ThreadMatchMemory() {
  thread_local MatchMemory memory;
  return memory;
}

pcre2_jit_stack* ThreadJitStack(void* /*unused*/) { return ThreadMatchMemory().jit_stack; }

std::string ErrorText(int error) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(error, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

}  // namespace

void Regex::CodeDeleter::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }
void Regex::ContextDeleter::operator()(pcre2_real_match_context_8* context) const { pcre2_match_context_free(context); }

Regex::Regex(pcre2_real_code_8* code, pcre2_real_match_context_8* context) : code_(code), context_(context) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a regex of ", pattern.size(), " bytes, the limit is ", kMaxPatternBytes));
  }
  CADRE_ASSIGN_OR_RETURN(const std::string translated, TranslateOnigurumaPattern(pattern));
  return CompilePcre2(translated);
}

absl::StatusOr<Regex> Regex::CompilePcre2(std::string_view pattern) {
  return CompileWith(pattern, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
}

absl::StatusOr<Regex> Regex::CompileLiteral(std::string_view text) {
  return CompileWith(text, PCRE2_UTF | PCRE2_LITERAL);
}

absl::StatusOr<Regex> Regex::CompileWith(std::string_view pattern, unsigned int options) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a translated regex of ", pattern.size(), " bytes, the limit is ", kMaxPatternBytes));
  }
  pcre2_compile_context* compile_context = pcre2_compile_context_create(nullptr);
  CADRE_CHECK(compile_context != nullptr);
  pcre2_set_newline(compile_context, PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error,
                                   &offset, compile_context);
  pcre2_compile_context_free(compile_context);
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the regex does not compile: ", ErrorText(error), " (at byte ", offset, " of its translation)"));
  }
  // Without a just-in-time compiler, or without its support for this pattern, the interpreter does the same work.
  (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);

  pcre2_match_context* match_context = pcre2_match_context_create(nullptr);
  CADRE_CHECK(match_context != nullptr);
  pcre2_set_match_limit(match_context, kMatchLimit);
  pcre2_set_heap_limit(match_context, kHeapLimitKib);
  pcre2_jit_stack_assign(match_context, ThreadJitStack, nullptr);
  return Regex(code, match_context);
}

absl::StatusOr<std::vector<TextSpan>> Regex::FindAll(std::string_view text) const {
  std::vector<TextSpan> matches;
  CADRE_RETURN_IF_ERROR(ForEachMatch(text, [&matches](TextSpan match) {
    matches.push_back(match);
    return absl::OkStatus();
  }));
  return matches;
}

absl::Status Regex::ForEachMatch(std::string_view text, absl::FunctionRef<absl::Status(TextSpan)> visit) const {
  MatchMemory& memory = ThreadMatchMemory();
  std::optional<std::size_t> last_end;
  std::size_t start = 0;
  while (start <= text.size()) {
    // The text was checked once by the caller: checking it again at every search would make the whole quadratic.
    const int result = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start,
                                   PCRE2_NO_UTF_CHECK, memory.match_data, context_.get());
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the tokenizer's regex gave up at byte ", start, " of ", text.size(), ": ", ErrorText(result)));
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(memory.match_data);
    const TextSpan match{bounds[0], bounds[1]};
    if (match.begin == match.end && last_end == match.end) {
      if (start == text.size()) break;
      NextCodePoint(text, &start);
      continue;
    }
    start = match.end;
    last_end = match.end;
    // Last: it may search with another pattern, in the same memory.
    CADRE_RETURN_IF_ERROR(visit(match));
  }
  return absl::OkStatus();
}

}  // namespace cadre
