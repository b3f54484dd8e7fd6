// The vocabulary of the engine: each verb is one step of a Mixture-of-Experts transformer, output first.
//
// Shapes:  T token rows of the step     S sequences        R rows whose logits are wanted
//          D hidden size                H query heads      G kv heads         d head dimension
//          E experts                    K experts a token  F expert width     V vocabulary
//          B tokens in a KV block       A = T * K assignments; assignment a = t * K + j is row t's j-th choice
//
// Activations are float32 unless said otherwise; weights are float32, bfloat16 or float16 as loaded; all accumulation
// is in float32. With bfloat16 weights the activations of a matrix product are rounded to bfloat16 first (as the models
// were trained); with float32 and float16 weights they stay float32. Matrices of Linear and of MLPs may be quantized
// (kernels/quantized.h) where can_multiply says so: activations are then rounded to 8 bits, in groups of 128 inputs of
// a row that share a scale.
//
// Contract of every verb: what a row computes depends on that row and on the weights alone, bit for bit; never on T,
// on the other rows or on the number of threads. Shapes are checked with CADRE_CHECK; device errors surface at
// Device::Synchronize. Calls come from one thread; outputs never alias inputs unless the verb says "in place".
//
// A step may be padded to a size that was prepared for: its last rows then stand for nothing. Where a verb reads an id,
// a slot, a sequence or an expert, kPadding marks them: they come out as zeros, store nothing, choose no expert and are
// not counted. What else is computed of them nobody reads.
#ifndef CADRE_KERNELS_OPS_H_
#define CADRE_KERNELS_OPS_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "absl/status/status.h"
#include "kernels/capacity.h"
#include "kernels/check.h"
#include "kernels/view.h"

