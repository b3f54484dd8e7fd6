#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/deadline_admission.h"
#include "engine/engine_loop.h"
#include "engine/request/request_queue.h"
#include "engine/status_board.h"
#include "engine/text/token_class.h"

namespace cadre {

ReplayBounds ReplayBoundsOf(const RunnerLimits& limits, const Request& request) {
  return {.num_layers = limits.num_moe_layers,
          .num_experts = limits.num_experts,
          .top_k = limits.top_k,
          .min_k = limits.min_k == kAlwaysTopK ? limits.top_k : limits.min_k,
          .experts_choose = limits.prompt_group > 0,
          .num_positions = static_cast<int64_t>(request.prompt.size()) + request.sampling.max_tokens - 1};
}

namespace {

// Of 2^20 tokens: what decides which tenants have accounts of their own.
int64_t RecentAssignments(const RunnerLimits& limits) {
  constexpr int64_t kTokens = int64_t{1} << 20;
  return std::max<int64_t>(1, kTokens * limits.num_moe_layers * limits.top_k);
}

// Without a tokenizer all tokens are of one class.
std::vector<uint8_t> ClassesFor(const EngineOptions& options, const ModelRunner& runner, const Tokenizer* tokenizer) {
  if (options.routing_sample_steps == 0) return {};
  const int32_t vocab_size = runner.limits().vocab_size;
  if (tokenizer != nullptr) return ClassifyVocabulary(*tokenizer, vocab_size);
  return std::vector<uint8_t>(static_cast<size_t>(vocab_size), static_cast<uint8_t>(TokenClass::kSpecial));
}

}  // namespace

struct Engine::State {
  State(EngineOptions engine_options, std::unique_ptr<ModelRunner> model_runner, const Tokenizer* model_tokenizer,
        std::shared_ptr<const Clock> engine_clock, EngineObserver* observer)
      : options(std::move(engine_options)),
        runner(std::move(model_runner)),
        tokenizer(model_tokenizer),
        clock(std::move(engine_clock)),
        queue({.max_requests = options.max_queue_requests,
               .max_prompt_tokens = options.max_queue_tokens,
               .max_total_tokens = options.max_queue_total_tokens,
               .max_tenant_share = options.max_tenant_share,
               .priority_tokens = options.priority_tokens}),
        replay_memory(options.max_replay_bytes, options.max_tenant_share),
        expert_stats(runner->limits().num_moe_layers, runner->limits().num_experts, runner->limits().top_k,
                     options.stats_window_tokens),
        token_classes(ClassesFor(options, *runner, tokenizer)),
        routing_profile({.num_layers = runner->limits().num_moe_layers,
                         .num_experts = runner->limits().num_experts,
                         .num_classes = kNumTokenClasses},
                        {.sample_steps = options.routing_sample_steps}),
        router_bias(options.bias_balancing, runner.get()),
        expert_pins(runner.get()),
        tenants(RecentAssignments(runner->limits())),
        loop(options, {.runner = runner.get(),
                       .tokenizer = tokenizer,
                       .clock = clock.get(),
                       .observer = observer,
                       .queue = &queue,
                       .expert_stats = &expert_stats,
                       .routing_profile = &routing_profile,
                       .token_classes = token_classes,
                       .router_bias = &router_bias,
                       .expert_pins = &expert_pins,
                       .tenants = &tenants,
                       .board = &board}) {}

  void RunUntilStopped() {
    while (!stopping.load(std::memory_order_acquire)) {
      if (!loop.Step()) queue.Wait(loop.Rest());
    }
  }

