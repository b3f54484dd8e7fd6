#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cadre/v1/expert_service.grpc.pb.h"
#include "engine/base/status_macros.h"
#include "server/errors.h"
#include "server/field_support.h"
#include "server/grpc_status.h"
#include "server/proto_time.h"
#include "server/request_limits.h"
#include "server/services.h"
#include "server/translate_stats.h"
#include "server/unary_call.h"
#include "server/wire.h"

namespace cadre {
namespace {

// Common checks of a request that names a model; the model.
template <typename Request>
absl::StatusOr<std::shared_ptr<const ServedText>> Check(const ModelHost& host, const Request& request) {
  CADRE_ASSIGN_OR_RETURN(std::shared_ptr<const ServedText> model, host.Text());
  CADRE_RETURN_IF_ERROR(host.CheckName(request.model()));
  CADRE_RETURN_IF_ERROR(RefuseUnsupportedFields(request));
  return model;
}

// The same for a request that selects statistics.
template <typename Request>
absl::StatusOr<StatsSelection> Select(const Request& request, const ModelCard& card) {
  const bool experts = request.has_include_experts() ? request.include_experts() : true;
  return SelectStats(request.scope(), request.layers(), experts, card);
}

absl::StatusOr<absl::Duration> WatchInterval(const v1::WatchExpertStatsRequest& request) {
  if (!request.has_interval()) return kDefaultWatchInterval;
  const absl::Duration interval = FromProto(request.interval());
  if (interval < kMinWatchInterval || interval > kMaxWatchInterval) {
    return InvalidField("interval", absl::StrCat(absl::FormatDuration(interval), " is not in [",
                                                 absl::FormatDuration(kMinWatchInterval), ", ",
                                                 absl::FormatDuration(kMaxWatchInterval), "]"));
  }
  return interval;
}

// WatchExpertStats: write, wait, write. Exactly one of a write, an alarm and the end is under way at any time. Deletes
// itself when gRPC is done with it.
class StatsCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  StatsCall(const ServiceContext& services, const grpc::ByteBuffer& request) : host_(*services.host) {
    if (const absl::Status status = Prepare(request); !status.ok()) {
      Finish(ToGrpcStatus(status));
      return;
    }
    next_ = absl::Now();
    WriteStats();
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    if (!ok || is_cancelled_) {
      Finish(grpc::Status::CANCELLED);
      return;
    }
    next_ = std::max(next_ + interval_, absl::Now());
    is_waiting_ = true;
    alarm_.Set(absl::ToChronoTime(next_), [this](bool) { OnAlarm(); });
  }

  void OnCancel() override {
    const std::lock_guard lock(mutex_);
    is_cancelled_ = true;
    if (is_waiting_) alarm_.Cancel();
  }

  void OnDone() override {
    // Whoever called Finish may still be inside it.
    mutex_.lock();
    mutex_.unlock();
    delete this;
  }

 private:
  absl::Status Prepare(const grpc::ByteBuffer& bytes) {
    v1::WatchExpertStatsRequest request;
    CADRE_RETURN_IF_ERROR(ParseMessage(bytes, &request));
    CADRE_ASSIGN_OR_RETURN(model_, Check(host_, request));
    CADRE_ASSIGN_OR_RETURN(selection_, Select(request, model_->card));
    CADRE_ASSIGN_OR_RETURN(interval_, WatchInterval(request));
    is_delta_ = request.delta();
    return absl::OkStatus();
  }

  void OnAlarm() {
    const std::lock_guard lock(mutex_);
    is_waiting_ = false;
    if (is_cancelled_) {
      Finish(grpc::Status::CANCELLED);
    } else {
      WriteStats();
    }
  }

  void WriteStats() {
    ExpertSnapshot snapshot = host_.Experts();
    if (is_delta_) {
      // A reset by somebody else is none of this stream's business.
      std::vector<LayerCounters> total = host_.LifetimeExperts().total;
      snapshot.total = Difference(total, last_total_);
      last_total_ = std::move(total);
    }
    v1::WatchExpertStatsResponse response;
    FillExpertStats(snapshot, selection_, model_->card, absl::Now(), response.mutable_stats());
    message_ = SerializeMessage(response);
    StartWrite(&message_);
  }