namespace cadre {

inline constexpr int32_t kPadding = std::numeric_limits<int32_t>::min();

// Where each row's keys and values are.
struct PagedKv {
  ConstView k_cache;       // [num_blocks, G, B, d] f32, bf16 or f16
  ConstView v_cache;       // [num_blocks, G, B, d] like k_cache
  ConstView block_tables;  // [S, max_blocks] i32: block of positions [i*B, (i+1)*B) of a sequence
  ConstView row_sequence;  // [T] i32: the sequence of each row, or kPadding
  ConstView positions;     // [T] i32: the position of each row in its sequence
};

struct AttentionOptions {
  float scale = 0.0f;          // multiplies q.k; usually 1/sqrt(d)
  int64_t sliding_window = 0;  // w > 0: position j is visible to i iff 0 <= i - j < w; 0: all of the past
};

enum class RouterScore { kSoftmax, kSigmoid, kIdentity };
// How a group of experts is scored when only the best groups may be chosen from.
enum class GroupScore { kMax, kTop2Sum };
// Which rows of prompts experts choose themselves (Zhou et al. 2022).
struct ExpertChoiceOptions {
  int64_t group = 0;    // positions of a sequence that experts choose from
  double factor = 0.0;  // rows of an expert as a multiple of its even share: min(n, max(1, ceil(factor * n / E))) of n
};
// What happens to the weights of the K chosen experts.
enum class WeightNorm {
  kNone,     // w = s[idx]
  kSum,      // w / (sum(w) + norm_epsilon)
  kSoftmax,  // softmax over the K chosen logits
  kUniform,  // one over the number of the chosen
};

// The one parameterized router; engine/model/model_config.h says which family uses which setting.
struct RouterOptions {
  int64_t top_k = 0;
  RouterScore score = RouterScore::kSoftmax;
  WeightNorm norm = WeightNorm::kNone;
  float norm_epsilon = 0.0f;
  float scaling_factor = 1.0f;  // multiplies the weights last
  int64_t num_groups = 1;       // > 1: E is divided into equal groups, and only the best groups are chosen from
  int64_t num_kept_groups = 1;
  GroupScore group_score = GroupScore::kMax;
  // > 0: a row chooses no more than it needs for its gate probabilities to add up to top_p, but min_k experts at least
  // and top_k at most (Huang et al. 2024). What it does not use of its K places is kPadding with the weight 0.
  float top_p = 0.0f;
  // > 0: a row chooses the experts whose gate probability is at least so much, within the same bounds. Excludes top_p.
  float threshold = 0.0f;
  int64_t min_k = 1;
  // > 0: a row has no more than max_choice experts, of its K places; 0: K.
  int64_t max_choice = 0;
  // > 0: LimitCapacity reroutes to the so many best experts behind the K best alone; 0: to any.
  int64_t spill_over = 0;
};

// Whose choice of experts a row takes.
enum class RowReplay : int32_t {
  kNone,             // the router's
  kRouterWeights,    // a recorded one, with the weights that the router gives those experts now
  kRecordedWeights,  // a recorded one, with its weights
};
struct RecordedChoices {
  ConstView modes;       // [T] i32 RowReplay
  ConstView expert_ids;  // [T, K] i32: an expert once; kPadding behind the last one of a row that has fewer than K
  ConstView weights;     // [T, K]: read of rows with kRecordedWeights, 0 where there is no expert
};

// The matrices of one gated MLP: down( silu(gate x) * (up x) ).
struct MlpWeights {
  ConstView gate;  // [F, D]
  ConstView up;    // [F, D]
  ConstView down;  // [D, F]
};

// Sums over the rows of a step for one MoE layer; verbs add to them.
struct RoutingTally {
  View assignments;           // [E] i64: assignments per expert
  View gate_weight;           // [E] f64: sum of the routing weights
  View probability;           // [E] f64: sum over rows of the gate probability
  View squared_log_sum_exp;   // [1] f64: sum over rows of logsumexp(z)^2
  View sequence_assignments;  // [S] i64: assignments per sequence of the step
  View row_assignments;       // [1] i64: assignments of all rows, counted by row
  View sequence_gate_weight;  // [S] f64: sum of their routing weights
};

struct CapacityInputs {
  ConstView sequences;     // [S, SequenceCapacity] i32
  ConstView row_sequence;  // [T] i32
  ConstView positions;     // [T] i32
};
// The rows whose assignments are limited, in place.
struct LimitedRows {
  View expert_ids;      // [T, K] i32: where the assignment goes now; kPadding for one that is lost
  View weights;         // [T, K]: 0 for one that is lost
  View states;          // [T, K] i32 AssignmentState, or kPadding where nothing was chosen; output only
  View expert_outputs;  // [A, D]: zeros where an assignment is lost, for Combine; nothing else is written
};
// What became of all assignments of one MoE layer; verbs add to them. A lost assignment is counted where it was lost.
struct CapacityTally {
  View states;                     // [4, E] i64: assignments by AssignmentState
  View lost_gate_weight;           // [E] f64: sum of the weights of lost assignments, as the router weighed them
  View sequence_states;            // [S, 4] i64
  View sequence_lost_gate_weight;  // [S] f64: of lost assignments
};

// How one row chooses its token: engine/sample/README.md has the chain. Lists and masks are in a buffer beside the
// rows, of 32-bit words, by the index of their first word.
struct SampleRow {
  uint64_t draw = 0;         // the uniform number of the draw is draw * 2^-53
  int32_t is_wanted = 0;     // 0: nothing is chosen, and nothing is written of the row
  float temperature = 1.0f;  // 0: greedy
  float top_p = 1.0f;        // (0, 1]
  float min_p = 0.0f;        // [0, 1]
  int32_t top_k = 0;         // 0: off
  float repetition_penalty = 1.0f;
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  int32_t mask = -1;              // [ceil(V / 32)] words, bits of the tokens that may be chosen, lowest first; -1: all
  int32_t edits = 0;              // SampleEdits: num_forbidden, then num_biased, then num_seen
  int32_t num_forbidden = 0;      // tokens that become -inf
  int32_t num_biased = 0;         // value is added
  int32_t num_seen = 0;           // penalized; value is how often it was generated
  int32_t num_alternatives = -1;  // most likely tokens to describe beside the chosen one; -1: nothing is described
};
inline constexpr int64_t kSampleRowWords = sizeof(SampleRow) / sizeof(int32_t);
// One logit that is changed; a list names a token once.
struct SampleEdit {
  int32_t token = 0;
  float value = 0.0f;
  float before = 0.0f;  // the verb's own
};
inline constexpr int64_t kMaxAlternatives = 20;
// What stands where a token was not chosen.
inline constexpr int32_t kSampledNan = -1;      // the row has a logit that is not a number
inline constexpr int32_t kSampledNothing = -2;  // all logits are -inf

// Where a token id stands: the token that Sample chooses for row `row`, which the host does not know yet.
constexpr int32_t SampledAt(int32_t row) { return -1 - row; }

struct SampleOutputs {
  View tokens;        // [R] i32
  View ranks;         // [R] i32: 1 + the tokens that are more likely; of described rows, as all below
  View logprobs;      // [R, 1 + kMaxAlternatives]: of the token, then of the alternatives
  View alternatives;  // [R, kMaxAlternatives] i32, the most likely first; behind min(V, num_alternatives): nothing
};

// Upper bounds of every shape an engine will use, for scratch memory that is allocated once.
struct OpsLimits {
  int64_t max_tokens = 0;         // T
  int64_t hidden_size = 0;        // D
  int64_t max_linear_inputs = 0;  // largest K dimension of a Linear
  int64_t num_heads = 0;          // H
  int64_t head_dim = 0;           // d
  int64_t max_positions = 0;      // longest sequence
  int64_t num_experts = 0;        // E
  int64_t top_k = 0;              // K
  int64_t max_ffn_size = 0;       // largest F of any MLP, shared and dense ones included
};

class Ops {
 public:
  virtual ~Ops() = default;

