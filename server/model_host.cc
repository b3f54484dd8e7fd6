#include "server/model_host.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/request/refusal.h"
#include "server/errors.h"
#include "server/memory_guard.h"

namespace cadre {
namespace {

constexpr absl::Duration kMinRetryDelay = absl::Milliseconds(200);
constexpr absl::Duration kMaxRetryDelay = absl::Seconds(30);
constexpr absl::Duration kLoadingRetryDelay = absl::Seconds(2);
constexpr absl::Duration kDrainingRetryDelay = absl::Seconds(1);

// Weight of the newest of the samples that make the drain rate.
constexpr double kRateSmoothing = 0.3;

// Between 0.75 and 1.25 times `delay`.
absl::Duration WithJitter(absl::Duration delay) {
  thread_local std::minstd_rand generator{std::random_device{}()};
  return delay * std::uniform_real_distribution<double>(0.75, 1.25)(generator);
}

std::string_view ReasonOf(Refusal refusal) {
  switch (refusal) {
    case Refusal::kTenantShare:
      return reason::kTenantQueueFull;
    case Refusal::kDeadlineUnreachable:
      return reason::kDeadlineUnreachable;
    case Refusal::kMemoryPressure:
      return reason::kMemoryPressure;
    case Refusal::kExpertUnavailable:
      return reason::kExpertUnavailable;
    case Refusal::kNone:
    case Refusal::kQueueFull:
      return reason::kQueueFull;
  }
  return reason::kQueueFull;
}

bool IsYounger(std::chrono::steady_clock::time_point time, absl::Duration age) {
  return std::chrono::steady_clock::now() - time < absl::ToChronoNanoseconds(age);
}

absl::Status RoutingRefusal(const absl::Status& status) {
  return MakeError(
      {.code = status.code(), .reason = reason::kRoutingSchemeRefused, .message = std::string(status.message())});
}

absl::Status CapacityRefusal(const absl::Status& status) {
  return MakeError(
      {.code = status.code(), .reason = reason::kCapacityPolicyRefused, .message = std::string(status.message())});
}

}  // namespace

ModelHost::ModelHost(std::string served_name, std::shared_ptr<const Clock> clock, EngineObserver* observer)
    : served_name_(std::move(served_name)), clock_(std::move(clock)), observer_(observer) {}

ModelHost::~ModelHost() { Stop(); }

void ModelHost::Install(LoadedModel model) {
  auto text = std::make_shared<ServedText>();
  text->card = std::move(model.card);
  text->tokenizer = std::move(model.tokenizer);
  text->constraints = std::make_unique<ConstraintCache>([model = text.get()] {
    return TokenVocabulary::FromTokenizer(*model->tokenizer, model->card.limits.vocab_size,
                                          model->card.engine.eos_token_ids);
  });
  text->chat = std::move(model.chat);
  text->ready_time = clock_->Now();
  auto engine =
      std::make_shared<Engine>(text->card.engine, std::move(model.runner), text->tokenizer.get(), clock_, observer_);
  // The loader has checked that this model can.
  CADRE_CHECK(engine->SetCapacityPolicy(text->card.capacity).ok());
  engine->Start();
  {
    const std::unique_lock lock(mutex_);
    CADRE_CHECK(engine_ == nullptr);
    text_ = std::move(text);
    device_ = std::move(model.device);
    engine_ = std::move(engine);
  }
  {
    const std::lock_guard lock_experts(experts_mutex_);
    experts_.reset();  // of no model
  }
  load_progress_.store(1.0);
  State expected = State::kLoading;
  state_.compare_exchange_strong(expected, State::kReady);
}

absl::Status ModelHost::CheckName(std::string_view name) const {
  if (name.empty() || name == served_name_) return absl::OkStatus();
  ErrorSpec spec{.code = absl::StatusCode::kNotFound, .reason = reason::kModelNotFound};
  spec.message = absl::StrCat("no model ", Excerpt(name), " here; this server has ", Excerpt(served_name_));
  spec.metadata = {{"model", Excerpt(name)}, {"served_model", served_name_}};
  spec.resource_type = "cadre.v1.Model";
  spec.resource_name = Excerpt(name);
  return MakeError(std::move(spec));
}

absl::Status ModelHost::NotServing(State state) const {
  ErrorSpec spec{.code = absl::StatusCode::kUnavailable};
  if (state == State::kLoading) {
    const int percent = static_cast<int>(load_progress() * 100);
    spec.reason = reason::kModelLoading;
    spec.message = absl::StrCat("the model is loading: ", percent, "%");
    spec.metadata.emplace_back("percent", absl::StrCat(percent));
    spec.retry_delay = WithJitter(kLoadingRetryDelay);
  } else {
    spec.reason = reason::kDraining;
    spec.message = "the server is about to end; another one may serve the request";
    spec.retry_delay = WithJitter(kDrainingRetryDelay);
  }
  return MakeError(std::move(spec));
}

std::shared_ptr<const ServedText> ModelHost::text() const {
  const std::shared_lock lock(mutex_);
  return text_;
}

absl::StatusOr<std::shared_ptr<const ServedText>> ModelHost::Text() const {
  auto served = text();
  if (served == nullptr) return NotServing(state());
  return served;
}

absl::StatusOr<std::shared_ptr<const ServedText>> ModelHost::Admit() const {
  if (const State now = state(); now != State::kReady) return NotServing(now);
  return Text();
}

absl::Status ModelHost::Submit(Request request) {
  absl::Status status = absl::UnavailableError("no engine");
  bool wants_parts_of_groups = false;
  {
    const std::shared_lock lock(mutex_);
    wants_parts_of_groups = engine_ != nullptr && engine_->limits().prompt_group > 0 && request.prompt_logprobs;
    if (engine_ != nullptr) status = engine_->Submit(std::move(request));
  }
  if (!ErrorReason(status).empty()) return status;  // of the request's own choice of capacity
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return NotServing(State::kDraining);
    case absl::StatusCode::kResourceExhausted:
      return MakeError(
          {.code = status.code(),
           .reason = ReasonOf(RefusalOf(status)),
           .message = std::string(status.message()),
           .retry_delay = RefusalOf(status) == Refusal::kMemoryPressure ? kMemoryRetryDelay : RetryDelay()});
    case absl::StatusCode::kDeadlineExceeded:
      return MakeError(
          {.code = status.code(), .reason = ReasonOf(RefusalOf(status)), .message = std::string(status.message())});
    case absl::StatusCode::kInvalidArgument:
      return MakeError(
          {.code = status.code(), .reason = reason::kContextLengthExceeded, .message = std::string(status.message())});
    case absl::StatusCode::kFailedPrecondition:
      return wants_parts_of_groups ? RoutingRefusal(status) : CapacityRefusal(status);
    default:
      return status;
  }
}

