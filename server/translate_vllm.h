// Requests of vllm.grpc.engine.VllmEngine as requests of cadre.v1, so that both go the same way from there on.
#ifndef CADRE_SERVER_TRANSLATE_VLLM_H_
#define CADRE_SERVER_TRANSLATE_VLLM_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "cadre/v1/generation_service.pb.h"
#include "vllm/grpc/engine/vllm_engine.pb.h"

namespace cadre {

namespace vllm_api = vllm::grpc::engine;

// Limits are left to the translation of `request`; what that protocol says of zeros is not. UNIMPLEMENTED names every
// field that is set and not supported, and by its number one that the proto does not know; INVALID_ARGUMENT a value
// that cadre.v1 cannot say.
absl::Status TranslateVllmRequest(const vllm_api::GenerateRequest& wire, v1::GenerateRequest* request);

// What that protocol calls a field of GenerateRequest: "sampling_params.stop[2]" for "stopping.stop_strings[2]".
std::string VllmFieldName(std::string_view field);

}  // namespace cadre

#endif  // CADRE_SERVER_TRANSLATE_VLLM_H_
