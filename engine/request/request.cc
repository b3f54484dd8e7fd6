#include "engine/request/request.h"

namespace cadre {

bool MayEndEarly(const Request& request, bool has_eos_tokens) {
  const SamplingParams& params = request.sampling;
  if (!params.stop_strings.empty() || request.constraint != nullptr) return true;
  const bool has_ending_token = (has_eos_tokens && !params.ignore_eos) || !params.stop_token_ids.empty();
  return has_ending_token && params.min_tokens < params.max_tokens;
}

}  // namespace cadre
