// How the tokens of one request are chosen, and when it ends. Validated before it gets here.
#ifndef CADRE_ENGINE_REQUEST_SAMPLING_PARAMS_H_
#define CADRE_ENGINE_REQUEST_SAMPLING_PARAMS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace cadre {

struct SamplingParams {
  int32_t max_tokens = 16;   // >= 1
  float temperature = 1.0f;  // 0: greedy
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;        // (0, 1]
  float min_p = 0.0f;        // [0, 1]: keeps tokens with p >= min_p * p_max
  uint64_t seed = 0;         // token i of a request depends on (seed, i) and its logits alone
  std::vector<std::string> stop_strings;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop_string = false;
  bool skip_special_tokens = true;

  bool operator==(const SamplingParams&) const = default;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_REQUEST_SAMPLING_PARAMS_H_
