#include "engine/structured/json_rules.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/structured/number_pattern.h"

namespace cadre {
namespace {

constexpr char kSpace[] = "(?: |\\n(?: {0,64}|\\t{1,16}))";
// The text of a JSON file, not of the string that it means.
constexpr char kCharacter[] =
    "(?:[^\"\\\\\\u0000-\\u001F]|\\\\(?:[\"\\\\/bfnrt]|u(?:"
    "(?:[0-9a-cefA-CEF][0-9a-fA-F]|[dD][0-7])[0-9a-fA-F]{2}|"
    "[dD][89abAB][0-9a-fA-F]{2}\\\\u[dD][c-fC-F][0-9a-fA-F]{2})))";

ByteDfa CompileOurs(const std::string& pattern) {
  absl::StatusOr<ByteDfa> dfa = CompileRegex(pattern, RegexExtent::kWholeText, CharacterCode::kUtf8);
  CADRE_CHECK(dfa.ok());
  return *std::move(dfa);
}

}  // namespace

int32_t JsonRules::RuleOf(const ByteDfa& dfa) {
  const int32_t start = grammar_.AddState();
  const int32_t end = grammar_.AddState();
  grammar_.AddDfa(start, dfa, end);
  grammar_.SetReturn(end);
  return start;
}

int32_t JsonRules::PatternRule(const char* pattern, int32_t* rule) {
  if (*rule == kNotMade) *rule = RuleOf(CompileOurs(pattern));
  return *rule;
}

int32_t JsonRules::Character() { return PatternRule(kCharacter, &character_); }

int32_t JsonRules::AnyString() {
  if (string_ == kNotMade) string_ = RuleOf(CompileOurs(absl::StrCat("\"", kCharacter, "*\"")));
  return string_;
}

int32_t JsonRules::AnyInteger() {
  if (integer_ == kNotMade) integer_ = RuleOf(*IntegerDfa({}));
  return integer_;
}

int32_t JsonRules::AnyNumber() {
  if (number_ == kNotMade) number_ = RuleOf(*NumberDfa({}));
  return number_;
}

int32_t JsonRules::AnyValue() {
  if (value_ != kNotMade) return value_;
  value_ = grammar_.AddState();
  for (const int32_t rule : {AnyObject(), AnyArray(), AnyString(), AnyNumber()}) AddLast(value_, rule);
  for (const char* literal : {"true", "false", "null"}) grammar_.SetReturn(grammar_.AddText(value_, literal));
  return value_;
}

// `open`, elements with commas between them, `close`.
int32_t JsonRules::AddList(int32_t rule, char open, char close, int32_t element) {
  const int32_t opened = AddSpace(grammar_.AddText(rule, std::string(1, open)));
  const int32_t behind_element = grammar_.AddState();
  grammar_.AddCall(opened, element, behind_element);
  grammar_.AddCall(AddSpace(grammar_.AddText(behind_element, ",")), element, behind_element);
  const std::string end(1, close);
  grammar_.SetReturn(grammar_.AddText(opened, end));
  grammar_.SetReturn(grammar_.AddText(AddSpace(behind_element), end));
  return rule;
}

int32_t JsonRules::AnyArray() {
  if (array_ != kNotMade) return array_;
  array_ = grammar_.AddState();
  return AddList(array_, '[', ']', AnyValue());
}

int32_t JsonRules::AnyObject() {
  if (object_ != kNotMade) return object_;
  object_ = grammar_.AddState();
  const int32_t member = grammar_.AddState();
  const int32_t behind_key = grammar_.AddState();
  grammar_.AddCall(member, AnyString(), behind_key);
  AddLast(AddColon(behind_key), AnyValue());
  return AddList(object_, '{', '}', member);
}

int32_t JsonRules::AddSpace(int32_t from) {
  const int32_t to = grammar_.AddState();
  grammar_.AddCall(from, PatternRule(kSpace, &space_), to);
  grammar_.AddJump(from, to);
  return to;
}

int32_t JsonRules::AddColon(int32_t from) {
  const int32_t behind = grammar_.AddText(from, ":");
  const int32_t to = grammar_.AddState();
  grammar_.AddBytes(behind, ' ', ' ', to);
  grammar_.AddJump(behind, to);
  return to;
}

void JsonRules::AddLast(int32_t from, int32_t rule) {
  const int32_t end = grammar_.AddState();
  grammar_.SetReturn(end);
  grammar_.AddCall(from, rule, end);
}

int32_t JsonRules::AddValue(int32_t from, const nlohmann::ordered_json& value) {
  if (!value.is_structured()) {
    return grammar_.AddText(from, value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  }
  from = grammar_.AddText(from, value.is_object() ? "{" : "[");
  bool is_first = true;
  for (const auto& [key, element] : value.items()) {
    if (!is_first) from = grammar_.AddText(from, ",");
    is_first = false;
    from = AddSpace(from);
    if (value.is_object()) from = AddColon(AddValue(from, nlohmann::ordered_json(key)));
    from = AddValue(from, element);
  }
  return grammar_.AddText(is_first ? from : AddSpace(from), value.is_object() ? "}" : "]");
}

}  // namespace cadre
