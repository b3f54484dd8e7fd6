#ifndef CADRE_ENGINE_STRUCTURED_BYTE_NFA_H_
#define CADRE_ENGINE_STRUCTURED_BYTE_NFA_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/structured/byte_dfa.h"
#include "engine/structured/regex_tree.h"

namespace cadre {

// A nondeterministic automaton over bytes (Thompson 1968), with one start and one accepting state.
struct ByteNfa {
  struct State {
    std::vector<ByteDfa::Edge> edges;
    std::vector<int32_t> jumps;  // to here without a byte
  };
  std::vector<State> states;
  int32_t start = 0;
  int32_t accept = 0;
  int64_t work = 0;  // steps taken to make it, see ByteDfa::work
};

// ResourceExhausted when it would have more than kMaxNfaStates states; they are counted before they are made.
absl::StatusOr<ByteNfa> BuildNfa(const RegexNode& tree, CharacterCode code);

// The subset construction. ResourceExhausted by kMaxDfaStates or kMaxDfaWork. Its work counts that of `nfa`.
absl::StatusOr<ByteDfa> Determinize(const ByteNfa& nfa);

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_BYTE_NFA_H_