  // Says what is expected of the request, and whether it is expected to be served in time.
  absl::Status CheckTime(Request* request) const {
    const StatusBoard::Notice notice = board.Read();
    request->may_end_early = MayEndEarly(*request, !options.eos_token_ids.empty());
    const double most = ExpectedOutput(notice.service, request->may_end_early, request->sampling.max_tokens);
    request->expected_tokens = int64_t{request->num_sequences} * static_cast<int64_t>(std::ceil(most));

    QueuePlace place = PlaceOf(*request);
    const QueueCost ahead = queue.CostAhead(place);
    if (options.max_queue_wait != absl::InfiniteDuration()) {
      CADRE_RETURN_IF_ERROR(CheckWait(notice.service, ahead, place.cost, options.max_queue_wait));
    }
    if (!options.deadline_admission || !IsLimitedByDeadline(*request)) return absl::OkStatus();
    // What was learned of lengths may be wrong. With nothing else to do, trying costs nothing, and corrects it.
    const bool is_idle = queue.totals().pushed_requests == notice.snapshot.num_finished();
    if (is_idle && request->may_end_early) place.cost.expected_tokens = request->num_sequences;
    return CheckDeadline(notice.service, ahead, place.cost, request->deadline - clock->Now());
  }

  // Settles the request's policy.
  absl::Status ChooseCapacity(Request* request) const {
    const CapacityPolicy own = CurrentCapacity();
    if (request->choose_capacity) {
      CADRE_ASSIGN_OR_RETURN(request->capacity, std::exchange(request->choose_capacity, nullptr)(own));
    }
    if (!request->capacity) request->capacity = own;
    if (!request->capacity->is_on()) request->capacity = CapacityPolicy();
    if (*request->capacity == own) return absl::OkStatus();
    if (!options.allow_capacity_override) {
      return absl::FailedPreconditionError(
          "the operator of this server does not let requests change the capacity of experts");
    }
    if (request->capacity->scope == CapacityScope::kBatch) {
      return absl::FailedPreconditionError(
          "a request cannot choose the capacity scope batch, which takes places from other requests");
    }
    return CheckCapacity(*request->capacity);
  }

  // What the routing scheme of the model makes impossible.
  absl::Status CheckRouting(const Request& request) const {
    if (runner->limits().prompt_group == 0 || !request.prompt_logprobs) return absl::OkStatus();
    return absl::FailedPreconditionError(
        "prompt_logprobs are not to be had of a model whose experts choose the tokens of prompts");
  }

  absl::Status CheckReplay(const Request& request) const {
    if (request.replay == nullptr) return absl::OkStatus();
    const RunnerLimits& limits = runner->limits();
    if (!limits.can_replay_routing) {
      return absl::FailedPreconditionError("this model has no routers that recorded choices could be replayed by");
    }
    const std::optional<ReplayFault> fault = FindReplayFault(*request.replay, ReplayBoundsOf(limits, request));
    if (!fault) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("replay_routing.", fault->field, ": ", fault->problem));
  }

  // As long as the request lives.
  absl::Status ChargeReplay(Request* request) {
    if (request->replay == nullptr) return absl::OkStatus();
    CADRE_ASSIGN_OR_RETURN(request->replay, replay_memory.Charge(std::move(request->replay), request->tenant));
    return absl::OkStatus();
  }

  absl::Status CheckCapacity(const CapacityPolicy& policy) const {
    CADRE_RETURN_IF_ERROR(CheckCapacityPolicy(policy));
    if (!policy.is_on() || runner->limits().max_capacity_slots > 0) return absl::OkStatus();
    return absl::FailedPreconditionError(
        "this device, or this model's routing scheme, does not limit the capacity of experts");
  }

  CapacityPolicy CurrentCapacity() const {
    const std::lock_guard lock(capacity_mutex);
    return capacity;
  }

  // Constant after construction.
  const EngineOptions options;
  const std::unique_ptr<ModelRunner> runner;
  const Tokenizer* const tokenizer;
  const std::shared_ptr<const Clock> clock;
  // With their own synchronization.
  RequestQueue queue;
  StatusBoard board;
  ReplayMemory replay_memory;
  ExpertStats expert_stats;
  const std::vector<uint8_t> token_classes;  // by token id; empty when nobody looks at them
  RoutingProfile routing_profile;
  RouterBias router_bias;
  ExpertPins expert_pins;
  TenantLedger tenants;
  std::atomic<bool> stopping = false;
  mutable std::mutex capacity_mutex;
  CapacityPolicy capacity;  // guarded by capacity_mutex
  // The engine thread's; the caller's of Step() where there is none.
  EngineLoop loop;
  std::thread thread;
};

