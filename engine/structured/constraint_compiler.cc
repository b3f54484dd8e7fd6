#include "engine/structured/constraint_compiler.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/structured/byte_dfa.h"
#include "engine/structured/json_schema.h"
#include "engine/text/utf8.h"

namespace cadre {
namespace {

CompiledConstraint ConstrainToDfa(const ByteDfa& dfa, std::shared_ptr<const TokenVocabulary> vocabulary) {
  GrammarBuilder builder;
  const int32_t start = builder.AddState();
  const int32_t end = builder.AddState();
  builder.AddDfa(start, dfa, end);
  builder.SetReturn(end);
  CADRE_ASSIGN_OR_RETURN(Grammar grammar, builder.Build(start, vocabulary->spelled(), nullptr));
  return GrammarConstraint::Create(std::move(grammar), std::move(vocabulary));
}

}  // namespace

CompiledConstraint ConstrainToJsonSchema(std::string_view schema, std::shared_ptr<const TokenVocabulary> vocabulary) {
  CADRE_ASSIGN_OR_RETURN(Grammar grammar, CompileJsonSchema(schema, vocabulary->spelled()));
  return GrammarConstraint::Create(std::move(grammar), std::move(vocabulary));
}

CompiledConstraint ConstrainToRegex(std::string_view pattern, std::shared_ptr<const TokenVocabulary> vocabulary) {
  CADRE_ASSIGN_OR_RETURN(const ByteDfa dfa, CompileRegex(pattern, RegexExtent::kWholeText, CharacterCode::kUtf8));
  return ConstrainToDfa(dfa, std::move(vocabulary));
}

CompiledConstraint ConstrainToChoices(const std::vector<std::string>& choices,
                                      std::shared_ptr<const TokenVocabulary> vocabulary) {
  if (choices.empty()) return absl::InvalidArgumentError("no choices");
  if (choices.size() > kMaxChoices) {
    return absl::InvalidArgumentError(absl::StrCat(choices.size(), " choices, the limit is ", kMaxChoices));
  }
  size_t num_bytes = 0;
  for (size_t i = 0; i < choices.size(); ++i) {
    if (choices[i].empty()) return absl::InvalidArgumentError(absl::StrCat("choice ", i, " is empty"));
    if (!IsValidUtf8(choices[i])) return absl::InvalidArgumentError(absl::StrCat("choice ", i, " is not valid UTF-8"));
    num_bytes += choices[i].size();
  }
  if (num_bytes > kMaxChoiceBytes) {
    return absl::InvalidArgumentError(absl::StrCat(num_bytes, " bytes of choices, the limit is ", kMaxChoiceBytes));
  }
  return ConstrainToDfa(ByteDfa::FromTexts(choices), std::move(vocabulary));
}

}  // namespace cadre