void ModelHost::Wake() {
  const std::shared_lock lock(mutex_);
  if (engine_ != nullptr) engine_->Wake();
}

EngineSnapshot ModelHost::Snapshot() const {
  const std::shared_lock lock(mutex_);
  return engine_ != nullptr ? engine_->Snapshot() : last_snapshot_;
}

std::shared_ptr<const TimedExperts> ModelHost::Experts() const {
  const std::lock_guard lock_experts(experts_mutex_);
  return experts_ != nullptr && IsYounger(experts_time_, kMaxExpertsAge) ? experts_ : CopyExperts();
}

std::shared_ptr<const TimedExperts> ModelHost::ExpertsKnowing(int64_t num_ended) const {
  const std::lock_guard lock_experts(experts_mutex_);
  if (experts_ == nullptr || !IsYounger(experts_time_, kMaxExpertsAge)) return CopyExperts();
  if (experts_num_ended_ >= num_ended) return experts_;
  return IsYounger(experts_time_, kMinExpertsAge) ? nullptr : CopyExperts();
}

std::shared_ptr<const TimedExperts> ModelHost::CopyExperts() const {
  const auto now = std::chrono::steady_clock::now();
  const int64_t num_ended = num_ended_.load();  // before the copy, which then knows of all of them
  auto copy = std::make_shared<TimedExperts>();
  copy->time = absl::Now();
  {
    const std::shared_lock lock(mutex_);
    copy->experts = engine_ != nullptr ? engine_->expert_stats().Snapshot() : last_experts_;
  }
  experts_ = std::move(copy);
  experts_time_ = now;
  experts_num_ended_ = num_ended;
  return experts_;
}

