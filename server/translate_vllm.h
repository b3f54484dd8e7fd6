// Requests of vllm.grpc.engine.VllmEngine as requests of cadre.v1, so that both go the same way from there on.
#ifndef CADRE_SERVER_TRANSLATE_VLLM_H_
#define CADRE_SERVER_TRANSLATE_VLLM_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "cadre/v1/generation_service.pb.h"
#include "vllm/grpc/engine/vllm_engine.pb.h"

namespace cadre {

namespace vllm_api = vllm::grpc::engine;

// Of fields that are not supported, an error names so many.
inline constexpr size_t kMaxUnsupportedNames = 16;

// Limits are left to the translation of `request`; what that protocol says of zeros is not. UNIMPLEMENTED names the
// fields that are set and not supported, up to kMaxUnsupportedNames, and by its number one that the proto does not
// know; INVALID_ARGUMENT a value that cadre.v1 cannot say. Texts and lists are moved out of `wire` where both protos
// have them in the same form, so that a large request is not held twice.
absl::Status TranslateVllmRequest(vllm_api::GenerateRequest wire, v1::GenerateRequest* request);

// What that protocol calls a field of GenerateRequest: "sampling_params.stop[2]" for "stopping.stop_strings[2]".
std::string VllmFieldName(std::string_view field);

}  // namespace cadre

#endif  // CADRE_SERVER_TRANSLATE_VLLM_H_
