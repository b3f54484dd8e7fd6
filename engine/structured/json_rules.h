#ifndef CADRE_ENGINE_STRUCTURED_JSON_RULES_H_
#define CADRE_ENGINE_STRUCTURED_JSON_RULES_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/structured/grammar.h"
#include "nlohmann/json.hpp"

namespace cadre {

// The rules of JSON text (RFC 8259) that all schemas share. Each is made when it is first asked for.
//
// White space: between two parts of an object or array nothing, one space, or a line break with up to 64 spaces or 16
// tabs of indentation; behind a colon nothing or one space; none elsewhere.
class JsonRules {
 public:
  explicit JsonRules(GrammarBuilder* grammar) : grammar_(*grammar) {}

  // Starts of rules.
  int32_t AnyValue();
  int32_t AnyObject();
  int32_t AnyArray();
  int32_t AnyString();
  int32_t AnyInteger();
  int32_t AnyNumber();
  // One character of a string, escaped or not. Escapes of surrogates come in pairs.
  int32_t Character();

  // From `from`: optional white space; the state behind it.
  int32_t AddSpace(int32_t from);
  // From `from`: a colon and an optional space; the state behind it.
  int32_t AddColon(int32_t from);
  // From `from`: `rule`, and then the rule of `from` returns.
  void AddLast(int32_t from, int32_t rule);
  // From `from`: this value; the state behind it. Its strings are written in one way, white space is optional.
  int32_t AddValue(int32_t from, const nlohmann::ordered_json& value);

 private:
  static constexpr int32_t kNotMade = -1;

  int32_t RuleOf(const ByteDfa& dfa);
  // `*rule`, made of `pattern` when it is not made yet.
  int32_t PatternRule(const char* pattern, int32_t* rule);
  int32_t AddList(int32_t rule, char open, char close, int32_t element);

  GrammarBuilder& grammar_;
  int32_t space_ = kNotMade;
  int32_t value_ = kNotMade;
  int32_t object_ = kNotMade;
  int32_t array_ = kNotMade;
  int32_t string_ = kNotMade;
  int32_t integer_ = kNotMade;
  int32_t number_ = kNotMade;
  int32_t character_ = kNotMade;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_JSON_RULES_H_
