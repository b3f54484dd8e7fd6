// The answer to one request on its way out: the engine thread appends and kicks, the connection takes one message at a
// time. What comes in while a message is in flight becomes one message, so a client that reads slowly costs an outbox
// of bounded size and never a step of the engine.
#ifndef CADRE_SERVER_TOKEN_STREAM_H_
#define CADRE_SERVER_TOKEN_STREAM_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cadre/v1/generation_service.pb.h"
#include "engine/request/request.h"
#include "engine/request/token_sink.h"
#include "server/request_log.h"
#include "server/stream_pump.h"
#include "server/tenant_limiter.h"
#include "server/token_outbox.h"
#include "server/translate.h"

namespace cadre {

class Metrics;
class ModelHost;

// The call that a stream answers. It must not call back from within; all but Write and WriteLast are called under the
// stream's lock. One whose Write always takes is never cut off.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;
  // Before everything else, once.
  virtual void SetRequestId(const std::string& id) = 0;
  // At most once, and not after Write or Finish.
  virtual void SendInitialMetadata() = 0;
  // True: taken. False: in flight; nothing else is written until TokenStream::OnWriteDone.
  virtual bool Write(const v1::GenerateResponse& event) = 0;
  // Write, then Finish with OK, at once and without OnWriteDone.
  virtual void WriteLast(const v1::GenerateResponse& event, const std::optional<RequestTotals>& totals) = 0;
  // Asks for TokenStream::CutOff after `patience`: once, while a write is in flight, and again only from CutOff.
  virtual void CutOffAfter(absl::Duration patience) { static_cast<void>(patience); }
  // Ends the call without a status of ours; the write in flight fails.
  virtual void Cancel() {}
  // Last, unless WriteLast was: exactly one of the two, once. `totals` of a request that the engine ended.
  virtual void Finish(const absl::Status& status, const std::optional<RequestTotals>& totals) = 0;
};

struct TokenStreamOptions {
  // What may wait for the client, for each of the request's sequences; more than this for longer than the timeout ends
  // the request, and the call when the client then reads nothing for the timeout once more.
  size_t max_outbox_bytes = 64 << 10;
  absl::Duration slow_reader_timeout = absl::Seconds(10);
  // Where what the engine says is written; null: on the engine's own thread, at once.
  StreamPump* pump = nullptr;
  // Tokens that come sooner than this after the last message wait for each other. The first one and the end never wait.
  absl::Duration min_interval = absl::ZeroDuration();
  // And sooner than this for each call that is open, up to kMaxSharedInterval: what bounds the messages of all
  // together.
  absl::Duration interval_per_call = absl::ZeroDuration();
};

// Sooner than anybody reads.
inline constexpr absl::Duration kDefaultStreamInterval = absl::Milliseconds(5);
// Still as if at once.
inline constexpr absl::Duration kMaxSharedInterval = absl::Milliseconds(50);
// Leaves most of the processors' time to the model, on machines where a message costs client and server some 60 us.
inline absl::Duration DefaultIntervalPerCall(int num_cpus) { return absl::Microseconds(600) / num_cpus; }

// Shared by the call and the engine: either may be gone before the other. Lives as long as both need it; the host and
// the metrics outlive it. Thread-safe.
class TokenStream final : public TokenSink, public Pumped, public std::enable_shared_from_this<TokenStream> {
 public:
  // `metrics` may be null. `deadline` by the host's clock.
  TokenStream(ResponseWriter* writer, ModelHost* host, Metrics* metrics, TokenStreamOptions options,
              absl::Time deadline);
  ~TokenStream() override;

  absl::Time arrival() const { return arrival_; }
  absl::Time deadline() const { return deadline_; }
  // Whether the deadline has passed, or is so near that gRPC's own timer may have rung.
  bool IsAtDeadline() const;
  const std::shared_ptr<CancelFlag>& cancel_flag() const { return cancel_; }
  // For the log; before everything else. `span_id` is empty where the call's span is not recorded.
  void SetTrace(std::string trace_id, std::string span_id) {
    labels_.trace_id = std::move(trace_id);
    labels_.span_id = std::move(span_id);
  }
  // What the log calls the request.
  RequestLabels labels();