namespace {

absl::Status CheckTokenIds(absl::string_view what, std::span<const int32_t> ids, int32_t vocab_size) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(what, " has token id ", id, ", vocabulary is ", vocab_size));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const SamplingParams& params, int32_t vocab_size) {
  if (params.max_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat("max_tokens is ", params.max_tokens, ", minimum is 1"));
  }
  CADRE_RETURN_IF_ERROR(CheckTokenIds("stop_token_ids", params.stop_token_ids, vocab_size));
  CADRE_RETURN_IF_ERROR(CheckTokenIds("allowed_token_ids", params.allowed_token_ids, vocab_size));
  for (const LogitBias& bias : params.logit_bias) {
    CADRE_RETURN_IF_ERROR(CheckTokenIds("logit_bias", {&bias.token_id, 1}, vocab_size));
  }
  return absl::OkStatus();
}

absl::Status CheckRequest(const Request& request, int32_t vocab_size, bool has_tokenizer) {
  CADRE_CHECK(request.sink != nullptr);
  CADRE_CHECK(request.cancel != nullptr);
  if (request.prompt.empty()) return absl::InvalidArgumentError("prompt has no tokens");
  if (request.num_sequences < 1) {
    return absl::InvalidArgumentError(absl::StrCat("n is ", request.num_sequences, ", minimum is 1"));
  }
  CADRE_RETURN_IF_ERROR(CheckTokenIds("prompt", request.prompt, vocab_size));
  CADRE_RETURN_IF_ERROR(CheckSampling(request.sampling, vocab_size));
  if (request.wants_text && !has_tokenizer) {
    return absl::InvalidArgumentError("this model has no tokenizer: it answers with token ids only");
  }
  if (!request.wants_text && !request.sampling.stop_strings.empty()) {
    return absl::InvalidArgumentError("stop strings need text output");
  }
  return absl::OkStatus();
}

}  // namespace

Engine::Engine(EngineOptions options, std::unique_ptr<ModelRunner> runner, const Tokenizer* tokenizer,
               std::shared_ptr<const Clock> clock, EngineObserver* observer)
    : state_(std::make_unique<State>(std::move(options), std::move(runner), tokenizer, std::move(clock), observer)) {}

Engine::~Engine() { Stop(); }

void Engine::Stop() {
  state_->queue.Close();
  state_->stopping.store(true, std::memory_order_release);
  state_->queue.Wake();
  if (state_->thread.joinable()) state_->thread.join();
  state_->loop.EndAll(absl::UnavailableError("the server stopped before the request was finished"));
}

void Engine::Start() {
  CADRE_CHECK(!state_->thread.joinable());
  state_->thread = std::thread([state = state_.get()] { state->RunUntilStopped(); });
}

absl::Status Engine::Submit(Request request) {
  const bool has_tokenizer = state_->tokenizer != nullptr;
  CADRE_RETURN_IF_ERROR(CheckRequest(request, limits().vocab_size, has_tokenizer));
  CADRE_RETURN_IF_ERROR(
      state_->loop.CheckFits(static_cast<int64_t>(request.prompt.size()), request.sampling.max_tokens));
  CADRE_RETURN_IF_ERROR(state_->CheckRouting(request));
  CADRE_RETURN_IF_ERROR(state_->CheckReplay(request));
  CADRE_RETURN_IF_ERROR(state_->ChooseCapacity(&request));
  CADRE_RETURN_IF_ERROR(state_->CheckTime(&request));
  if (request.echo && request.wants_text) {
    request.prompt_text = state_->tokenizer->Decode(request.prompt, request.sampling.skip_special_tokens);
  }
  CADRE_RETURN_IF_ERROR(state_->ChargeReplay(&request));
  return state_->queue.Push(std::move(request));
}

