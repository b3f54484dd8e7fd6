#ifndef CADRE_ENGINE_STRUCTURED_GRAMMAR_AUTOMATON_H_
#define CADRE_ENGINE_STRUCTURED_GRAMMAR_AUTOMATON_H_

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/structured/byte_runs.h"
#include "engine/structured/call_stacks.h"
#include "engine/structured/grammar.h"
#include "engine/structured/step_meter.h"

namespace cadre {

// An automaton that is smaller may double, whatever its limit: a small limit costs time, but stops nothing.
inline constexpr int64_t kSmallAutomatonBytes = 8 << 20;

// A grammar, made deterministic as far as it is looked at: a state is a set of places in the grammar, each with the
// stacks of calls that lead to it. States are kept, with the moves between them, until the automaton is thrown away.
// Not thread-safe.
//
// One move can take as long as the grammar is large, and longer where it is ambiguous. Nothing new is found, and what
// was begun is given up, while the meter is exhausted or more memory is taken than allowed.
//
// A state may stand for unknown stacks: what a text does until it returns from the rules it is in does not depend on
// who called them. Such states are shared by all callers; `escapes` tells which of the unknown stacks returns.
class GrammarAutomaton {
 public:
  static constexpr int32_t kDead = -1;
  static constexpr int32_t kUnfinished = -2;  // what could not be found within the limits

  // `grammar` and `meter` must outlive the automaton.
  GrammarAutomaton(const Grammar* grammar, StepMeter* meter);

  // What it may take, with what it has already; if that is more, see kSmallAutomatonBytes.
  void LimitMemory(int64_t max_bytes);

  // Or kUnfinished.
  int32_t Start();
  // kDead when no sentence goes on with `byte`; kUnfinished.
  int32_t Next(int32_t state, uint8_t byte);
  // Whether the text so far is a sentence.
  bool accepts(int32_t state) const { return at(state).accepts; }
  // Whether the text so far can be continued without an escape.
  bool has_next(int32_t state) const { return !at(state).places.empty(); }
  // Indices of the unknown stacks that may go on from here.
  std::span<const int32_t> escapes(int32_t state) const { return at(state).escapes; }

  // The most calls that are open at once, or are needed to complete a rule, by any way that leads through this state.
  int32_t reach(int32_t state) const { return at(state).reach; }
  int32_t max_depth(int32_t state) const { return at(state).max_depth; }

  // Whether any `length` bytes of the set (byte_runs.h) can follow in a row, whichever they are. If so, raises `*reach`
  // to the largest reach on the way. False, too, when that could not be found out.
  bool HasRun(int32_t state, int set, int32_t length, int32_t* reach);

  // The same places with unknown stacks: number i for the i-th of `Callers`.
  int32_t Abstract(int32_t state);
  // Where a text stands that has returned to the stacks `indices` of the abstract state's original; kDead, kUnfinished.
  int32_t Resume(int32_t state, std::span<const int32_t> indices);

  // What was copied from another automaton before: ids here by ids there.
  struct Imported {
    absl::flat_hash_map<int32_t, int32_t> states;
    absl::flat_hash_map<int32_t, int32_t> stacks;
  };
  // The id here of a state of `other`, an automaton of the same grammar. Whatever the limits are.
  int32_t Import(const GrammarAutomaton& other, int32_t state, Imported* imported);

  const Grammar& grammar() const { return grammar_; }
  int64_t memory_bytes() const { return memory_bytes_ + stacks_.memory_bytes(); }
  bool is_full() const { return memory_bytes() > max_bytes_; }

 private:
  using Place = std::pair<int32_t, int32_t>;  // a state of the grammar, and the stacks below it
  static constexpr int32_t kUnknown = -3;

  struct Run {
    int32_t next = kUnknown;  // the state behind every byte of the set; kDead when they differ
    int32_t length = 0;       // at least; exactly when is_whole
    int32_t reach = 0;
    bool is_whole = false;
  };
  struct State {
    std::vector<Place> places;  // those that read bytes, ascending
    std::vector<int32_t> escapes;
    bool accepts = false;
    int32_t reach = 0;
    int32_t max_depth = 0;
    std::vector<int32_t> next;  // [byte classes], kUnknown where nobody has looked
    std::array<Run, kNumByteRunSets> runs;
    int32_t abstract = kUnknown;
    std::vector<int32_t> callers;  // stacks by index, once `abstract` is known
  };
  struct Key {
    std::vector<Place> places;
    std::vector<int32_t> escapes;
    bool accepts;

    bool operator==(const Key&) const = default;
    template <typename H>
    friend H AbslHashValue(H h, const Key& key) {
      return H::combine(std::move(h), key.places, key.escapes, key.accepts);
    }
  };

  const State& at(int32_t state) const { return states_[static_cast<size_t>(state)]; }
  State& at(int32_t state) { return states_[static_cast<size_t>(state)]; }

  // A place, and all that can be reached from it without a byte.
  void Visit(int32_t grammar_state, int32_t stacks);
  void Return(int32_t stacks);
  void Expand(int32_t grammar_state);
  // The state for what was visited since the last call; kDead, kUnfinished.
  int32_t Finish();
  int32_t Intern(const Key& key);
  bool must_stop() const { return meter_.is_exhausted() || is_full(); }
  // Run::next, found if need be; kUnfinished.
  int32_t CommonNext(int32_t state, int set);

  const Grammar& grammar_;
  StepMeter& meter_;
  int64_t max_bytes_ = INT64_MAX;
  CallStacks stacks_;
  std::vector<State> states_;
  absl::flat_hash_map<Key, int32_t> ids_;
  std::vector<std::vector<uint8_t>> set_bytes_;  // [run sets] one byte of each class that the set touches
  int32_t start_ = kUnknown;
  int64_t memory_bytes_ = 0;
  std::vector<int32_t> run_path_;  // scratch of HasRun

  // Of the state that is being made.
  std::vector<int32_t> stacks_at_;  // [grammar states] kNone: not visited
  std::vector<int32_t> visited_;
  std::vector<int32_t> work_;
  std::vector<int32_t> new_escapes_;
  bool new_accepts_ = false;
  int32_t new_reach_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_GRAMMAR_AUTOMATON_H_
