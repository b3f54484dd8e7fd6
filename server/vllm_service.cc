#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "server/admission.h"
#include "server/errors.h"
#include "server/guarded_service.h"
#include "server/request_limits.h"
#include "server/running_requests.h"
#include "server/services.h"
#include "server/streamed_call.h"
#include "server/tokenizer_stream.h"
#include "server/translate_vllm.h"
#include "server/unary_call.h"
#include "server/version.h"
#include "server/vllm_answer.h"
#include "server/vllm_info.h"
#include "vllm/grpc/engine/vllm_engine.grpc.pb.h"

namespace cadre {
namespace {

// What the request said, from when it was read on; shared by the call and whoever reads for it.
struct Exchange {
  VllmAnswer answer;
  std::shared_ptr<void> known_by_id;
};

// Generate.
class VllmCall final : public StreamedCall {
 public:
  VllmCall(const ServiceContext& services, grpc::CallbackServerContext* context,
           std::shared_ptr<RunningRequests> running)
      : StreamedCall(services, context, "/vllm.grpc.engine.VllmEngine/Generate"), running_(std::move(running)) {
    Read();
  }

 private:
  RequestReader MakeReader() override {
    return [exchange = exchange_, running = running_, stream = std::weak_ptr(stream())](
               const grpc::ByteBuffer& bytes, IncomingRequest* request) -> absl::Status {
      vllm_api::GenerateRequest wire;
      CADRE_RETURN_IF_ERROR(ParseMessage(bytes, &wire));
      const bool is_streamed = wire.stream();
      CADRE_RETURN_IF_ERROR(TranslateVllmRequest(std::move(wire), &request->wire));
      request->kind = is_streamed ? AnswerKind::kStreamedBySequence : AnswerKind::kCollected;
      exchange->answer = VllmAnswer(is_streamed, request->wire.sampling().n());
      if (const std::string& id = request->wire.request_id(); !id.empty()) {
        exchange->known_by_id = running->Add(id, stream.lock());
      }
      return absl::OkStatus();
    };
  }
  std::vector<grpc::ByteBuffer> Encode(const v1::GenerateResponse& event) override {
    std::vector<grpc::ByteBuffer> messages;
    for (const auto& response : exchange_->answer.Translate(event)) messages.push_back(SerializeMessage(response));
    return messages;
  }
  bool IsOneAnswer() const override { return !exchange_->answer.is_streamed(); }
  absl::Status Reword(const absl::Status& status) const override { return RenameFields(status, &VllmFieldName); }

  // Whatever id the client has for it at the time, Abort knows it by that one.
  void OnArrival(const std::string& metadata_id) override {
    if (!metadata_id.empty()) exchange_->known_by_id = running_->Add(metadata_id, stream());
  }
  void SetRequestId(const std::string& id) override {
    StreamedCall::SetRequestId(id);
    exchange_->known_by_id = running_->Add(id, stream());
  }

