#include <grpcpp/server_context.h>
#include <spdlog/spdlog.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cadre/v1/expert_service.grpc.pb.h"
#include "engine/base/status_macros.h"
#include "server/call_alarm.h"
#include "server/call_place.h"
#include "server/errors.h"
#include "server/guarded_service.h"
#include "server/incoming_call.h"
#include "server/proto_time.h"
#include "server/request_limits.h"
#include "server/request_log.h"
#include "server/services.h"
#include "server/stats_request.h"
#include "server/stats_stream.h"
#include "server/translate_bias.h"
#include "server/translate_capacity.h"
#include "server/translate_pins.h"
#include "server/translate_placement.h"
#include "server/translate_profile.h"
#include "server/translate_stats.h"
#include "server/unary_call.h"
#include "server/wire.h"

namespace cadre {
namespace {

// How often, and how long, a call of GetWhatIf looks for its simulation.
constexpr absl::Duration kWhatIfPause = absl::Milliseconds(20);
constexpr absl::Duration kMaxWhatIfWait = absl::Seconds(5);

class ExpertService final : public GuardedService<v1::ExpertService> {
 public:
  explicit ExpertService(const ServiceContext& context) : GuardedService(context), services_(services()) {
    Handle("WatchExpertStats",
           [this](grpc::CallbackServerContext* watcher) { return NewStatsStream(services_, watcher, watchers_); });
    HandleUnary("GetExpertStats", [this](UnaryCall* call) { BeginStats(call); });
    HandleUnary("GetWhatIf", [this](UnaryCall* call) { BeginWhatIf(call); });
    HandleUnary("ExportProfile", [this](UnaryCall* call) {
      AnswerProfile<v1::ExportProfileRequest, v1::ExportProfileResponse>(
          call, [this](const auto& in, auto* out) { return Export(in, out); });
    });
    HandleNow<v1::GetTenantStatsRequest, v1::GetTenantStatsResponse>(
        "GetTenantStats", [this](const auto& in, auto* out) { return GetTenants(in, out); });
    HandleNow<v1::GetPlacementRequest, v1::GetPlacementResponse>(
        "GetPlacement", [this](const auto& in, auto* out) { return Place(in, out); });
    HandleOperators();
  }

 private:
  // Methods that change what is everybody's, and leave a line in the log of who did.
  void HandleOperators() {
    HandleUnary("ResetStats", [this](UnaryCall* call) {
      AnswerNow<v1::ResetStatsRequest, v1::ResetStatsResponse>(
          call, [&](const auto& in, auto* out) { return Reset(WhoCalls(*call, "ResetStats"), in, out); });
    });
    HandleUnary("SetCapacityPolicy", [this](UnaryCall* call) {
      AnswerNow<v1::SetCapacityPolicyRequest, v1::SetCapacityPolicyResponse>(
          call, [&](const auto& in, auto* out) { return SetCapacity(WhoCalls(*call, "SetCapacityPolicy"), in, out); });
    });
    HandleUnary("ResetRouterBias", [this](UnaryCall* call) {
      AnswerNow<v1::ResetRouterBiasRequest, v1::ResetRouterBiasResponse>(
          call, [&](const auto& in, auto* out) { return ResetBias(WhoCalls(*call, "ResetRouterBias"), in, out); });
    });
    HandleUnary("PinExperts", [this](UnaryCall* call) {
      AnswerNow<v1::PinExpertsRequest, v1::PinExpertsResponse>(
          call, [&](const auto& in, auto* out) { return Pin(WhoCalls(*call, "PinExperts"), in, out); });
    });
    HandleUnary("ImportProfile", [this](UnaryCall* call) {
      AnswerProfile<v1::ImportProfileRequest, v1::ImportProfileResponse>(
          call, [this, who = WhoCalls(*call, "ImportProfile")](const auto& in, auto*) { return Import(who, in); });
    });
  }

  CallLabels WhoCalls(const UnaryCall& call, const char* method) const {
    return LabelsOf(services_, call.context(), PathOf(method));
  }