  // Constant after construction.
  ModelHost& host_;
  std::shared_ptr<const ServedText> model_;
  StatsSelection selection_;
  absl::Duration interval_;
  bool is_delta_ = false;

  std::mutex mutex_;
  grpc::Alarm alarm_;
  bool is_waiting_ = false;
  bool is_cancelled_ = false;
  absl::Time next_;
  std::vector<LayerCounters> last_total_;
  grpc::ByteBuffer message_;  // in flight
};

using Service = v1::ExpertService;
using RawReads = Service::WithRawCallbackMethod_GetExpertStats<
    Service::WithRawCallbackMethod_WatchExpertStats<Service::WithRawCallbackMethod_GetPlacement<Service::Service>>>;
using RawWrites = Service::WithRawCallbackMethod_ResetStats<
    Service::WithRawCallbackMethod_SetCapacityPolicy<Service::WithRawCallbackMethod_PinExperts<RawReads>>>;
using RawService =
    Service::WithRawCallbackMethod_ExportProfile<Service::WithRawCallbackMethod_ImportProfile<RawWrites>>;

class ExpertService final : public RawService {
 public:
  explicit ExpertService(const ServiceContext& services) : services_(services) {}

  grpc::ServerUnaryReactor* GetExpertStats(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                           grpc::ByteBuffer* response) override {
    return AnswerNow<v1::GetExpertStatsRequest, v1::GetExpertStatsResponse>(
        context, *request, response, [this](const auto& in, auto* out) { return GetStats(in, out); });
  }

  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchExpertStats(grpc::CallbackServerContext*,
                                                               const grpc::ByteBuffer* request) override {
    return new StatsCall(services_, *request);
  }

  grpc::ServerUnaryReactor* ResetStats(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override {
    return AnswerNow<v1::ResetStatsRequest, v1::ResetStatsResponse>(
        context, *request, response, [this](const auto& in, auto* out) { return Reset(in, out); });
  }

  // Those of later releases, refused by their names.
  grpc::ServerUnaryReactor* GetPlacement(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                         grpc::ByteBuffer*) override {
    return AnswerStatus(context, UnsupportedMethod("ExpertService.GetPlacement"));
  }
  grpc::ServerUnaryReactor* SetCapacityPolicy(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                              grpc::ByteBuffer*) override {
    return AnswerStatus(context, UnsupportedMethod("ExpertService.SetCapacityPolicy"));
  }
  grpc::ServerUnaryReactor* PinExperts(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                       grpc::ByteBuffer*) override {
    return AnswerStatus(context, UnsupportedMethod("ExpertService.PinExperts"));
  }
  grpc::ServerUnaryReactor* ExportProfile(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                          grpc::ByteBuffer*) override {
    return AnswerStatus(context, UnsupportedMethod("ExpertService.ExportProfile"));
  }
  grpc::ServerUnaryReactor* ImportProfile(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                          grpc::ByteBuffer*) override {
    return AnswerStatus(context, UnsupportedMethod("ExpertService.ImportProfile"));
  }

 private:
  absl::Status GetStats(const v1::GetExpertStatsRequest& request, v1::GetExpertStatsResponse* response) const {
    CADRE_ASSIGN_OR_RETURN(const auto model, Check(*services_.host, request));
    CADRE_ASSIGN_OR_RETURN(const StatsSelection selection, Select(request, model->card));
    FillExpertStats(services_.host->Experts(), selection, model->card, absl::Now(), response->mutable_stats());
    return absl::OkStatus();
  }

  absl::Status Reset(const v1::ResetStatsRequest& request, v1::ResetStatsResponse* response) const {
    CADRE_ASSIGN_OR_RETURN(const auto model, Check(*services_.host, request));
    CADRE_ASSIGN_OR_RETURN(const StatsSelection selection,
                           SelectStats(v1::STATS_SCOPE_UNSPECIFIED, {}, /*experts=*/true, model->card));
    FillExpertStats(services_.host->ResetExperts(), selection, model->card, absl::Now(),
                    response->mutable_last_stats());
    return absl::OkStatus();
  }

  const ServiceContext services_;
};

}  // namespace

std::unique_ptr<grpc::Service> CreateExpertService(const ServiceContext& context) {
  return std::make_unique<ExpertService>(context);
}

}  // namespace cadre
