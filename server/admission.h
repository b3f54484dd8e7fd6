// From the bytes of a generation request to a request that the engine has accepted, or to the reason why not.
#ifndef CADRE_SERVER_ADMISSION_H_
#define CADRE_SERVER_ADMISSION_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "cadre/v1/generation_service.pb.h"
#include "server/metrics.h"
#include "server/services.h"
#include "server/token_stream.h"
#include "server/translate_sampling.h"

namespace grpc {
class ByteBuffer;
}

namespace cadre {

// A request as it came, in whatever API it was written.
struct IncomingRequest {
  v1::GenerateRequest wire;
  AnswerKind kind = AnswerKind::kStreamed;
};

// Makes one from bytes, or says what is wrong with them; what it found until then stands in the request. May be called
// twice with the same bytes, one call at a time, on any thread, also when the call is gone.
using RequestReader = std::function<absl::Status(const grpc::ByteBuffer&, IncomingRequest*)>;
// Of a GenerateRequest or GenerateTextRequest of cadre.v1, which are the same on the wire.
RequestReader ReadsOwnApi(AnswerKind kind);

// Reads, checks, tokenizes and submits; then tells `stream` that it is queued, or rejects it. `metadata_id` is the
// metadata's request id, or empty. Small requests are handled at once, large ones on the work queue.
void AdmitRequest(const ServiceContext& context, const std::shared_ptr<TokenStream>& stream,
                  const grpc::ByteBuffer& bytes, const RequestReader& read, const std::string& metadata_id);

// Refuses a request of which nothing was read.
void RefuseUnreadCall(const ServiceContext& context, TokenStream& stream, std::string_view metadata_id,
                      const absl::Status& status);

// What the metrics call an error of admission.
RejectReason ClassifyRejection(const absl::Status& status);

}  // namespace cadre

#endif  // CADRE_SERVER_ADMISSION_H_
