#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cadre/v1/expert_service.grpc.pb.h"
#include "engine/base/status_macros.h"
#include "server/errors.h"
#include "server/field_support.h"
#include "server/proto_time.h"
#include "server/request_limits.h"
#include "server/services.h"
#include "server/translate_stats.h"

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
class StatsCall final : public grpc::ServerWriteReactor<v1::WatchExpertStatsResponse> {
 public:
  StatsCall(const ServiceContext& services, const v1::WatchExpertStatsRequest& request) : host_(*services.host) {
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
  absl::Status Prepare(const v1::WatchExpertStatsRequest& request) {
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
      std::vector<LayerCounters> total = snapshot.total;
      snapshot.total = Difference(snapshot.total, last_total_);
      last_total_ = std::move(total);
    }
    response_.Clear();
    FillExpertStats(snapshot, selection_, model_->card, absl::Now(), response_.mutable_stats());
    StartWrite(&response_);
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
  v1::WatchExpertStatsResponse response_;  // in flight
};

class ExpertService final : public v1::ExpertService::CallbackService {
 public:
  explicit ExpertService(const ServiceContext& services) : services_(services) {}

  grpc::ServerUnaryReactor* GetExpertStats(grpc::CallbackServerContext* context,
                                           const v1::GetExpertStatsRequest* request,
                                           v1::GetExpertStatsResponse* response) override {
    return Answer(context, GetStats(*request, response));
  }

  grpc::ServerWriteReactor<v1::WatchExpertStatsResponse>* WatchExpertStats(
      grpc::CallbackServerContext*, const v1::WatchExpertStatsRequest* request) override {
    return new StatsCall(services_, *request);
  }

  grpc::ServerUnaryReactor* ResetStats(grpc::CallbackServerContext* context, const v1::ResetStatsRequest* request,
                                       v1::ResetStatsResponse* response) override {
    return Answer(context, Reset(*request, response));
  }

  // Those of later releases, refused by their names.
  grpc::ServerUnaryReactor* GetPlacement(grpc::CallbackServerContext* context, const v1::GetPlacementRequest*,
                                         v1::GetPlacementResponse*) override {
    return Answer(context, UnsupportedMethod("ExpertService.GetPlacement"));
  }
  grpc::ServerUnaryReactor* SetCapacityPolicy(grpc::CallbackServerContext* context, const v1::SetCapacityPolicyRequest*,
                                              v1::SetCapacityPolicyResponse*) override {
    return Answer(context, UnsupportedMethod("ExpertService.SetCapacityPolicy"));
  }
  grpc::ServerUnaryReactor* PinExperts(grpc::CallbackServerContext* context, const v1::PinExpertsRequest*,
                                       v1::PinExpertsResponse*) override {
    return Answer(context, UnsupportedMethod("ExpertService.PinExperts"));
  }
  grpc::ServerUnaryReactor* ExportProfile(grpc::CallbackServerContext* context, const v1::ExportProfileRequest*,
                                          v1::ExportProfileResponse*) override {
    return Answer(context, UnsupportedMethod("ExpertService.ExportProfile"));
  }
  grpc::ServerUnaryReactor* ImportProfile(grpc::CallbackServerContext* context, const v1::ImportProfileRequest*,
                                          v1::ImportProfileResponse*) override {
    return Answer(context, UnsupportedMethod("ExpertService.ImportProfile"));
  }

 private:
  static grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, const absl::Status& status) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }

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