  const std::shared_ptr<RunningRequests> running_;
  const std::shared_ptr<Exchange> exchange_ = std::make_shared<Exchange>();
};

class VllmService final : public GuardedService<vllm_api::VllmEngine> {
 public:
  VllmService(const ServiceContext& services, std::shared_ptr<const std::atomic<bool>> is_ready)
      : GuardedService(services), host_(*services.host), is_ready_(std::move(is_ready)) {
    Handle("Generate", [this](grpc::CallbackServerContext* context) {
      last_request_.store(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
      return new VllmCall(this->services(), context, running_);
    });
    Handle("GetTokenizer", [this](grpc::CallbackServerContext* context) {
      return NewTokenizerStream(this->services(), context, shelf_);
    });
    HandleUnary("Abort", [this](UnaryCall* call) { AnswerAbort(call); });
    HandleNow<vllm_api::HealthCheckRequest, vllm_api::HealthCheckResponse>(
        "HealthCheck", [this](const auto&, auto* out) { return CheckHealth(out); });
    HandleNow<vllm_api::GetModelInfoRequest, vllm_api::GetModelInfoResponse>(
        "GetModelInfo", [this](const auto&, auto* out) { return DescribeModel(out); });
    HandleNow<vllm_api::GetServerInfoRequest, vllm_api::GetServerInfoResponse>(
        "GetServerInfo", [this](const auto&, auto* out) { return DescribeServer(out); });
    HandleNow<vllm_api::GetLoadsRequest, vllm_api::GetLoadsResponse>(
        "GetLoads", [this](const auto& in, auto* out) { return DescribeLoad(in, out); });
  }

 private:
  void AnswerAbort(UnaryCall* call) const {
    const auto charge = ChargeAbort(call->request().Length());
    if (!charge.ok()) return call->FinishWith(charge.status());
    AnswerNow<vllm_api::AbortRequest, vllm_api::AbortResponse>(
        call, [this, call](const auto& in, auto*) { return AbortAll(call->context(), in); });
  }

  // What reading an Abort takes, which may be nothing.
  absl::StatusOr<std::shared_ptr<MemoryGuard::Charge>> ChargeAbort(size_t bytes) const {
    if (bytes > kMaxAbortBytes) {
      return InvalidField("request_ids", absl::StrCat(bytes, " bytes in one message, the limit is ", kMaxAbortBytes));
    }
    if (bytes <= kMaxUnchargedAbortBytes) return nullptr;
    return ChargeReading(services(), bytes);
  }

  // Of the same caller: with keys, nobody ends somebody else's requests.
  absl::Status AbortAll(const grpc::CallbackServerContext& context, const vllm_api::AbortRequest& request) const {
    if (request.request_ids_size() > kMaxAbortIds) {
      return InvalidField("request_ids", absl::StrCat(request.request_ids_size(), " ids, the limit is ", kMaxAbortIds));
    }
    CADRE_ASSIGN_OR_RETURN(const std::string caller, CallerOf(services(), context));
    for (const std::string& id : request.request_ids()) running_->Abort(id, caller);
    return absl::OkStatus();
  }

  absl::Status CheckHealth(vllm_api::HealthCheckResponse* out) const {
    out->set_healthy(is_ready_->load());
    if (out->healthy()) return absl::OkStatus();
    const absl::Status status = host_.Admit().status();
    out->set_message(status.ok() ? "no step has ended for a while" : std::string(status.message()));
    return absl::OkStatus();
  }

  absl::Status DescribeModel(vllm_api::GetModelInfoResponse* out) const {
    CADRE_ASSIGN_OR_RETURN(const std::shared_ptr<const ServedText> model, host_.Text());
    FillModelInfo(model->card, out);
    return absl::OkStatus();
  }

  absl::Status DescribeServer(vllm_api::GetServerInfoResponse* out) const {
    CADRE_ASSIGN_OR_RETURN(const std::shared_ptr<const ServedText> model, host_.Text());
    FillServerInfo(model->card, out);
    const EngineSnapshot snapshot = host_.Snapshot();
    out->set_active_requests(static_cast<uint32_t>(snapshot.running_requests + snapshot.waiting_requests));
    out->set_is_paused(host_.state() != ModelHost::State::kReady);
    out->set_last_receive_timestamp(last_request_.load());
    out->set_uptime_seconds(absl::ToDoubleSeconds(host_.clock().Now() - start_time_));
    return absl::OkStatus();
  }

  absl::Status DescribeLoad(const vllm_api::GetLoadsRequest& request, vllm_api::GetLoadsResponse* out) {
    if (request.dp_rank() != 0) return InvalidField("dp_rank", absl::StrCat(request.dp_rank(), " is not in [0, 0]"));
    out->set_timestamp(absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()));
    out->set_version(ServerVersion());
    out->set_dp_rank_count(1);
    vllm_api::SchedulerLoad* load = out->add_loads();
    const auto model = host_.Text();
    if (!model.ok()) return absl::OkStatus();
    const EngineSnapshot snapshot = host_.Snapshot();
    FillLoad(snapshot, (*model)->card, load);
    load->set_gen_throughput(throughput_.Observe(snapshot.generated_tokens, host_.clock().Now()));
    return absl::OkStatus();
  }

  ModelHost& host_;
  const std::shared_ptr<const std::atomic<bool>> is_ready_;
  const absl::Time start_time_ = host_.clock().Now();
  const std::shared_ptr<RunningRequests> running_ = std::make_shared<RunningRequests>();
  const std::shared_ptr<TokenizerShelf> shelf_ = std::make_shared<TokenizerShelf>();
  CounterRate throughput_;
  std::atomic<double> last_request_{0};  // seconds since 1970
};

}  // namespace

std::unique_ptr<grpc::Service> CreateVllmService(const ServiceContext& context,
                                                 std::shared_ptr<const std::atomic<bool>> is_ready) {
  return std::make_unique<VllmService>(context, std::move(is_ready));
}

}  // namespace cadre
