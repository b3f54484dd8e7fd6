#include "tests/bench/step_work.h"

#include <algorithm>

namespace cadre {

StepWork WorkOfStep(const ModelConfig& config, int64_t sequences, int64_t rows, int64_t context,
                    const StepRouting& routing) {
  constexpr double kBytesPerValue = 2.0;
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto q_width = static_cast<double>(config.num_heads * config.head_dim);
  const auto kv_width = static_cast<double>(config.num_kv_heads * config.head_dim);
  const double attention = hidden * (q_width + 2.0 * kv_width) + q_width * hidden;
  const double router = hidden * static_cast<double>(config.num_experts);
  const double expert = 3.0 * hidden * static_cast<double>(config.expert_ffn_size);
  const double shared = 3.0 * hidden * static_cast<double>(config.shared_expert_ffn_size);
  const double dense = 3.0 * hidden * static_cast<double>(config.dense_ffn_size);
  const double head = hidden * static_cast<double>(config.vocab_size);
  const auto num_layers = static_cast<double>(config.num_layers);
  const auto num_moe = static_cast<double>(config.num_moe_layers());
  const auto num_dense = num_layers - num_moe;
  const auto used_experts = static_cast<double>(std::count_if(routing.assignments.begin(), routing.assignments.end(),
                                                              [](int64_t assignments) { return assignments > 0; }));

  const auto num_sequences = static_cast<double>(sequences);
  const auto num_rows = static_cast<double>(sequences * rows);
  const double weights =
      num_layers * attention + num_moe * (router + shared) + used_experts * expert + num_dense * dense + head;
  const double kv_per_position = num_layers * 2.0 * kv_width;
  const double products = num_layers * attention +
                          num_moe * (router + shared + static_cast<double>(config.router.top_k) * expert) +
                          num_dense * dense;
  // Row i of a sequence sees context + i + 1 positions.
  const double seen = static_cast<double>(rows) * (static_cast<double>(context) + static_cast<double>(rows + 1) / 2.0);
  return {
      .bytes = kBytesPerValue * (weights + kv_per_position * num_sequences * static_cast<double>(context + rows)),
      .flops = 2.0 * (num_rows * products + num_sequences * head) + 4.0 * q_width * num_layers * num_sequences * seen};
}

}  // namespace cadre
