#ifndef CADRE_ENGINE_STRUCTURED_TOKEN_MASKS_H_
#define CADRE_ENGINE_STRUCTURED_TOKEN_MASKS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/structured/grammar_automaton.h"
#include "engine/structured/step_meter.h"
#include "engine/structured/token_vocabulary.h"

namespace cadre {

// Steps that a mask may take, when a constraint is compiled and while text is generated: a few tenths of a second.
// Ordinary schemas need a thousandth for most masks, and a tenth where each token of a large vocabulary is looked at.
inline constexpr int64_t kMaxMaskWork = 20'000'000;

// ResourceExhausted: why a mask was given up. `max_bytes`: what its automaton might take.
absl::Status MaskLimitError(const StepMeter& meter, int64_t max_bytes);

// The tokens that may follow in each state of an automaton, found by walking the vocabulary's trie and kept.
//
// Most tokens stay inside the rules that the text is in, whoever called them: inside a JSON string nearly the whole
// vocabulary. They are found once, for unknown callers; what is left for each state is the few tokens that return from
// them, such as a closing quotation mark with a comma. Not thread-safe.
class TokenMasks {
 public:
  // All must outlive this object; `meter` is that of `automaton`. A mask for which that becomes full is found with one
  // of its own, thrown away whenever it takes more than `max_own_bytes`: more slowly, and not kept.
  TokenMasks(const TokenVocabulary* vocabulary, GrammarAutomaton* automaton, StepMeter* meter, int64_t max_own_bytes);

  // Sets the bits of `mask`, which is [num_mask_words]: tokens behind which a sentence can still be completed, and the
  // end tokens where the text is a sentence. MaskLimitError when the meter is exhausted before that.
  absl::Status Fill(int32_t state, std::span<uint64_t> mask);
  // The same where no token has been generated yet.
  absl::Status FillFirst(int32_t state, std::span<uint64_t> mask);

  // Finds masks before anyone waits for them: those of the states closest to the start, up to `max_states` of them,
  // until `max_work` steps have been taken (nodes, tokens, and places of the automaton) or the automaton is full.
  // MaskLimitError when one of them takes more than `max_mask_work` steps, or more memory than Fill may.
  absl::Status Prepare(int64_t max_states, int64_t max_work, int64_t max_mask_work);

  int64_t memory_bytes() const { return memory_bytes_; }

 private:
  // A set of tokens: a list while that is smaller than the bits.
  struct TokenSet {
    std::vector<int32_t> list;
    std::vector<uint64_t> bits;
    bool operator==(const TokenSet&) const = default;
  };
  struct Exit {
    uint32_t node;        // of the trie: the text up to here returns
    uint32_t escape_set;  // to these unknown stacks, by index
    bool operator==(const Exit&) const = default;
  };
  // What follows in an abstract state.
  struct Inside {
    TokenSet tokens;
    std::vector<Exit> exits;
    std::vector<std::vector<int32_t>> escape_sets;
    bool operator==(const Inside&) const = default;
  };
  struct KnownInside {
    std::shared_ptr<const Inside> inside;
    int32_t reach;  // the largest of the automaton's states on the way
  };
  struct Whole {
    std::shared_ptr<const Inside> inside;  // null: all tokens are among the others
    TokenSet others;
  };

  // The tokens of the subtree below `root` that can follow, as a list. `exits` may be null. False, with a part of the
  // list, when the automaton is full or the meter exhausted.
  bool Walk(const TokenTrie& trie, uint32_t root, int32_t state, std::vector<int32_t>* tokens, Inside* exits);
  bool TakeRun(const TokenTrie& trie, uint32_t node, int32_t state, std::vector<int32_t>* tokens);
  // The same for all of `trie`, with an automaton that is thrown away whenever it is full.
  absl::StatusOr<std::vector<int32_t>> WalkAfresh(const TokenTrie& trie, int32_t state) const;
  // An automaton of its own that knows the states of `full` on `path`, which get their ids there.
  std::unique_ptr<GrammarAutomaton> StartAgain(const GrammarAutomaton& full, std::vector<int32_t>* path) const;
  void AddExit(uint32_t node, std::span<const int32_t> escapes, Inside* exits);
  // Null when the walk could not be ended.
  const KnownInside* InsideOf(int32_t abstract);
  const Whole* WholeOf(int32_t state);
  TokenSet Pack(std::vector<int32_t> tokens) const;
  static int64_t MemoryOf(const TokenSet& set);
  static void Add(const TokenSet& set, std::span<uint64_t> mask);
  void AddEnds(int32_t state, std::span<uint64_t> mask) const;

  const TokenVocabulary& vocabulary_;
  GrammarAutomaton& automaton_;
  StepMeter& meter_;
  const int64_t max_own_bytes_;
  absl::flat_hash_map<int32_t, KnownInside> inside_;  // by abstract state
  std::shared_ptr<const Inside> last_inside_;         // neighbors are often equal, and then shared
  absl::flat_hash_map<int32_t, Whole> whole_;         // by state
  std::vector<int32_t> path_;                         // the state behind each byte of the walk
  int32_t walk_reach_ = 0;                            // the largest reach on it
  int64_t memory_bytes_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_TOKEN_MASKS_H_