  // Bytes of scratch that Reserve will take for `limits`, for the memory plan.
  virtual size_t ScratchBytes(const OpsLimits& limits) const = 0;
  // Allocates all scratch; must be called once before the verbs below. RESOURCE_EXHAUSTED when it does not fit.
  virtual absl::Status Reserve(const OpsLimits& limits) = 0;

  // Whether Linear, ExpertFfn and GatedMlp take weights of `dtype`.
  virtual bool can_multiply(DType dtype) const { return IsFloat(dtype); }

  // out[i] = table[rows[i]], converted to float32; zeros for kPadding. Also the token embedding.
  virtual void GatherRows(View out /*[R, D]*/, ConstView table /*[N, D] any float*/, ConstView rows /*[R] i32*/) = 0;

  // out = x * rsqrt(mean(x^2) + epsilon) * weight over the last dimension. In place when out is x.
  virtual void RmsNorm(View out /*[N, D]*/, ConstView x /*[N, D]*/, ConstView weight /*[D] any float*/,
                       float epsilon) = 0;

  // out = x W^T + bias, or out += x W^T (+ bias) when `accumulate`.
  virtual void Linear(View out /*[T, N]*/, ConstView x /*[T, K]*/, ConstView weight /*[N, K]*/,
                      ConstView bias /*[N] any float, or empty*/, bool accumulate) = 0;

  // x = clamp(x, -limit, limit), in place.
  virtual void Clamp(View x, float limit) = 0;

  // cos/sin of positions[t] * inverse_frequencies[i], times `amplitude`; once a step, shared by all layers.
  virtual void RopeTable(View cos /*[T, r/2]*/, View sin /*[T, r/2]*/, ConstView positions /*[T] i32*/,
                         ConstView inverse_frequencies /*[r/2]*/, float amplitude) = 0;
  // Rotates pairs (i, i + r/2) of the first r dimensions of every head, in place ("NeoX" order; Su et al. 2021).
  virtual void Rope(View x /*[T, H, d]*/, ConstView cos /*[T, r/2]*/, ConstView sin /*[T, r/2]*/) = 0;

  // Stores each row's key and value at slot = block * B + offset, rounded to the cache's dtype; nothing for kPadding.
  virtual void WriteKv(View k_cache /*[num_blocks, G, B, d]*/, View v_cache, ConstView k /*[T, G, d]*/,
                       ConstView v /*[T, G, d]*/, ConstView slots /*[T] i32*/) = 0;
  // Causal attention of every row over positions 0..positions[t] of its sequence (the row's own key included, which
  // WriteKv has stored). Query head h reads kv head h / (H / G). The order of summation is by position alone.
  virtual void PagedAttention(View out /*[T, H, d]*/, ConstView q /*[T, H, d]*/, const PagedKv& kv,
                              const AttentionOptions& options) = 0;

