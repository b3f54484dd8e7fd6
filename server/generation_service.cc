#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cadre/v1/generation_service.grpc.pb.h"
#include "engine/base/status_macros.h"
#include "server/admission.h"
#include "server/call_alarm.h"
#include "server/errors.h"
#include "server/field_support.h"
#include "server/grpc_status.h"
#include "server/request_limits.h"
#include "server/services.h"
#include "server/translate.h"
#include "server/wire.h"

namespace cadre {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";

std::string MetadataRequestId(const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(kRequestIdKey);
  return found == metadata.end() ? std::string() : std::string(found->second.data(), found->second.size());
}

// The call's deadline on the engine's clock, which wall clock changes do not move. Far ones count as none.
absl::Time EngineDeadline(const grpc::CallbackServerContext& context, const Clock& clock) {
  constexpr absl::Duration kFar = absl::Hours(24 * 365);
  const absl::Duration left = absl::FromChrono(context.deadline()) - absl::Now();
  return left > kFar ? absl::InfiniteFuture() : clock.Now() + left;
}

// What both kinds of call do with metadata.
class CallMetadata {
 public:
  explicit CallMetadata(grpc::CallbackServerContext* context) : context_(*context) {}

  void SetRequestId(const std::string& id) { context_.AddInitialMetadata(kRequestIdKey, id); }

  void AddTrailers(const absl::Status& status, const std::optional<RequestTimings>& timings) {
    if (timings.has_value()) context_.AddTrailingMetadata("server-timing", ServerTiming(*timings));
    if (const auto delay = ErrorRetryDelay(status); delay.has_value()) {
      context_.AddTrailingMetadata("grpc-retry-pushback-ms", absl::StrCat(absl::ToInt64Milliseconds(*delay)));
    }
  }

 private:
  grpc::CallbackServerContext& context_;
};

// Generate. Deletes itself when gRPC is done with it.
class StreamCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer>, public ResponseWriter {
 public:
  StreamCall(const ServiceContext& services, grpc::CallbackServerContext* context, const grpc::ByteBuffer& request)
      : context_(*context),
        metadata_(context),
        stream_(std::make_shared<TokenStream>(this, services.host, services.metrics, services.stream,
                                              EngineDeadline(*context, services.host->clock()))) {
    AdmitRequest(services, stream_, request, AnswerKind::kStreamed, MetadataRequestId(*context));
  }

  void SetRequestId(const std::string& id) override { metadata_.SetRequestId(id); }
  void SendInitialMetadata() override { StartSendInitialMetadata(); }
  bool Write(const v1::GenerateResponse& event, bool more_follows) override {
    message_ = SerializeMessage(event);
    grpc::WriteOptions options;
    if (more_follows) options.set_buffer_hint();
    StartWrite(&message_, options);
    return false;
  }
  void WriteLast(const v1::GenerateResponse& event, const std::optional<RequestTimings>& timings) override {
    message_ = SerializeMessage(event);
    metadata_.AddTrailers(absl::OkStatus(), timings);
    StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
  }
  void Finish(const absl::Status& status, const std::optional<RequestTimings>& timings) override {
    metadata_.AddTrailers(status, timings);
    ServerWriteReactor::Finish(ToGrpcStatus(status));
  }
  void CutOffAfter(absl::Duration patience) override {
    cut_off_.Set(patience, [stream = stream_] { stream->CutOff(); });
  }
  void Cancel() override { context_.TryCancel(); }

  void OnWriteDone(bool ok) override { stream_->OnWriteDone(ok); }
  void OnCancel() override { stream_->OnCancel(); }
  void OnDone() override {
    stream_->Detach();
    delete this;
  }

