// How the tokens of one request are chosen, and when it ends. Validated before it gets here.
#ifndef CADRE_ENGINE_REQUEST_SAMPLING_PARAMS_H_
#define CADRE_ENGINE_REQUEST_SAMPLING_PARAMS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace cadre {

struct LogitBias {
  int32_t token_id = 0;
  float bias = 0.0f;  // [-100, 100], added to the logit

  bool operator==(const LogitBias&) const = default;
};

struct SamplingParams {
  int32_t max_tokens = 16;                 // >= 1
  int32_t min_tokens = 0;                  // [0, max_tokens]: end and stop tokens are not chosen before
  float temperature = 1.0f;                // 0: greedy
  int32_t top_k = 0;                       // 0: off
  float top_p = 1.0f;                      // (0, 1]
  float min_p = 0.0f;                      // [0, 1]: keeps tokens with p >= min_p * p_max
  uint64_t seed = 0;                       // token i of sequence s depends on (seed, s, i) and its logits alone
  float presence_penalty = 0.0f;           // [-2, 2]
  float frequency_penalty = 0.0f;          // [-2, 2]
  float repetition_penalty = 1.0f;         // (0, 10]
  std::vector<LogitBias> logit_bias;       // by rising token id, each once
  std::vector<int32_t> allowed_token_ids;  // rising, each once; empty: all
  bool logprobs = false;                   // of each generated token
  int32_t top_logprobs = 0;                // alternatives beside it, [0, 20]
  std::vector<std::string> stop_strings;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop_string = false;
  bool skip_special_tokens = true;

  bool operator==(const SamplingParams&) const = default;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_REQUEST_SAMPLING_PARAMS_H_