  // A call of GetExpertStats that may wait for a copy. gRPC's, until it is finished.
  struct StatsCall {
    UnaryCall* call = nullptr;
    int64_t num_ended = 0;  // sequences, when it came
    CallAlarm alarm;
  };

  void BeginStats(UnaryCall* unary) const {
    const auto call = std::make_shared<StatsCall>();
    call->call = unary;
    call->num_ended = services_.host->num_ended();
    AnswerStats(call);
  }

  // Now, or when there may be a copy that is new enough; no thread waits for that.
  void AnswerStats(const std::shared_ptr<StatsCall>& call) const {
    const std::shared_ptr<const TimedExperts> copy = services_.host->ExpertsKnowing(call->num_ended);
    if (copy == nullptr) {
      call->alarm.Set(kMinExpertsAge, [this, call] { AnswerStats(call); });
      return;
    }
    v1::GetExpertStatsRequest request;
    v1::GetExpertStatsResponse response;
    absl::Status status = ParseMessage(call->call->request(), &request);
    if (status.ok()) status = GetStats(request, *copy, &response);
    call->call->FinishWith(status, response);
  }

  // A call of GetWhatIf that waits for a simulation. gRPC's, until it is finished.
  struct WhatIfCall {
    explicit WhatIfCall(std::shared_ptr<CallPlaces> places) : place(std::move(places), kMaxWhatIfCalls) {}

    const CallPlace place;
    v1::GetWhatIfRequest request;
    UnaryCall* call = nullptr;
    int64_t num_accesses = 0;  // of the cache, when it came
    absl::Duration waited;
    CallAlarm alarm;
  };

  void BeginWhatIf(UnaryCall* unary) const {
    const auto call = std::make_shared<WhatIfCall>(what_if_calls_);
    absl::Status status = ParseMessage(unary->request(), &call->request);
    if (status.ok()) status = CheckModelRequest(*services_.host, call->request).status();
    if (status.ok() && !call->place.is_taken()) status = TooManyWhatIfCalls();
    if (!status.ok()) return unary->FinishWith(status);
    call->call = unary;
    call->num_accesses = services_.host->RefreshWhatIf();
    AnswerWhatIf(call);
  }

  // As AnswerStats.
  void AnswerWhatIf(const std::shared_ptr<WhatIfCall>& call) const {
    const std::shared_ptr<const WhatIfReport> report = services_.host->WhatIf();
    const bool is_known = report == nullptr || report->num_accesses >= call->num_accesses;
    const bool may_wait = call->waited < kMaxWhatIfWait && services_.host->state() != ModelHost::State::kStopped;
    if (!is_known && may_wait) {
      call->waited += kWhatIfPause;
      call->alarm.Set(kWhatIfPause, [this, call] { AnswerWhatIf(call); });
      return;
    }
    v1::GetWhatIfResponse response;
    const absl::Status status = TellWhatIf(call->request, report.get(), &response);
    call->call->FinishWith(status, response);
  }

  absl::Status TellWhatIf(const v1::GetWhatIfRequest& request, const WhatIfReport* report,
                          v1::GetWhatIfResponse* response) const {
    CADRE_ASSIGN_OR_RETURN(const auto model, CheckModelRequest(*services_.host, request));
    if (report == nullptr) {
      return MakeError({.code = absl::StatusCode::kFailedPrecondition,
                        .reason = reason::kExpertsResident,
                        .message = "all experts are in device memory: there is no expert cache to compare with"});
    }
    if (!report->status.ok()) {
      return MakeError({.code = absl::StatusCode::kUnavailable,
                        .reason = reason::kNotSimulated,
                        .message = std::string(report->status.message())});
    }
    FillWhatIf(*report, model->card, response);
    response->set_pinned(std::ssize(services_.host->pinned_experts()));
    response->set_resident(model->card.memory.num_resident_experts);
    return absl::OkStatus();
  }

  absl::Status Place(const v1::GetPlacementRequest& request, v1::GetPlacementResponse* response) const {
    CADRE_ASSIGN_OR_RETURN(const auto model, CheckModelRequest(*services_.host, request));
    const EngineSnapshot snapshot = services_.host->Snapshot();
    FillPlacement(snapshot.expert_placement.get(), model->card, response);
    if (snapshot.expert_cache) {
      FillSlots(*snapshot.expert_cache, model->card, response);
      FillCacheTotals(*snapshot.expert_cache, response->mutable_totals());
    }
    return absl::OkStatus();
  }

