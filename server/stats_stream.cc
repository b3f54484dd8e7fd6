#include "server/stats_stream.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cadre/v1/expert_service.pb.h"
#include "engine/base/status_macros.h"
#include "server/errors.h"
#include "server/grpc_status.h"
#include "server/proto_time.h"
#include "server/request_limits.h"
#include "server/single_request_call.h"
#include "server/stats_request.h"
#include "server/wire.h"

namespace cadre {
namespace {

constexpr char kPath[] = "/cadre.v1.ExpertService/WatchExpertStats";

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

// WatchExpertStats: read, write, wait, write. Exactly one of the read, a write, an alarm and the end is under way at
// any time. Deletes itself when gRPC is done with it.
class StatsStream final : public SingleRequestCall {
 public:
  StatsStream(const ServiceContext& services, grpc::CallbackServerContext* context,
              std::shared_ptr<CallPlaces> watchers)
      : SingleRequestCall(services, context, kPath), host_(*services.host), watchers_(std::move(watchers)) {
    Read();
  }

  void OnRequest() override {
    const std::lock_guard lock(mutex_);
    if (is_cancelled_) return Finish(grpc::Status::CANCELLED);
    const absl::Status status = Prepare();
    ReleaseRequest();
    if (!status.ok()) return Finish(ToGrpcStatus(status));
    next_ = host_.clock().Now();
    WriteStats();
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    if (!ok || is_cancelled_) {
      Finish(grpc::Status::CANCELLED);
      return;
    }
    if (const absl::Status status = watch().Took(); !status.ok()) return Finish(ToGrpcStatus(status));
    // By the clock of the host, which nobody sets: the alarm's own may jump between two messages.
    const absl::Time now = host_.clock().Now();
    next_ = std::max(next_ + interval_, now);
    is_waiting_ = true;
    alarm_.Set(absl::ToChronoTime(absl::Now() + (next_ - now)), [this](bool) { OnAlarm(); });
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
    SingleRequestCall::OnDone();
  }

 private:
  absl::Status Prepare() {
    place_.emplace(watchers_, kMaxStatsWatchers);
    if (!place_->is_taken()) {
      return MakeError(
          {.code = absl::StatusCode::kResourceExhausted,
           .reason = reason::kTooManyWatchers,
           .message = absl::StrCat("WatchExpertStats: ", kMaxStatsWatchers, " calls are open, which is the limit"),
           .metadata = {{"limit", absl::StrCat(kMaxStatsWatchers)}}});
    }
    v1::WatchExpertStatsRequest request;
    CADRE_RETURN_IF_ERROR(ParseMessage(this->request(), &request));
    CADRE_ASSIGN_OR_RETURN(model_, CheckModelRequest(host_, request));
    CADRE_ASSIGN_OR_RETURN(selection_, SelectionOf(request, model_->card));
    CADRE_ASSIGN_OR_RETURN(interval_, WatchInterval(request));
    is_delta_ = request.delta();
    if (is_delta_ && !selection_.total) {
      return InvalidField("delta", "is of totals, which STATS_SCOPE_WINDOW leaves out; ask for another scope");
    }
    return absl::OkStatus();
  }

  void OnAlarm() {
    const std::lock_guard lock(mutex_);
    is_waiting_ = false;
    if (is_cancelled_) {
      Finish(grpc::Status::CANCELLED);
    } else if (const absl::Status status = CheckAccess(); !status.ok()) {
      Finish(ToGrpcStatus(status));  // it has no end of its own, and would outlive its key
    } else {
      WriteStats();
    }
  }

  void WriteStats() {
    const std::shared_ptr<const TimedExperts> now = host_.Experts();
    v1::WatchExpertStatsResponse response;
    const auto fill = [&](const std::vector<LayerCounters>& total) {
      FillExpertStats(now->experts, total, selection_, model_->card, now->time, response.mutable_stats());
    };
    if (is_delta_) {
      // Later resets are none of this stream's business.
      fill(last_ == nullptr ? now->experts.total : Difference(now->experts.lifetime, last_->experts.lifetime));
      last_ = now;
    } else {
      fill(now->experts.total);
    }
    message_ = SerializeMessage(response);
    // Who does not read has no next look at its key, either.
    watch().Begin(MessagePatience(message_.Length(), services().stream.slow_reader_timeout),
                  ReadingWatch::WhenLate::kTellFirst);
    StartWrite(&message_);
  }

  ModelHost& host_;
  const std::shared_ptr<CallPlaces> watchers_;

  // Constant once the request is read: whoever has not said it yet takes nobody's place.
  std::optional<CallPlace> place_;
  std::shared_ptr<const ServedText> model_;
  StatsSelection selection_;
  absl::Duration interval_;
  bool is_delta_ = false;

  std::mutex mutex_;
  grpc::Alarm alarm_;
  bool is_waiting_ = false;
  bool is_cancelled_ = false;
  absl::Time next_;
  std::shared_ptr<const TimedExperts> last_;  // of deltas
  grpc::ByteBuffer message_;                  // in flight
};

}  // namespace

BytesReactor* NewStatsStream(const ServiceContext& services, grpc::CallbackServerContext* context,
                             std::shared_ptr<CallPlaces> watchers) {
  return new StatsStream(services, context, std::move(watchers));
}

}  // namespace cadre