  // Chooses K experts per row: s = score(z); c = s + selection_bias; top-K of c (ties: lowest id first, ids in order of
  // falling c); weights from s. `probabilities` is the gate distribution for statistics: softmax(z) for kSoftmax and
  // kIdentity, s / sum(s) for kSigmoid. A row whose sequence is kPadding chooses kPadding K times; the rest is zeros.
  // With options.top_p or options.threshold, a row may choose fewer than K.
  virtual void RouteTopK(View expert_ids /*[T, K] i32*/, View weights /*[T, K]*/, View probabilities /*[T, E]*/,
                         View log_sum_exp /*[T]*/, ConstView logits /*[T, E]*/,
                         ConstView selection_bias /*[E] f32, or empty*/, ConstView row_sequence /*[T] i32, or empty*/,
                         const RouterOptions& options) = 0;
  // In place: logits[t, e] += deviation * n, n of N(0, 1) from a draw (kernels/philox.h) that depends on the seed of
  // the row's sequence, its position, the layer and the expert alone. Nothing for rows of kPadding.
  virtual void AddGateNoise(View logits /*[T, E]*/, ConstView seeds /*[S, 2] i32: words, the low one first*/,
                            ConstView row_sequence /*[T] i32*/, ConstView positions /*[T] i32*/, int64_t layer,
                            float deviation) = 0;
  // logits[t, e] = a number of [0, 1) that depends on the row's token, the layer, the expert and the seed alone.
  virtual void HashLogits(View logits /*[T, E]*/, ConstView token_ids /*[T] i32*/, int64_t layer, uint64_t seed) = 0;
  // What RouteTopK chose for rows of prompts gives way: of the rows of a sequence at positions [i * group, (i + 1) *
  // group) below its prompt length, which are all in the call or none, each expert takes those where its probability is
  // highest (ties: the lowest position first). Weights are probabilities times options.scaling_factor. A row that more
  // than K experts take keeps the best K; one that none takes has none. An exception to the contract above, as
  // LimitCapacity: a row depends on the rows of its group.
  virtual void ChooseByExpert(View expert_ids /*[T, K] i32*/, View weights /*[T, K]*/,
                              ConstView probabilities /*[T, E]*/, ConstView row_sequence /*[T] i32*/,
                              ConstView positions /*[T] i32*/, ConstView prompt_lengths /*[S] i32*/,
                              const ExpertChoiceOptions& choice, const RouterOptions& options) = 0;
  // Recorded choices take the place of what was chosen, in rows that have one: the experts are the recorded ones, in
  // the recorded order. With kRouterWeights, they have the weights that RouteTopK would have given them: the scores of
  // the logits, normalized over these experts and times options.scaling_factor. Other rows, and `probabilities`, stay.
  virtual void ReplayChoices(View expert_ids /*[T, K] i32*/, View weights /*[T, K]*/, ConstView logits /*[T, E]*/,
                             ConstView probabilities /*[T, E]*/, const RecordedChoices& recorded,
                             const RouterOptions& options) = 0;
  // Rows of kPadding are not counted, nor are places that a row did not use.
  virtual void TallyRouting(const RoutingTally& tally, ConstView expert_ids /*[T, K] i32*/,
                            ConstView weights /*[T, K]*/, ConstView probabilities /*[T, E]*/,
                            ConstView log_sum_exp /*[T]*/, ConstView row_sequence /*[T] i32*/) = 0;
  // Whether LimitCapacity is there.
  virtual bool can_limit_capacity() const { return false; }
  // Takes a place of its expert for every assignment that RouteTopK chose, while there are any; `overflow` says what
  // becomes of the others. An exception to the contract above, and its reason: with kRequest a row depends on the rows
  // of its own group too, and with kBatch on all rows of the call.
  //
  // kRequest: rows of a sequence take places in order of position, over any number of calls; a row's assignments in the
  // order of j, and only then are those without a place rerouted, in the same order. taken[slot] counts them, from 0 on
  // at every position that is a multiple of `group`. kBatch: all assignments of the call in order of falling weight,
  // then of row, then of j; those without a place are rerouted in the same order, when all others have theirs.
  //
  // The weight of a rerouted assignment is the expert's own, normalized as the row's first choice was; with kUniform,
  // that of its other experts. An expert whose
  // logit is -inf or not a number, or that is outside of the kept groups, is no way out. Without one, or with kReweight
  // and no positive weight left in the row, an assignment is dropped. REQUIRES: can_limit_capacity().
  virtual void LimitCapacity(const LimitedRows& /*rows*/, View /*taken [slots, E] i32, in place*/,
                             const CapacityTally& /*tally*/, const CapacityInputs& /*inputs*/,
                             ConstView /*logits [T, E]*/, ConstView /*probabilities [T, E]*/,
                             ConstView /*selection_bias [E] f32, or empty*/, const RouterOptions& /*options*/) {
    CADRE_CHECK(false);
  }
  // Sorts assignments by expert, stably: those of expert e are order[offsets[e]..offsets[e+1]). Assignments to kPadding
  // are left out: order[offsets[E]..A) is not written.
  virtual void GroupByExpert(View order /*[A] i32*/, View offsets /*[E + 1] i32*/,
                             ConstView expert_ids /*[T, K] i32*/) = 0;

