#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cadre/v1/generation_service.grpc.pb.h"
#include "engine/base/status_macros.h"
#include "server/admission.h"
#include "server/errors.h"
#include "server/field_support.h"
#include "server/grpc_status.h"
#include "server/guarded_service.h"
#include "server/request_call.h"
#include "server/request_limits.h"
#include "server/services.h"
#include "server/streamed_call.h"
#include "server/translate.h"
#include "server/unary_call.h"
#include "server/wire.h"

namespace cadre {
namespace {

// Generate.
class StreamCall final : public StreamedCall {
 public:
  StreamCall(const ServiceContext& services, grpc::CallbackServerContext* context)
      : StreamedCall(services, context, "/cadre.v1.GenerationService/Generate") {
    Read();
  }

 private:
  RequestReader MakeReader() override { return ReadsOwnApi(AnswerKind::kStreamed); }
  std::vector<grpc::ByteBuffer> Encode(const v1::GenerateResponse& event) override { return {SerializeMessage(event)}; }
};

// GenerateText.
class TextCall final : public RequestCall {
 public:
  TextCall(const ServiceContext& services, grpc::CallbackServerContext* context)
      : RequestCall(services, context, "/cadre.v1.GenerationService/GenerateText") {
    Read();
  }

  bool Write(const v1::GenerateResponse& event) override {
    Collect(event);
    return true;
  }
  void WriteLast(const v1::GenerateResponse& event, const std::optional<RequestTotals>& totals) override {
    Collect(event);
    Finish(absl::OkStatus(), totals);
  }
  void Finish(const absl::Status& status, const std::optional<RequestTotals>& totals) override {
    if (status.ok()) AddInitialMetadata();
    AddTrailers(status, totals);
    if (!status.ok()) {
      ServerBidiReactor::Finish(ToGrpcStatus(status));
      return;
    }
    const auto answer = [this] {
      message_ = SerializeMessage(response_);
      watch().Begin(AnswerPatience(message_.Length(), services().stream), ReadingWatch::WhenLate::kCutOff);
      StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
    };
    // All streams share the thread that this may be; but an answer that is ready waits for nobody else's work.
    WorkQueue& work_queue = *services().work_queue;
    const bool may_wait = response_.ByteSizeLong() > kMaxInlineAnswerBytes && work_queue.num_waiting() == 0;
    if (!may_wait || !work_queue.Post(answer)) answer();
  }

 private:
  static constexpr size_t kMaxInlineAnswerBytes = 256 << 10;

  RequestReader MakeReader() override { return ReadsOwnApi(AnswerKind::kCollected); }

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

  v1::GenerateTextResponse response_;
  grpc::ByteBuffer message_;
};

absl::Status Tokenize(const ServiceContext& services, const v1::TokenizeRequest& request,
                      v1::TokenizeResponse* response) {
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

absl::Status Detokenize(const ServiceContext& services, const v1::DetokenizeRequest& request,
                        v1::DetokenizeResponse* response) {
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

class GenerationService final : public GuardedService<v1::GenerationService> {
 public:
  explicit GenerationService(const ServiceContext& services) : GuardedService(services) {
    Handle("Generate",
           [this](grpc::CallbackServerContext* context) { return new StreamCall(this->services(), context); });
    Handle("GenerateText",
           [this](grpc::CallbackServerContext* context) { return new TextCall(this->services(), context); });
    // Both take as long as their text is.
    HandleUnary("Tokenize", [](UnaryCall* call) {
      AnswerOnQueue<v1::TokenizeRequest, v1::TokenizeResponse>(
          call, [call](const auto& in, auto* out) { return cadre::Tokenize(call->services(), in, out); });
    });
    HandleUnary("Detokenize", [](UnaryCall* call) {
      AnswerOnQueue<v1::DetokenizeRequest, v1::DetokenizeResponse>(
          call, [call](const auto& in, auto* out) { return cadre::Detokenize(call->services(), in, out); });
    });
  }
};

}  // namespace

std::unique_ptr<grpc::Service> CreateGenerationService(const ServiceContext& context) {
  return std::make_unique<GenerationService>(context);
}

}  // namespace cadre
