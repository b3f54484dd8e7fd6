// One step as flat arrays: what the scheduler decided, in the shape the device wants. Values, no behavior.
#ifndef CADRE_ENGINE_MODEL_FORWARD_BATCH_H_
#define CADRE_ENGINE_MODEL_FORWARD_BATCH_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "engine/experts/step_routing.h"
#include "engine/model/step_faults.h"
#include "kernels/ops.h"

namespace cadre {

// Choices of experts that take the place of the router's. Empty in a step without any.
struct RecordedRows {
  std::vector<RowReplay> modes;     // [T]
  std::vector<int32_t> expert_ids;  // [num_layers, T, K], kPadding where there is none
  std::vector<float> weights;       // [num_layers, T, K], read where modes say so
};

// T token rows of S sequences. Rows of one sequence stand together, in rising position.
struct ForwardBatch {
  std::vector<int32_t> token_ids;     // [T]; SampledAt(r) is what the step in front samples for its row of logits r
  std::vector<int32_t> positions;     // [T]
  std::vector<int32_t> row_sequence;  // [T] index into the step's sequences
  std::vector<int32_t> kv_slots;      // [T] block * B + offset: where the row's key and value go
  std::vector<int32_t> block_tables;  // [S, max_blocks] row-major, padded with 0
  std::vector<int32_t> logit_rows;    // [R] rows whose logits are wanted, rising
  int32_t num_sequences = 0;          // S
  int32_t max_blocks = 0;             // columns of block_tables
  // How rows of logits become tokens on the device: one for each of logit_rows, or none at all. The logits of rows that
  // do not want it come to the host.
  std::vector<SampleRow> sample_rows;
  std::vector<int32_t> sample_extras;      // what they refer to
  std::vector<SequenceCapacity> capacity;  // [S] whose experts take so much and no more; empty: nobody is limited
  std::vector<uint64_t> seeds;             // [S] of the requests; empty where the router draws nothing
  std::vector<int32_t> prompt_lengths;     // [S] tokens; empty where the router does not ask
  RecordedRows recorded;
  bool keep_expert_ids = false;  // also return where the assignments went
  bool keep_choices = false;     // also return what the router chose

  int32_t num_tokens() const { return static_cast<int32_t>(token_ids.size()); }
};

// Of all rows of logits, also of those that did not want a token, whose entries mean nothing. Shapes and values are
// those of SampleOutputs in kernels/ops.h.
struct SampledRows {
  std::vector<int32_t> tokens;
  std::vector<int32_t> ranks;
  std::vector<float> logprobs;
  std::vector<int32_t> alternatives;
};

// What one step computed.
struct ForwardResult {
  std::vector<float> logits;  // [rows that the device did not sample, V] row-major
  SampledRows sampled;        // empty without sample_rows
  StepRouting routing;
  std::vector<int32_t> expert_ids;  // [num_layers, T, K] when asked for; kPadding where an assignment was lost
  // The choices of the router, before any limit, when asked for: [num_layers, T, K].
  std::vector<int32_t> chosen_ids;
  std::vector<float> chosen_weights;
  // Sequences that went without an expert which could not be read. Their assignments to it are counted as dropped.
  std::vector<SequenceFault> faults;
  // [S] of the expert cache; empty where there is none, or where nobody counts.
  std::vector<ExpertCacheUse> cache_uses;
  absl::Duration expert_wait;  // the step stood still for so long for experts that were read
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_FORWARD_BATCH_H_