void Engine::Wake() { state_->queue.Wake(); }

void Engine::SetMemoryPressure(MemoryPressure pressure) {
  state_->queue.SetMemoryPressure(pressure);
  state_->loop.SetMemoryPressure(pressure);
  if (pressure >= MemoryPressure::kEvict) state_->queue.Wake();
}

absl::StatusOr<CapacityPolicy> Engine::SetCapacityPolicy(const CapacityPolicy& policy) {
  CADRE_RETURN_IF_ERROR(state_->CheckCapacity(policy));
  const std::lock_guard lock(state_->capacity_mutex);
  return std::exchange(state_->capacity, policy.is_on() ? policy : CapacityPolicy());
}

CapacityPolicy Engine::capacity_policy() const { return state_->CurrentCapacity(); }

RouterBiasReport Engine::router_bias() const { return state_->router_bias.Report(); }

absl::Status Engine::ResetRouterBias() {
  if (!state_->router_bias.RequestReset()) {
    return absl::FailedPreconditionError("the selection bias of the routers is not nudged: --router-bias-rate is 0");
  }
  Wake();
  return absl::OkStatus();
}

absl::StatusOr<PinChange> Engine::PinExperts(std::vector<ExpertId> experts) {
  CADRE_ASSIGN_OR_RETURN(const PinChange change, state_->expert_pins.Set(std::move(experts)));
  Wake();
  return change;
}

absl::Status Engine::AskForShares(const MemoryShares& shares) {
  CADRE_RETURN_IF_ERROR(state_->loop.AskForShares(shares));
  Wake();
  return absl::OkStatus();
}

std::vector<ExpertId> Engine::pinned_experts() const { return state_->expert_pins.pinned(); }

void Engine::StartDrain() { state_->queue.Close(); }

bool Engine::draining() const { return state_->queue.closed(); }

bool Engine::AwaitIdle(absl::Time deadline) {
  const absl::Duration timeout = deadline == absl::InfiniteFuture()
                                     ? absl::InfiniteDuration()
                                     : std::max(deadline - state_->clock->Now(), absl::ZeroDuration());
  return state_->board.AwaitFinished([this] { return state_->queue.totals().pushed_requests; }, timeout);
}

bool Engine::Step() {
  CADRE_CHECK(!state_->thread.joinable());
  return state_->loop.Step();
}

std::vector<TenantRouting> Engine::Tenants() const { return state_->tenants.Snapshot(); }

ShadowSimulator* Engine::shadow_simulator() const { return state_->runner->shadow_simulator(); }

const RunnerLimits& Engine::limits() const { return state_->runner->limits(); }

const EngineOptions& Engine::options() const { return state_->options; }

EngineSnapshot Engine::Snapshot() const {
  const StatusBoard::Notice notice = state_->board.Read();
  const RequestQueue::Totals totals = state_->queue.totals();
  EngineSnapshot snapshot = notice.snapshot;
  snapshot.admitted_requests = totals.pushed_requests;
  snapshot.waiting_requests += totals.pushed_requests - notice.taken_requests;
  snapshot.is_in_forward = state_->board.is_in_forward();
  snapshot.queued_requests = totals.requests_by_class;
  snapshot.waiting_tokens += totals.pushed_prompt_tokens - notice.taken_prompt_tokens;
  const absl::Time oldest = std::min(notice.oldest_arrival, totals.oldest_arrival);
  if (oldest != absl::InfiniteFuture()) {
    snapshot.oldest_wait = std::max(state_->clock->Now() - oldest, absl::ZeroDuration());
  }
  return snapshot;
}

const ExpertStats& Engine::expert_stats() const { return state_->expert_stats; }

ExpertStats& Engine::expert_stats() { return state_->expert_stats; }

const RoutingProfile& Engine::routing_profile() const { return state_->routing_profile; }

absl::Status Engine::Audit() const { return state_->loop.Audit(); }

}  // namespace cadre
