// Structured output from any bytes: compile under the limits, then walk through the masks. The first byte chooses the
// kind, the next two seed the walk; the rest is the schema, the expression, or choices separated by line breaks. What a
// schema lets through must be JSON, and there must always be something allowed.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_split.h"
#include "engine/base/check.h"
#include "engine/base/json.h"
#include "engine/base/strings.h"
#include "engine/structured/constraint_compiler.h"
#include "engine/structured/json_schema.h"
#include "tests/support/structured_walk.h"

namespace cadre {
namespace {

constexpr std::size_t kMaxBytes = 2048;
constexpr int kMaxSteps = 60;

// Masks are found on the walk: those that a server makes beforehand would take most of the time.
CompiledConstraint CompileSchema(std::string_view text, const std::shared_ptr<const TokenVocabulary>& vocabulary) {
  constexpr std::int64_t kFewSteps = 1000;
  absl::StatusOr<Grammar> grammar = CompileJsonSchema(text, vocabulary->spelled());
  if (!grammar.ok()) return grammar.status();
  return GrammarConstraint::Create(*std::move(grammar), vocabulary, kMaxConstraintCacheBytes, kFewSteps);
}

CompiledConstraint Compile(int kind, std::string_view text, const std::shared_ptr<const TokenVocabulary>& vocabulary) {
  if (kind == 0) return CompileSchema(text, vocabulary);
  if (kind == 1) return ConstrainToRegex(text, vocabulary);
  return ConstrainToChoices(absl::StrSplit(ToAbsl(text), '\n'), vocabulary);
}

void CheckJson(const std::string& text) {
  const auto value = ParseOrderedJson(text, "output", 200, 100'000);
  const bool is_duplicate = std::string(value.status().message()).find("duplicate key") != std::string::npos;
  CADRE_CHECK(value.ok() || is_duplicate);
}

void Walk(const TokenConstraint& constraint, const TokenVocabulary& vocabulary, bool is_json, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const std::unique_ptr<ConstraintState> state = constraint.Start();
  std::string text;
  for (int step = 0; step < kMaxSteps && !state->done(); ++step) {
    const absl::Status status = state->AllowedTokens().status();
    if (!status.ok()) {
      CADRE_CHECK(absl::IsResourceExhausted(status));
      return;
    }
    const std::vector<std::int32_t> allowed = AllowedList(*state);
    CADRE_CHECK(!allowed.empty());
    const std::int32_t chosen = allowed[random() % allowed.size()];
    text += vocabulary.token(chosen).later;
    state->Advance(chosen);
  }
  if (is_json && state->done()) CheckJson(text);
}

}  // namespace
}  // namespace cadre

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  static const auto& vocabulary =
      *new std::shared_ptr<const cadre::TokenVocabulary>(cadre::ByteVocabulary(cadre::JsonPieces()));
  const int kind = data[0] % 3;
  const std::uint64_t seed = data[1] * 256u + data[2];
  const std::string_view text(reinterpret_cast<const char*>(data) + 3, std::min(size - 3, cadre::kMaxBytes));
  const cadre::CompiledConstraint constraint = cadre::Compile(kind, text, vocabulary);
  if (constraint.ok()) {
    cadre::Walk(**constraint, *vocabulary, kind == 0, seed);
  } else {
    CADRE_CHECK(!constraint.status().message().empty());
  }
  return 0;
}