  // From the side that admits the request, in this order: the id and, for the log, the tenant; then the facts, before
  // the engine gets the request; then Queued, or Reject instead of it.
  void SetRequestId(const std::string& id);
  void SetTenant(std::string tenant);
  void SetFacts(RequestFacts facts);
  void Queued();
  void Reject(const absl::Status& status);

  // The name of the caller's key: the tenant of its request. Before the request is read; empty without keys.
  void SetCaller(std::string name) { caller_ = std::move(name); }
  const std::string& caller() const { return caller_; }
  // What counts the request as open, until call and engine are done with it.
  void SetTicket(std::unique_ptr<TenantLimiter::Ticket> ticket) { ticket_ = std::move(ticket); }

  // From the engine thread.
  void OnStarted(RequestStart start) override;
  void OnTokens(TokenDelta delta) override;
  void OnFinish(FinishSummary summary) override;
  // From the pump.
  void PumpNow() override;

  // From the call. OnPartTaken: of several messages that are one event the client has taken one, and not the last: it
  // reads, as much as who takes an event.
  void OnWriteDone(bool ok);
  void OnPartTaken();
  void OnCancel();
  // Somebody else wants it to end: with CANCELLED, while the client is still there. Any thread.
  void Abort();
  // Whether it did, before the request had come to an end. Any thread.
  bool was_aborted() const { return was_aborted_; }
  // Time is over for a client that read too slowly: cancels the call if it still does not take what is in flight.
  void CutOff();
  // Exactly once: the writer is about to go, and is not called any more once this returns.
  void Detach();

 private:
  // All of these run under mutex_. Those that are given its lock release it while they write: what takes time there, a
  // message of many details, must not hold up the engine's step.
  void Pump(std::unique_lock<std::mutex>* lock);
  // Pump, on the pump's thread where there is one.
  void PumpSoon(std::unique_lock<std::mutex>* lock);
  bool PumpAt(StreamPump::Time due);
  bool MustWait() const;
  absl::Duration Interval() const;
  bool WriteNext(std::unique_lock<std::mutex>* lock);
  bool IsTooSlow(absl::Time now);
  void DropOutbox();
  void Abandon(absl::Status status);
  bool IsStuck() const;
  void MeterTokens(const TokenDelta& delta, absl::Time now);
  size_t OutboxLimit() const;
  void TellOutboxBytes();
  void ArmCutOff();

  // Constant after construction.
  ModelHost* const host_;
  Metrics* const metrics_;
  const TokenStreamOptions options_;
  const absl::Time arrival_;
  const absl::Time deadline_;
  const std::shared_ptr<CancelFlag> cancel_ = std::make_shared<CancelFlag>();

  std::string caller_;  // constant once the request is read
  std::unique_ptr<TenantLimiter::Ticket> ticket_;

  std::mutex mutex_;
  ResponseWriter* writer_;  // null once detached
  RequestLabels labels_;    // constant from when the engine has the request
  RequestFacts facts_;      // constant from when the engine has the request
  std::atomic<bool> was_aborted_ = false;
  bool metadata_sent_ = false;
  bool write_in_flight_ = false;
  int64_t num_writes_ = 0;        // messages that have left
  int64_t num_writes_armed_ = 0;  // the same, when CutOff was asked for
  bool finish_called_ = false;
  StreamPump::Time posted_due_ = StreamPump::Time::max();  // max: the pump does not know of us
  StreamPump::Time next_delta_ = StreamPump::Time::min();  // no tokens before, unless the stream ends

  TokenOutbox outbox_;
  size_t told_outbox_bytes_ = 0;              // to the metrics
  std::optional<absl::Status> final_status_;  // set: the stream ends with it once the outbox is empty
  std::optional<RequestTotals> totals_;

  absl::Time over_limit_since_ = absl::InfiniteFuture();
  std::map<int32_t, absl::Time> last_delivery_;  // by sequence
};

}  // namespace cadre

#endif  // CADRE_SERVER_TOKEN_STREAM_H_