  // y[a] = experts[e](x[a / K]) for the assignments a of every expert e whose matrices are present; rows of absent
  // experts (empty views) are left alone.
  virtual void ExpertFfn(View y /*[A, D]*/, ConstView x /*[T, D]*/, ConstView order /*[A] i32*/,
                         ConstView offsets /*[E + 1] i32*/, std::span<const MlpWeights> experts /*[E]*/) = 0;
  // The experts of a layer lie where `experts` says now: what was recorded of ExpertFfn with this very span reads them
  // there from here on. The others need no such call. REQUIRES: ExpertFfn has run with the span, and shapes and types
  // are what they were then.
  virtual void PlaceExperts(std::span<const MlpWeights> /*experts [E]*/) {}
  // x[t] += sum over j of weights[t, j] * y[t * K + j], in the order of j. Where a weight is 0, y is not read.
  virtual void Combine(View x /*[T, D]*/, ConstView y /*[A, D]*/, ConstView weights /*[T, K]*/) = 0;

  // out = down( silu(gate x) * (up x) ): shared experts and dense layers.
  virtual void GatedMlp(View out /*[T, D]*/, ConstView x /*[T, D]*/, const MlpWeights& weights) = 0;
  // x += y, or x += sigmoid(gate_logits[t]) * y[t] when gate logits are given.
  virtual void AddGated(View x /*[T, D]*/, ConstView y /*[T, D]*/, ConstView gate_logits /*[T, 1], or empty*/) = 0;

  // Whether Sample is there for rows of `vocab_size` logits: where the host has the logits at hand, engine/sample does
  // it better.
  virtual bool can_sample(int64_t /*vocab_size*/) const { return false; }
  // Chooses a token for every row that wants one, as engine/sample does: masks, bias and penalties give the same logits
  // to the bit, greedy and the cut of top_k the same tokens; weights are good to 2^-22 of themselves or 2^-44 of the
  // largest, so that near the edge of a draw, of top_p or of min_p another token may be chosen than by the host. Log
  // probabilities, in float, are of the logits as they came. `logits` are changed and changed back.
  // REQUIRES: can_sample(V).
  virtual void Sample(const SampleOutputs& /*out*/, View /*logits [R, V]*/, ConstView /*rows [R, SampleRow] i32*/,
                      View /*extras [N] i32*/) {
    CADRE_CHECK(false);
  }
  // Puts sampled[r] where SampledAt(r) stands; token 0 if Sample chose none for that row: what is computed of it is
  // nobody's, because the row's error ends its sequence. Other ids stay. `sampled` is the tokens that Sample wrote in
  // the step before. REQUIRES: can_sample(V).
  virtual void FillSampledTokens(View /*token_ids [T] i32*/, ConstView /*sampled [N] i32*/) { CADRE_CHECK(false); }
};

}  // namespace cadre

#endif  // CADRE_KERNELS_OPS_H_