  static absl::Status TooManyWhatIfCalls() {
    return MakeError({.code = absl::StatusCode::kResourceExhausted,
                      .reason = reason::kTooManyWhatIfCalls,
                      .message = absl::StrCat("GetWhatIf: ", kMaxWhatIfCalls,
                                              " calls at a time are the limit, and as many wait for a simulation"),
                      .metadata = {{"limit", absl::StrCat(kMaxWhatIfCalls)}},
                      .retry_delay = kMaxWhatIfWait});
  }

  absl::Status TooManyProfileCalls() const {
    return MakeError({.code = absl::StatusCode::kResourceExhausted,
                      .reason = reason::kTooManyProfileCalls,
                      .message = absl::StrCat("ExportProfile and ImportProfile: ", kMaxProfileCalls,
                                              " call at a time is the limit, and one is under way"),
                      .metadata = {{"limit", absl::StrCat(kMaxProfileCalls)}},
                      .retry_delay = services_.host->RetryDelay()});
  }

  // AnswerOnQueue, of so few calls at a time.
  template <typename Request, typename Response, typename Method>
  void AnswerProfile(UnaryCall* call, Method method) const {
    auto place = std::make_shared<CallPlace>(profile_calls_, kMaxProfileCalls);
    if (!place->is_taken()) return call->FinishWith(TooManyProfileCalls());
    AnswerOnQueue<Request, Response>(call, std::move(method), std::move(place));
  }

  absl::Status GetStats(const v1::GetExpertStatsRequest& request, const TimedExperts& copy,
                        v1::GetExpertStatsResponse* response) const {
    CADRE_ASSIGN_OR_RETURN(const auto model, CheckModelRequest(*services_.host, request));
    CADRE_ASSIGN_OR_RETURN(const StatsSelection selection, SelectionOf(request, model->card));
    FillExpertStats(copy.experts, copy.experts.total, selection, model->card, copy.time, response->mutable_stats());
    if (const RouterBiasReport bias = services_.host->router_bias(); bias.options.is_on()) {
      FillRouterBias(bias, model->card.moe_layers, selection.experts, response->mutable_stats()->mutable_router_bias());
    }
    return absl::OkStatus();
  }

  absl::Status GetTenants(const v1::GetTenantStatsRequest& request, v1::GetTenantStatsResponse* response) const {
    CADRE_ASSIGN_OR_RETURN(const auto model, CheckModelRequest(*services_.host, request));
    *response->mutable_time() = ToProto(absl::Now());
    response->set_model(model->card.name);
    for (const TenantRouting& tenant : services_.host->Tenants()) FillTenant(tenant, response->add_tenants());
    return absl::OkStatus();
  }

  absl::Status Reset(const CallLabels& who, const v1::ResetStatsRequest& request,
                     v1::ResetStatsResponse* response) const {
    CADRE_ASSIGN_OR_RETURN(const auto model, CheckModelRequest(*services_.host, request));
    CADRE_ASSIGN_OR_RETURN(const StatsSelection selection,
                           SelectStats(v1::STATS_SCOPE_UNSPECIFIED, {}, /*experts=*/true, model->card));
    const ExpertSnapshot last = services_.host->ResetExperts();
    FillExpertStats(last, last.total, selection, model->card, absl::Now(), response->mutable_last_stats());
    LogOperation(who, "expert statistics reset");
    return absl::OkStatus();
  }

  absl::Status Export(const v1::ExportProfileRequest& request, v1::ExportProfileResponse* response) const {
    CADRE_ASSIGN_OR_RETURN(const auto model, CheckModelRequest(*services_.host, request));
    const int32_t max_pairs = request.has_max_pairs() ? request.max_pairs() : kDefaultProfilePairs;
    if (max_pairs < 0 || max_pairs > kMaxProfilePairs) {
      return InvalidField("max_pairs", absl::StrCat(max_pairs, " is not in [0, ", kMaxProfilePairs, "]"));
    }
    FillProfile(services_.host->LifetimeExperts().lifetime, services_.host->Profile(static_cast<size_t>(max_pairs)),
                model->card, response->mutable_profile());
    return absl::OkStatus();
  }