 private:
  grpc::CallbackServerContext& context_;
  CallMetadata metadata_;
  grpc::ByteBuffer message_;  // in flight
  CallAlarm cut_off_;
  const std::shared_ptr<TokenStream> stream_;
};

// GenerateText. Deletes itself when gRPC is done with it.
class TextCall final : public grpc::ServerUnaryReactor, public ResponseWriter {
 public:
  TextCall(const ServiceContext& services, grpc::CallbackServerContext* context, const grpc::ByteBuffer& request,
           grpc::ByteBuffer* response)
      : work_queue_(*services.work_queue),
        metadata_(context),
        response_bytes_(response),
        stream_(std::make_shared<TokenStream>(this, services.host, services.metrics, services.stream,
                                              EngineDeadline(*context, services.host->clock()))) {
    AdmitRequest(services, stream_, request, AnswerKind::kCollected, MetadataRequestId(*context));
  }

  void SetRequestId(const std::string& id) override { metadata_.SetRequestId(id); }
  void SendInitialMetadata() override { StartSendInitialMetadata(); }
  bool Write(const v1::GenerateResponse& event, bool /*more_follows*/) override {
    Collect(event);
    return true;
  }
  void WriteLast(const v1::GenerateResponse& event, const std::optional<RequestTimings>& timings) override {
    Collect(event);
    Finish(absl::OkStatus(), timings);
  }
  void Finish(const absl::Status& status, const std::optional<RequestTimings>& timings) override {
    metadata_.AddTrailers(status, timings);
    const auto answer = [this, status] {
      if (status.ok()) *response_bytes_ = SerializeMessage(response_);
      ServerUnaryReactor::Finish(ToGrpcStatus(status));
    };
    // All streams share the thread that this may be; but an answer that is ready waits for nobody else's work.
    const bool may_wait =
        status.ok() && response_.ByteSizeLong() > kMaxInlineAnswerBytes && work_queue_.num_waiting() == 0;
    if (!may_wait || !work_queue_.Post(answer)) answer();
  }

  void OnCancel() override { stream_->OnCancel(); }
  void OnDone() override {
    stream_->Detach();
    delete this;
  }

 private:
  static constexpr size_t kMaxInlineAnswerBytes = 256 << 10;

  void Collect(const v1::GenerateResponse& event) {
    if (event.has_started()) {
      *response_.mutable_started() = event.started();
      return;
    }
    const int32_t index = event.has_delta() ? event.delta().index() : event.finished().index();
    while (response_.sequences_size() <= index) response_.add_sequences();
    v1::GeneratedSequence& sequence = *response_.mutable_sequences(index);
    if (event.has_delta()) {
      sequence.mutable_text()->append(event.delta().text());
      sequence.mutable_token_ids()->MergeFrom(event.delta().token_ids());
      sequence.mutable_details()->MergeFrom(event.delta().details());
    } else {
      *sequence.mutable_finished() = event.finished();
      sequence.mutable_text()->append(event.finished().text());
      sequence.mutable_finished()->clear_text();
    }
  }

  WorkQueue& work_queue_;
  CallMetadata metadata_;
  grpc::ByteBuffer* const response_bytes_;
  v1::GenerateTextResponse response_;
  const std::shared_ptr<TokenStream> stream_;
};

absl::Status Tokenize(const ServiceContext& services, const grpc::ByteBuffer& bytes, v1::TokenizeResponse* response) {
  v1::TokenizeRequest request;
  CADRE_RETURN_IF_ERROR(ParseMessage(bytes, &request));
  CADRE_ASSIGN_OR_RETURN(const std::shared_ptr<const ServedText> model, services.host->Text());
  CADRE_RETURN_IF_ERROR(services.host->CheckName(request.model()));
  CADRE_RETURN_IF_ERROR(RefuseUnsupportedFields(request));
  if (request.input_case() == v1::TokenizeRequest::INPUT_NOT_SET) {
    return InvalidField("input", "no text: set text or chat");
  }
  const Tokenizer& tokenizer = *model->tokenizer;
  CADRE_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                         request.has_chat() ? TokenizeChat(request.chat(), request.prompt(), model->chat, tokenizer)
                                            : TokenizeField(request.text(), request.prompt(), tokenizer));
  response->mutable_token_ids()->Assign(ids.begin(), ids.end());
  for (size_t i = 0; request.token_bytes() && i < ids.size(); ++i) {
    response->add_token_bytes(TokenBytes(ids[i], tokenizer, /*is_first=*/i == 0));
  }
  response->set_max_model_len(model->card.max_sequence_tokens());
  return absl::OkStatus();
}

