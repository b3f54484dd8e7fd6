#include "engine/request/request.h"

namespace cadre {

bool MayEndEarly(const Request& request, bool has_eos_tokens) {
  const SamplingParams& params = request.sampling;
  return (has_eos_tokens && !params.ignore_eos) || !params.stop_token_ids.empty() || !params.stop_strings.empty() ||
         request.constraint != nullptr;
}

}  // namespace cadre