  absl::Status Import(const CallLabels& who, const v1::ImportProfileRequest& request) const {
    CADRE_ASSIGN_OR_RETURN(const auto model, CheckModelRequest(*services_.host, request));
    if (!request.has_profile()) return InvalidField("profile", "is not set");
    CADRE_ASSIGN_OR_RETURN(std::vector<int64_t> loads, ReadProfile(request.profile(), model->card));
    services_.host->SetExpertBaseline(std::move(loads));
    LogOperation(who, "profile of experts imported",
                 absl::StrCat(": drift is measured against ", request.profile().tokens(), " tokens"));
    return absl::OkStatus();
  }

  // Leaves a line in the log, for whoever asks later who changed what.
  absl::Status SetCapacity(const CallLabels& who, const v1::SetCapacityPolicyRequest& request,
                           v1::SetCapacityPolicyResponse* response) {
    CADRE_RETURN_IF_ERROR(CheckModelRequest(*services_.host, request).status());
    if (!request.has_policy()) return InvalidField("policy", "is not set");
    // What one operator leaves as it is must not be what another is changing.
    const std::lock_guard lock(capacity_mutex_);
    CADRE_ASSIGN_OR_RETURN(const CapacityPolicy policy,
                           TranslateCapacity(request.policy(), services_.host->capacity_policy(), "policy"));
    CADRE_ASSIGN_OR_RETURN(const CapacityPolicy before, services_.host->SetCapacityPolicy(policy));
    LogOperation(who, "capacity of experts changed",
                 absl::StrCat(": ", DescribeCapacityPolicy(policy), "; before: ", DescribeCapacityPolicy(before)));
    if (policy.scope == CapacityScope::kBatch) {
      spdlog::warn("capacity scope batch: what a request loses depends on the requests beside it");
    }
    FillCapacity(before, response->mutable_previous_policy());
    return absl::OkStatus();
  }

  absl::Status Pin(const CallLabels& who, const v1::PinExpertsRequest& request,
                   v1::PinExpertsResponse* response) const {
    CADRE_ASSIGN_OR_RETURN(const auto model, CheckModelRequest(*services_.host, request));
    CADRE_ASSIGN_OR_RETURN(std::vector<ExpertId> experts, ReadPins(request, model->card));
    CADRE_ASSIGN_OR_RETURN(const PinChange change, services_.host->PinExperts(std::move(experts)));
    LogOperation(who, "experts pinned", absl::StrCat(": ", change.now, "; before: ", change.before));
    response->set_num_pinned(static_cast<int32_t>(change.now));
    return absl::OkStatus();
  }

  absl::Status ResetBias(const CallLabels& who, const v1::ResetRouterBiasRequest& request,
                         v1::ResetRouterBiasResponse* response) {
    CADRE_ASSIGN_OR_RETURN(const auto model, CheckModelRequest(*services_.host, request));
    const RouterBiasReport before = services_.host->router_bias();
    CADRE_RETURN_IF_ERROR(services_.host->ResetRouterBias());
    LogOperation(who, "router bias reset",
                 absl::StrCat(": the checkpoint's again, after ", before.num_updates, " updates"));
    FillRouterBias(before, model->card.moe_layers, /*with_experts=*/true, response->mutable_last_bias());
    return absl::OkStatus();
  }

  const ServiceContext& services_;
  std::mutex capacity_mutex_;
  const std::shared_ptr<CallPlaces> watchers_ = std::make_shared<CallPlaces>();
  const std::shared_ptr<CallPlaces> what_if_calls_ = std::make_shared<CallPlaces>();
  const std::shared_ptr<CallPlaces> profile_calls_ = std::make_shared<CallPlaces>();
};

}  // namespace

std::unique_ptr<grpc::Service> CreateExpertService(const ServiceContext& context) {
  return std::make_unique<ExpertService>(context);
}

}  // namespace cadre
