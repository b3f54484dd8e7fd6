#include "server/admission.h"

#include <grpcpp/support/byte_buffer.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "server/errors.h"
#include "server/field_support.h"
#include "server/request_limits.h"
#include "server/request_log.h"
#include "server/translate.h"
#include "server/translate_capacity.h"
#include "server/translate_structured.h"
#include "server/wire.h"

namespace cadre {
namespace {

// Requests up to this size are tokenized on the thread that received them: a few milliseconds at most.
constexpr size_t kMaxInlineBytes = 16 << 10;

absl::Status DeadlinePassed() {
  return MakeError({.code = absl::StatusCode::kDeadlineExceeded,
                    .reason = reason::kDeadlineExceeded,
                    .message = "the deadline had passed before the request was read"});
}

// The tenant is whose key the caller has shown. Without keys it is whom the request names.
absl::Status SetTenant(const TokenStream& stream, Request* request) {
  if (stream.caller().empty()) return absl::OkStatus();
  if (!request->tenant.empty() && request->tenant != stream.caller()) {
    std::string description = absl::StrCat(Excerpt(request->tenant),
                                           " is not the name of the caller's key: leave it "
                                           "unset, or set it to ",
                                           stream.caller());
    return MakeError({.code = absl::StatusCode::kPermissionDenied,
                      .reason = reason::kTenantRefused,
                      .message = absl::StrCat("scheduling.tenant: ", description),
                      .violations = {{"scheduling.tenant", description}}});
  }
  request->tenant = stream.caller();
  return absl::OkStatus();
}

// Whose request it is said to be, before anything about that is checked.
std::string TenantOf(const v1::GenerateRequest& wire, const TokenStream& stream) {
  return (stream.caller().empty() ? wire.scheduling().tenant() : stream.caller()).substr(0, kMaxLabelBytes);
}

// Before the prompt is tokenized, which costs more.
absl::Status TakeTicket(const ServiceContext& context, const v1::GenerateRequest& wire, TokenStream& stream) {
  if (context.tenants == nullptr) return absl::OkStatus();
  CADRE_ASSIGN_OR_RETURN(auto ticket, context.tenants->Admit(TenantOf(wire, stream), context.host->clock().Now()));
  stream.SetTicket(std::move(ticket));
  return absl::OkStatus();
}

// Everything up to Engine::Submit, in order of cost.
absl::Status CheckAndSubmit(const ServiceContext& context, const std::shared_ptr<TokenStream>& stream,
                            const v1::GenerateRequest& wire, AnswerKind kind, std::string request_id) {
  CADRE_ASSIGN_OR_RETURN(const std::shared_ptr<const ServedText> model, context.host->Admit());
  if (stream->deadline() <= context.host->clock().Now()) return DeadlinePassed();
  CADRE_RETURN_IF_ERROR(context.host->CheckName(wire.model()));
  CADRE_RETURN_IF_ERROR(RefuseUnsupportedFields(wire));
  CADRE_RETURN_IF_ERROR(TakeTicket(context, wire, *stream));
  CADRE_ASSIGN_OR_RETURN(Request request, TranslateRequest(wire, model->card, *model->tokenizer, model->chat, kind));
  CADRE_RETURN_IF_ERROR(SetTenant(*stream, &request));
  if (wire.scheduling().has_capacity()) {
    // By the engine, within Submit: an operator may change the policy until then.
    request.choose_capacity = [&wire](const CapacityPolicy& own) {
      return TranslateCapacity(wire.scheduling().capacity(), own, "scheduling.capacity");
    };
  }
  CADRE_RETURN_IF_ERROR(TranslateStructuredOutput(wire, model->constraints.get(), &request));
  stream->SetFacts({.request_id = request_id,
                    .model = model->card.name,
                    .seed = request.sampling.seed,
                    .prompt_tokens = std::ssize(request.prompt),
                    .num_sequences = request.num_sequences,
                    .has_token_bytes = wire.output().token_bytes(),
                    .tokenizer = {model, model->tokenizer.get()}});
  request.id = std::move(request_id);
  request.arrival = stream->arrival();
  request.deadline = stream->deadline();
  request.cancel = stream->cancel_flag();
  request.sink = stream;
  return context.host->Submit(std::move(request));
}

void Refuse(const ServiceContext& context, TokenStream& stream, const absl::Status& status) {
  if (spdlog::should_log(spdlog::level::debug)) {
    LogRequest(spdlog::level::debug, stream.labels(), absl::StrCat(" refused: ", status.message()));
  }
  if (context.metrics != nullptr) context.metrics->OnRejected(ClassifyRejection(status));
  stream.Reject(status);
}

// A request that nobody has read.
void RefuseUnread(const ServiceContext& context, TokenStream& stream, std::string_view metadata_id,
                  const absl::Status& status) {
  stream.SetRequestId(*ChooseRequestId("", metadata_id));
  stream.SetTenant(stream.caller());
  Refuse(context, stream, status);
}

// Whether a request that had to wait is still worth reading.
absl::Status CheckStillWanted(const ServiceContext& context, const TokenStream& stream) {
  if (stream.cancel_flag()->cancelled()) {
    return MakeError(
        {.code = absl::StatusCode::kCancelled, .reason = reason::kCancelled, .message = "cancelled by the client"});
  }
  if (stream.deadline() <= context.host->clock().Now()) return DeadlinePassed();
  return context.host->Admit().status();
}

// Whether a request may take long to admit, whatever its size: a schema or an expression is compiled, or a template
// goes through many messages.
bool MayTakeLong(const v1::GenerateRequest& wire) {
  return wire.has_structured_output() || wire.chat().messages_size() > kMaxInlineMessages;
}

// `status`: whether `request` could be read.
void Admit(const ServiceContext& context, const std::shared_ptr<TokenStream>& stream, const IncomingRequest& request,
           absl::Status status, std::string_view metadata_id) {
  absl::StatusOr<std::string> id = ChooseRequestId(request.wire.request_id(), metadata_id);
  if (status.ok()) status = id.status();
  if (!id.ok()) id = ChooseRequestId("", metadata_id);
  stream->SetRequestId(*id);
  stream->SetTenant(TenantOf(request.wire, *stream));
  if (status.ok()) status = CheckAndSubmit(context, stream, request.wire, request.kind, *id);
  if (status.ok()) {
    stream->Queued();
  } else {
    Refuse(context, *stream, status);
  }
}

}  // namespace

RequestReader ReadsOwnApi(AnswerKind kind) {
  return [kind](const grpc::ByteBuffer& bytes, IncomingRequest* request) {
    request->kind = kind;
    return ParseMessage(bytes, &request->wire);
  };
}

void RefuseUnreadCall(const ServiceContext& context, TokenStream& stream, std::string_view metadata_id,
                      const absl::Status& status) {
  if (context.metrics != nullptr) context.metrics->OnReceived();
  RefuseUnread(context, stream, metadata_id, status);
}

void AdmitRequest(const ServiceContext& context, const std::shared_ptr<TokenStream>& stream,
                  const grpc::ByteBuffer& bytes, const RequestReader& read, const std::string& metadata_id) {
  if (context.metrics != nullptr) context.metrics->OnReceived();
  // The call ended before its request came, which says nothing against the request.
  if (!bytes.Valid() && stream->IsAtDeadline()) {
    RefuseUnread(context, *stream, metadata_id, DeadlinePassed());
    return;
  }
  if (!bytes.Valid() && stream->was_aborted()) {
    RefuseUnread(context, *stream, metadata_id, absl::CancelledError("aborted before the request had come"));
    return;
  }
  const auto charge = ChargeReading(context, bytes.Length());
  if (!charge.ok()) {
    RefuseUnread(context, *stream, metadata_id, charge.status());
    return;
  }
  if (bytes.Length() <= kMaxInlineBytes) {
    IncomingRequest request;
    absl::Status status = read(bytes, &request);
    if (!MayTakeLong(request.wire)) {
      Admit(context, stream, request, std::move(status), metadata_id);
      return;
    }
  }
  const bool is_posted = context.work_queue->Post([context, stream, bytes, read, metadata_id, charge = *charge] {
    if (const absl::Status status = CheckStillWanted(context, *stream); !status.ok()) {
      RefuseUnread(context, *stream, metadata_id, status);
    } else {
      IncomingRequest request;
      absl::Status status_of_bytes = read(bytes, &request);
      Admit(context, stream, request, std::move(status_of_bytes), metadata_id);
    }
  });
  if (is_posted) return;
  RefuseUnread(context, *stream, metadata_id,
               MakeError({.code = absl::StatusCode::kResourceExhausted,
                          .reason = reason::kQueueFull,
                          .message = "too many long prompts and schemas wait to be read",
                          .retry_delay = context.host->RetryDelay()}));
}

RejectReason ClassifyRejection(const absl::Status& status) {
  if (ErrorReason(status) == reason::kDeadlineUnreachable) return RejectReason::kDeadlineUnreachable;
  if (ErrorReason(status) == reason::kTenantQueueFull) return RejectReason::kTenantQueueFull;
  if (ErrorReason(status) == reason::kTenantRateLimit || ErrorReason(status) == reason::kTenantConcurrencyLimit) {
    return RejectReason::kTenantLimit;
  }
  if (ErrorReason(status) == reason::kMemoryPressure) return RejectReason::kMemoryPressure;
  switch (status.code()) {
    case absl::StatusCode::kUnimplemented:
      return RejectReason::kUnsupported;
    case absl::StatusCode::kNotFound:
      return RejectReason::kNotFound;
    case absl::StatusCode::kResourceExhausted:
      return RejectReason::kQueueFull;
    case absl::StatusCode::kUnavailable:
      return RejectReason::kNotServing;
    case absl::StatusCode::kDeadlineExceeded:
      return RejectReason::kDeadline;
    case absl::StatusCode::kCancelled:
      return RejectReason::kCancelled;
    default:
      return ErrorReason(status) == reason::kContextLengthExceeded ? RejectReason::kTooLarge : RejectReason::kInvalid;
  }
}

}  // namespace cadre
