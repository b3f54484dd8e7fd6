#ifndef CADRE_ENGINE_STRUCTURED_GRAMMAR_H_
#define CADRE_ENGINE_STRUCTURED_GRAMMAR_H_

#include <array>
#include <bitset>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/structured/byte_dfa.h"

namespace cadre {

// States of one grammar: a few dozen bytes each.
inline constexpr int64_t kMaxGrammarStates = 400'000;
// Rules that wait for the rule they called. Each level of nested JSON takes one.
inline constexpr int32_t kMaxCallDepth = 128;

// A byte that no token spells alone cannot be relied on, so no sentence may need one.
using ByteSet = std::bitset<256>;

// A formal language over bytes as a recursive transition network (Woods 1970): each rule is an automaton whose edges
// read a byte from a range, or call a rule and go on when it returns. Immutable; made by GrammarBuilder.
//
// What is left of it after building is live: from every state, by every edge, some sentence can be completed.
class Grammar {
 public:
  struct ByteEdge {
    uint8_t first;
    uint8_t last;  // included
    int32_t to;
  };
  struct CallEdge {
    int32_t callee;  // the start of the rule
    int32_t to;
    int32_t need;  // see Need, by this edge; it counts the frame that waits in `to`, unless is_tail
    bool is_tail;  // nothing follows the call: the callee returns to whoever called this rule
  };

  int32_t start() const { return start_; }
  int32_t num_states() const { return static_cast<int32_t>(accepts_.size()); }

  std::span<const ByteEdge> byte_edges(int32_t state) const { return Row(byte_edges_, first_byte_edge_, state); }
  std::span<const CallEdge> call_edges(int32_t state) const { return Row(call_edges_, first_call_edge_, state); }
  std::span<const int32_t> jumps(int32_t state) const { return Row(jumps_, first_jump_, state); }
  // Whether the rule may return here.
  bool returns(int32_t state) const { return accepts_[static_cast<size_t>(state)]; }

  // The most calls that must be open at once to get from `state` to the end of its rule.
  int32_t Need(int32_t state) const { return need_[static_cast<size_t>(state)]; }

  // Bytes that no edge tells apart have the same class; the class of a byte, and one byte of each.
  int32_t class_of(uint8_t byte) const { return class_of_[byte]; }
  std::span<const uint8_t> class_bytes() const { return class_bytes_; }

  int64_t memory_bytes() const;

 private:
  friend class GrammarBuilder;

  template <typename T>
  static std::span<const T> Row(const std::vector<T>& items, const std::vector<int32_t>& first, int32_t row) {
    const auto begin = static_cast<size_t>(first[static_cast<size_t>(row)]);
    return std::span<const T>(items).subspan(begin, static_cast<size_t>(first[static_cast<size_t>(row) + 1]) - begin);
  }
  void FindClasses();

  int32_t start_ = 0;
  std::vector<bool> accepts_;  // [S]
  std::vector<int32_t> need_;  // [S]
  std::vector<ByteEdge> byte_edges_;
  std::vector<CallEdge> call_edges_;
  std::vector<int32_t> jumps_;
  std::vector<int32_t> first_byte_edge_, first_call_edge_, first_jump_;  // [S + 1]
  std::array<int32_t, 256> class_of_ = {};
  std::vector<uint8_t> class_bytes_;  // [C]
};

// Collects rules. A state may be added when there are already too many: it is then not stored, and Build fails.
class GrammarBuilder {
 public:
  static constexpr int32_t kDeadLimit = kMaxCallDepth + 1;

  // The start of a new rule.
  int32_t AddState();
  void AddBytes(int32_t from, uint8_t first, uint8_t last, int32_t to);
  // A chain that reads `text`; the state behind it.
  int32_t AddText(int32_t from, std::string_view text);
  void AddJump(int32_t from, int32_t to);
  // `rule` is the state it starts in.
  void AddCall(int32_t from, int32_t rule, int32_t to);
  // The states of `dfa`: from `from`, to `to`.
  void AddDfa(int32_t from, const ByteDfa& dfa, int32_t to);
  void SetReturn(int32_t state);

  bool is_too_large() const { return is_too_large_; }

  // The language of the rule that starts in `start`, without what cannot be completed within kMaxCallDepth or needs a
  // byte outside `spelled`. ResourceExhausted when there were too many states; InvalidArgument when a rule can call
  // itself before it reads anything (with `left_recursive_rule`, not null, set to its start) or nothing is left.
  absl::StatusOr<Grammar> Build(int32_t start, const ByteSet& spelled, int32_t* left_recursive_rule);

 private:
  struct Call {
    int32_t callee;
    int32_t to;
  };
  struct State {
    std::vector<Grammar::ByteEdge> bytes;
    std::vector<Call> calls;
    std::vector<int32_t> jumps;
    bool returns = false;
  };

  State& at(int32_t state) { return states_[static_cast<size_t>(state)]; }
  const State& at(int32_t state) const { return states_[static_cast<size_t>(state)]; }
  bool IsTail(const Call& call) const;
  void KeepSpelled(const ByteSet& spelled);
  std::vector<int32_t> ComputeNeeds() const;
  int32_t FindLeftRecursion() const;
  Grammar Pack(int32_t start, const std::vector<int32_t>& needs) const;

  std::vector<State> states_;
  bool is_too_large_ = false;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_GRAMMAR_H_
