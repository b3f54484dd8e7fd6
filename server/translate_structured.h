// The wire's StructuredOutput becomes a constraint of the engine.
#ifndef CADRE_SERVER_TRANSLATE_STRUCTURED_H_
#define CADRE_SERVER_TRANSLATE_STRUCTURED_H_

#include "absl/status/status.h"
#include "cadre/v1/generation_service.pb.h"
#include "engine/request/request.h"
#include "engine/structured/constraint_cache.h"

namespace cadre {

// Sets `request->constraint` when `wire` has structured_output. Compiles, unless `cache` knows the constraint: not for
// threads that others wait for. INVALID_ARGUMENT names the field, and the place in a JSON schema; UNIMPLEMENTED names
// what of a schema is not supported, or the model's tokenizer.
absl::Status TranslateStructuredOutput(const v1::GenerateRequest& wire, ConstraintCache* cache, Request* request);

}  // namespace cadre

#endif  // CADRE_SERVER_TRANSLATE_STRUCTURED_H_