ProfileCounts ModelHost::Profile(size_t max_pairs) const {
  std::shared_ptr<const Engine> engine;
  {
    const std::shared_lock lock(mutex_);
    engine = engine_;
  }
  // Takes up to a second: nobody waits for it.
  return engine != nullptr ? engine->routing_profile().Counts(max_pairs) : ProfileCounts();
}

void ModelHost::SetExpertBaseline(std::vector<int64_t> chosen) {
  const std::lock_guard lock_experts(experts_mutex_);
  experts_.reset();
  const std::shared_lock lock(mutex_);
  if (engine_ != nullptr) engine_->expert_stats().SetBaseline(std::move(chosen));
}

ExpertSnapshot ModelHost::ResetExperts() {
  const std::lock_guard lock_experts(experts_mutex_);
  experts_.reset();
  const std::shared_lock lock(mutex_);
  return engine_ != nullptr ? engine_->expert_stats().Reset() : last_experts_;
}

ExpertSnapshot ModelHost::LifetimeExperts() const {
  const std::shared_lock lock(mutex_);
  return engine_ != nullptr ? engine_->expert_stats().LifetimeSnapshot() : last_lifetime_experts_;
}

std::shared_ptr<const WhatIfReport> ModelHost::WhatIf() const {
  const std::shared_lock lock(mutex_);
  const ShadowSimulator* simulator = engine_ != nullptr ? engine_->shadow_simulator() : nullptr;
  return simulator != nullptr ? simulator->Latest() : last_what_if_;
}

int64_t ModelHost::RefreshWhatIf() {
  const std::shared_lock lock(mutex_);
  ShadowSimulator* simulator = engine_ != nullptr ? engine_->shadow_simulator() : nullptr;
  if (simulator == nullptr) return 0;
  const int64_t num_accesses = simulator->num_accesses();  // before: what comes later may miss the simulation
  simulator->Refresh();
  return num_accesses;
}

std::vector<TenantRouting> ModelHost::Tenants() const {
  const std::shared_lock lock(mutex_);
  return engine_ != nullptr ? engine_->Tenants() : last_tenants_;
}

absl::StatusOr<CapacityPolicy> ModelHost::SetCapacityPolicy(const CapacityPolicy& policy) {
  absl::StatusOr<CapacityPolicy> before = absl::UnavailableError("no engine");
  {
    const std::shared_lock lock(mutex_);
    if (engine_ != nullptr) before = engine_->SetCapacityPolicy(policy);
  }
  if (absl::IsUnavailable(before.status())) return NotServing(State::kDraining);
  if (absl::IsFailedPrecondition(before.status())) return CapacityRefusal(before.status());
  return before;
}

CapacityPolicy ModelHost::capacity_policy() const {
  const std::shared_lock lock(mutex_);
  return engine_ != nullptr ? engine_->capacity_policy() : CapacityPolicy();
}

RouterBiasReport ModelHost::router_bias() const {
  const std::shared_lock lock(mutex_);
  return engine_ != nullptr ? engine_->router_bias() : RouterBiasReport();
}

absl::Status ModelHost::ResetRouterBias() {
  absl::Status status = absl::UnavailableError("no engine");
  {
    const std::shared_lock lock(mutex_);
    if (engine_ != nullptr) status = engine_->ResetRouterBias();
  }
  if (absl::IsUnavailable(status)) return NotServing(State::kDraining);
  return absl::IsFailedPrecondition(status) ? RoutingRefusal(status) : status;
}

