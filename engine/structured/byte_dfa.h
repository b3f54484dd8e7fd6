#ifndef CADRE_ENGINE_STRUCTURED_BYTE_DFA_H_
#define CADRE_ENGINE_STRUCTURED_BYTE_DFA_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/structured/regex_tree.h"

namespace cadre {

// What one automaton may cost, checked while it is built: the limits hold before the memory is taken.
inline constexpr int64_t kMaxNfaStates = 60'000;
inline constexpr int64_t kMaxDfaStates = 30'000;
// Steps: states and edges looked at while building; about half a second.
inline constexpr int64_t kMaxDfaWork = 40'000'000;

// A deterministic automaton over bytes, trimmed: every state can reach an accepting one. Immutable once built.
class ByteDfa {
 public:
  struct Edge {
    uint8_t first;
    uint8_t last;  // included
    int32_t to;
  };
  struct State {
    std::vector<Edge> edges;  // ascending, without overlap
    bool accepts = false;
  };

  static constexpr int32_t kDead = -1;

  // REQUIRES: states[0] is the start. Trims. `work`: see below.
  explicit ByteDfa(std::vector<State> states, int64_t work = 0);
  // One of these texts.
  static ByteDfa FromTexts(const std::vector<std::string>& texts);

  // True when nothing is accepted.
  bool empty() const { return states_.empty(); }
  const std::vector<State>& states() const { return states_; }
  // Steps taken to make it: states and edges that were looked at, and the reading of its expression. Never 0 for what
  // the functions below return. Not counting the automata that it was combined from.
  int64_t work() const { return work_; }
  // More was looked at on the way.
  void AddWork(int64_t work) { work_ += work; }
  int32_t Next(int32_t state, uint8_t byte) const;
  bool Accepts(std::string_view text) const;

 private:
  void Trim();

  std::vector<State> states_;  // states_[0] is the start
  int64_t work_ = 0;
};

// How the characters of an expression are written as bytes.
enum class CharacterCode {
  kUtf8,
  // As in a JSON string, each in one way: the quotation mark and the backslash behind a backslash, \b \f \n \r \t,
  // other control characters as \u00XX, everything else as it is.
  kJsonString,
};

// Errors of both: ResourceExhausted, with the limit, when the automaton would become too large.
absl::StatusOr<ByteDfa> CompileRegex(const RegexNode& tree, CharacterCode code);
// ParseRegex, then CompileRegex.
absl::StatusOr<ByteDfa> CompileRegex(std::string_view pattern, RegexExtent extent, CharacterCode code);

// Texts of both.
absl::StatusOr<ByteDfa> Intersect(const ByteDfa& a, const ByteDfa& b);
// Texts of `a` that are not of `b`.
absl::StatusOr<ByteDfa> Subtract(const ByteDfa& a, const ByteDfa& b);

inline constexpr int32_t kNoLengthLimit = -1;
// The texts of `dfa`, in the code kJsonString, that have `min` to `max` characters (or at least `min`).
absl::StatusOr<ByteDfa> LimitLength(const ByteDfa& dfa, int32_t min, int32_t max);

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_BYTE_DFA_H_