absl::Status Detokenize(const ServiceContext& services, const grpc::ByteBuffer& bytes,
                        v1::DetokenizeResponse* response) {
  v1::DetokenizeRequest request;
  CADRE_RETURN_IF_ERROR(ParseMessage(bytes, &request));
  CADRE_ASSIGN_OR_RETURN(const std::shared_ptr<const ServedText> model, services.host->Text());
  CADRE_RETURN_IF_ERROR(services.host->CheckName(request.model()));
  CADRE_RETURN_IF_ERROR(RefuseUnsupportedFields(request));
  if (request.token_ids_size() > kMaxDetokenizeIds) {
    return InvalidField("token_ids", absl::StrCat(request.token_ids_size(), " ids, the limit is ", kMaxDetokenizeIds));
  }
  CADRE_RETURN_IF_ERROR(CheckTokenIds("token_ids", request.token_ids(), model->card.limits.vocab_size));
  const std::vector<int32_t> ids(request.token_ids().begin(), request.token_ids().end());
  const bool skip_special = request.has_skip_special_tokens() ? request.skip_special_tokens() : true;
  response->set_text(model->tokenizer->Decode(ids, skip_special));
  return absl::OkStatus();
}

// Whether a call that had to wait is still worth its work.
absl::Status CheckStillWanted(const ModelHost& host, const grpc::CallbackServerContext& context) {
  if (context.IsCancelled()) return absl::CancelledError("cancelled by the client, or its deadline passed");
  return host.state() == ModelHost::State::kStopped ? host.Admit().status() : absl::OkStatus();
}

// Answers a unary call with `method`, on the work queue: both methods take as long as their text is.
template <typename Response>
grpc::ServerUnaryReactor* AnswerLater(const ServiceContext& services, grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer* request, grpc::ByteBuffer* response,
                                      absl::Status (*method)(const ServiceContext&, const grpc::ByteBuffer&,
                                                             Response*)) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto charge = ChargeReading(services, request->Length());
  if (!charge.ok()) {
    reactor->Finish(ToGrpcStatus(charge.status()));
    return reactor;
  }
  const bool is_posted = services.work_queue->Post([=, &services] {
    Response message;
    absl::Status status = CheckStillWanted(*services.host, *context);
    if (status.ok()) status = method(services, *request, &message);
    if (status.ok()) *response = SerializeMessage(message);
    reactor->Finish(ToGrpcStatus(status));
  });
  if (!is_posted) {
    reactor->Finish(ToGrpcStatus(MakeError({.code = absl::StatusCode::kResourceExhausted,
                                            .reason = reason::kQueueFull,
                                            .message = "too many texts wait to be tokenized",
                                            .retry_delay = services.host->RetryDelay()})));
  }
  return reactor;
}

using Service = v1::GenerationService;
using RawService = Service::WithRawCallbackMethod_Generate<Service::WithRawCallbackMethod_GenerateText<
    Service::WithRawCallbackMethod_Tokenize<Service::WithRawCallbackMethod_Detokenize<Service::Service>>>>;

class GenerationService final : public RawService {
 public:
  explicit GenerationService(const ServiceContext& services) : services_(services) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request) override {
    return new StreamCall(services_, context, *request);
  }
  grpc::ServerUnaryReactor* GenerateText(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response) override {
    return new TextCall(services_, context, *request, response);
  }
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override {
    return AnswerLater<v1::TokenizeResponse>(services_, context, request, response, &cadre::Tokenize);
  }
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override {
    return AnswerLater<v1::DetokenizeResponse>(services_, context, request, response, &cadre::Detokenize);
  }

 private:
  const ServiceContext services_;
};

}  // namespace

std::unique_ptr<grpc::Service> CreateGenerationService(const ServiceContext& context) {
  return std::make_unique<GenerationService>(context);
}

}  // namespace cadre