absl::StatusOr<PinChange> ModelHost::PinExperts(std::vector<ExpertId> experts) {
  absl::StatusOr<PinChange> change = absl::UnavailableError("no engine");
  {
    const std::shared_lock lock(mutex_);
    if (engine_ != nullptr) change = engine_->PinExperts(std::move(experts));
  }
  const std::string message(change.status().message());
  switch (change.status().code()) {
    case absl::StatusCode::kUnavailable:
      return NotServing(State::kDraining);
    case absl::StatusCode::kFailedPrecondition:
      return MakeError({.code = change.status().code(), .reason = reason::kExpertsResident, .message = message});
    case absl::StatusCode::kInvalidArgument:
      return InvalidField("experts", message);
    default:
      return change;
  }
}

std::vector<ExpertId> ModelHost::pinned_experts() const {
  const std::shared_lock lock(mutex_);
  return engine_ != nullptr ? engine_->pinned_experts() : std::vector<ExpertId>();
}

void ModelHost::SetMemoryPressure(MemoryPressure pressure) {
  const std::shared_lock lock(mutex_);
  if (engine_ != nullptr) engine_->SetMemoryPressure(pressure);
  if (text_ != nullptr && pressure >= MemoryPressure::kEvict) text_->constraints->Clear();
}

void ModelHost::SetConstraintMemory(int64_t bytes) {
  const std::shared_lock lock(mutex_);
  if (text_ != nullptr) text_->constraints->SetMaxBytes(bytes);
}

absl::Duration ModelHost::RetryDelay() const {
  const double rate = finished_per_second_.load();
  const double waiting = static_cast<double>(Snapshot().waiting_requests);
  const absl::Duration half_drained = rate > 0 ? absl::Seconds(waiting / 2 / rate) : absl::Seconds(1);
  return WithJitter(std::clamp(half_drained, kMinRetryDelay, kMaxRetryDelay));
}

void ModelHost::ObserveProgress(absl::Time now) {
  const EngineSnapshot snapshot = Snapshot();
  const int64_t finished = snapshot.num_finished();
  const bool has_queue = snapshot.waiting_requests > 0;
  if (observed_at_ != absl::InfinitePast() && now > observed_at_) {
    const double rate = static_cast<double>(finished - observed_finished_) / absl::ToDoubleSeconds(now - observed_at_);
    const double known = finished_per_second_.load();
    // Without a queue, as much ended as there was: the engine could have done more.
    const bool is_drain_rate = has_queue && had_queue_;
    finished_per_second_.store(is_drain_rate ? known * (1 - kRateSmoothing) + rate * kRateSmoothing
                                             : std::max(known, rate));
  }
  observed_at_ = now;
  observed_finished_ = finished;
  had_queue_ = has_queue;
}

void ModelHost::StartDrain() {
  if (state() == State::kStopped) return;
  state_.store(State::kDraining);
  const std::shared_lock lock(mutex_);
  if (engine_ != nullptr) engine_->StartDrain();
}

bool ModelHost::IsIdle() const {
  const std::shared_lock lock(mutex_);
  return engine_ == nullptr || engine_->AwaitIdle(absl::InfinitePast());
}

void ModelHost::Stop() {
  state_.store(State::kStopped);
  // Only this thread replaces it, so it may be read without the lock.
  if (engine_ == nullptr) return;
  engine_->Stop();
  const std::lock_guard lock_experts(experts_mutex_);
  experts_.reset();
  const std::unique_lock lock(mutex_);
  last_snapshot_ = engine_->Snapshot();
  last_experts_ = engine_->expert_stats().Snapshot();
  last_lifetime_experts_ = engine_->expert_stats().LifetimeSnapshot();
  last_tenants_ = engine_->Tenants();
  if (const ShadowSimulator* simulator = engine_->shadow_simulator(); simulator != nullptr) {
    last_what_if_ = simulator->Latest();
  }
  engine_.reset();
}

}  // namespace cadre
