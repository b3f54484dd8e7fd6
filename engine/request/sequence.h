// The token side of a running request: what is known, what is computed, and which KV blocks hold it.
#ifndef CADRE_ENGINE_REQUEST_SEQUENCE_H_
#define CADRE_ENGINE_REQUEST_SEQUENCE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cadre {

// Identity of a sequence inside one engine; rises in order of arrival and is never reused.
using SequenceId = int64_t;

// The life of a sequence. Every change goes through Sequence::Transition, which allows these and no others:
//
//                  +----------- preempted ------------+
//                  v                                  |
//   (new) ----> kWaiting ---> kPrefill ---> kDecode --+
//                  |  ^           |  |          |
//                  |  +-----------+  |          |
//                  v    preempted    v          v
//              kFinished <-----------+----------+
enum class SequenceState {
  kWaiting,   // holds no blocks
  kPrefill,   // some known tokens beyond the last sampled one are not computed yet
  kDecode,    // everything but the last sampled token is computed: one row per step
  kFinished,  // holds no blocks, for ever
};
std::string_view SequenceStateName(SequenceState state);

inline constexpr SequenceId kNoSequence = -1;

// What the scheduler knows of a sequence beside its tokens; constant.
struct SequenceTraits {
  int32_t max_tokens = 0;   // the most it will generate; 0: unknown
  int32_t priority = 0;     // higher runs earlier
  std::string tenant = {};  // the unit of fair sharing
  // Whose KV blocks it may share, and with whom: sequences of the same domain. Empty: with nobody.
  std::string cache_domain = {};
  // The first sequence of the same request, whose prompt this one shares: waits until that one has computed it.
  SequenceId leader = kNoSequence;
  // It may begin behind a multiple of so many tokens only: what a row computes depends on the others of its group,
  // which all must be there or none.
  int32_t group_tokens = 1;
  // > 0: what a row of the prompt computes depends on the later rows of its group of so many positions, too, up to the
  // end of the prompt: they run in one step. Rows behind the prompt have no groups.
  int32_t prompt_group = 0;
  bool needs_prompt_logits = false;  // every prompt row is computed and its logits are wanted, until the first token
};

// Pure data with counters, driven by the scheduler; not thread-safe. Token counts:
//
//   [ prompt                  | generated           ]  num_tokens
//   [ computed      | scheduled |                   ]  computed + scheduled <= num_tokens
class Sequence {
 public:
  // REQUIRES: `prompt` is not empty.
  Sequence(SequenceId id, std::vector<int32_t> prompt, SequenceTraits traits = {});

  SequenceId id() const { return id_; }
  const SequenceTraits& traits() const { return traits_; }
  SequenceState state() const { return state_; }
  std::span<const int32_t> tokens() const { return tokens_; }  // prompt, then generated
  int32_t num_tokens() const { return static_cast<int32_t>(tokens_.size()); }
  int32_t num_prompt_tokens() const { return num_prompt_tokens_; }
  int32_t num_generated_tokens() const { return num_tokens() - num_prompt_tokens_; }
  int32_t num_computed_tokens() const { return num_computed_tokens_; }    // their keys and values are in the blocks
  int32_t num_scheduled_tokens() const { return num_scheduled_tokens_; }  // being computed by the step in progress
  int32_t num_uncomputed_tokens() const { return num_tokens() - num_computed_tokens_; }
  // The most that was ever computed: rows below it, computed again after a preemption, are recomputed rows.
  int32_t peak_computed_tokens() const { return peak_computed_tokens_; }
  // Of the rows below the peak, those that were found in the prefix cache and never computed by this sequence.
  int32_t num_found_tokens() const { return num_found_tokens_; }
  int32_t num_preemptions() const { return num_preemptions_; }
  // Whether the rows that come next are prompt rows whose logits are wanted.
  bool wants_all_logits() const { return traits_.needs_prompt_logits && num_generated_tokens() == 0; }
  bool started() const { return started_; }                                 // a step has contained it
  const std::vector<int32_t>& block_table() const { return block_table_; }  // [ceil((computed + scheduled) / B)]

  // Of the keys and values of its tokens, how many another sequence of these tokens would compute, too.
  int32_t num_shareable_tokens() const;
  // The least multiple of a block and of a group of the prompt: keys and values of so many tokens are shared as a
  // whole.
  int32_t tokens_computed_together(int32_t block_size) const;
  // The most rows from position `begin` on, up to `count`, that end where a chunk may end.
  int32_t WholeGroups(int32_t begin, int32_t count) const;
  // Rows of a chunk of `count` at the current position that had been computed before a preemption.
  int32_t CountRecomputed(int32_t count) const;

  // The first `count` tokens are computed already, in `blocks`. REQUIRES: kWaiting, and room for one more token.
  void Resume(int32_t count, std::span<const int32_t> blocks);
  // The same keys and values are in `block`, too: it takes the place of the `index`-th of the block table.
  void ReplaceBlock(int32_t index, int32_t block);
  // The next `count` tokens run in the coming step; `new_blocks` extend the block table. kWaiting becomes kPrefill.
  void Schedule(int32_t count, std::span<const int32_t> new_blocks);
  // The scheduled rows were computed.
  void Advance();
  // The scheduled row is taken for computed, and `placeholder` for the token that it will give, so that the row of that
  // token can be scheduled, too. REQUIRES: kDecode, a row that is scheduled, and no placeholder yet.
  void Assume(int32_t placeholder);
  // As if Advance had been called for that row: the placeholder goes, and AppendToken may follow, while the next row is
  // scheduled. REQUIRES: a placeholder, as Retract.
  void Settle();
  // Takes Assume back.
  void Retract();
  bool is_assumed() const { return is_assumed_; }
  // The next token was sampled. REQUIRES: every known token is computed. kPrefill becomes kDecode.
  void AppendToken(int32_t token);
  // Back to kWaiting with nothing computed. Returns the blocks, to be released.
  std::vector<int32_t> Preempt();
  // The end, from any other state. Returns the blocks, to be released.
  std::vector<int32_t> Finish();

 private:
  void Transition(SequenceState to);

  SequenceId id_;
  SequenceTraits traits_;
  SequenceState state_ = SequenceState::kWaiting;
  std::vector<int32_t> tokens_;
  int32_t num_prompt_tokens_;
  int32_t num_computed_tokens_ = 0;
  int32_t num_scheduled_tokens_ = 0;
  int32_t peak_computed_tokens_ = 0;
  int32_t num_found_tokens_ = 0;
  int32_t num_preemptions_ = 0;
  bool started_ = false;
  bool is_assumed_ = false;  // the last of tokens_ is a placeholder
  std::vector<int32_t> block_table_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_REQUEST_SEQUENCE_H_
