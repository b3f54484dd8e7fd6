#include "engine/base/failpoint_spec.h"

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"

namespace cadre::failpoint {
namespace {

struct ActionName {
  absl::string_view name;
  Action action;
  bool takes_time;
  bool takes_text;
};
constexpr ActionName kActions[] = {
    {"off", Action::kOff, false, false},     {"return", Action::kReturn, false, true},
    {"sleep", Action::kSleep, true, false},  {"delay", Action::kDelay, true, false},
    {"yield", Action::kYield, false, false}, {"print", Action::kPrint, false, true},
    {"panic", Action::kPanic, false, true},  {"pause", Action::kPause, false, false},
};

absl::Status Wrong(absl::string_view term, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat("failpoint term \"", term, "\": ", reason));
}

const ActionName* FindAction(absl::string_view name) {
  for (const ActionName& action : kActions) {
    if (action.name == name) return &action;
  }
  return nullptr;
}

// Takes "P%" and "N*" off the front of `rest`.
absl::Status ParsePrefixes(absl::string_view term, absl::string_view* rest, Term* parsed) {
  if (const size_t percent = rest->find('%'); percent < rest->find('(')) {
    double value = 0;
    if (!absl::SimpleAtod(rest->substr(0, percent), &value) || !(value >= 0 && value <= 100)) {
      return Wrong(term, "the probability must be 0% to 100%");
    }
    parsed->probability = value / 100;
    rest->remove_prefix(percent + 1);
  }
  if (const size_t star = rest->find('*'); star < rest->find('(')) {
    int64_t count = 0;
    if (!absl::SimpleAtoi(rest->substr(0, star), &count) || count < 0) {
      return Wrong(term, "the count must be a whole number");
    }
    parsed->count = count;
    rest->remove_prefix(star + 1);
  }
  return absl::OkStatus();
}

absl::StatusOr<Term> ParseTerm(absl::string_view term) {
  Term parsed;
  absl::string_view rest = absl::StripAsciiWhitespace(term);
  CADRE_RETURN_IF_ERROR(ParsePrefixes(term, &rest, &parsed));
  absl::string_view argument;
  const size_t open = rest.find('(');
  if (open != absl::string_view::npos) {
    if (!absl::EndsWith(rest, ")")) return Wrong(term, "the argument is not closed");
    argument = rest.substr(open + 1, rest.size() - open - 2);
    rest = rest.substr(0, open);
  }
  const ActionName* action = FindAction(rest);
  if (action == nullptr) return Wrong(term, absl::StrCat("there is no action \"", rest, "\""));
  parsed.action = action->action;
  if (action->takes_time && (!absl::SimpleAtoi(argument, &parsed.milliseconds) || parsed.milliseconds < 0 ||
                             parsed.milliseconds > kMaxMilliseconds)) {
    return Wrong(term, absl::StrCat("its argument must be 0 to ", kMaxMilliseconds, " milliseconds"));
  }
  if (action->takes_text) {
    parsed.text = std::string(argument);
  } else if (!action->takes_time && !argument.empty()) {
    return Wrong(term, "it takes no argument");
  }
  return parsed;
}

}  // namespace

absl::StatusOr<std::vector<Term>> ParseSpec(std::string_view spec) {
  std::vector<Term> terms;
  for (const absl::string_view term : absl::StrSplit(ToAbsl(spec), "->")) {
    if (terms.size() == kMaxTerms) return Wrong(term, absl::StrCat("more than ", kMaxTerms, " terms"));
    CADRE_ASSIGN_OR_RETURN(terms.emplace_back(), ParseTerm(term));
  }
  return terms;
}

}  // namespace cadre::failpoint
