#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <span>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/deadline_admission.h"
#include "engine/engine_loop.h"
#include "engine/request/request_queue.h"
#include "engine/status_board.h"

namespace cadre {

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
        expert_stats(runner->limits().num_moe_layers, runner->limits().num_experts, runner->limits().top_k,
                     options.stats_window_tokens),
        loop(options, {.runner = runner.get(),
                       .tokenizer = tokenizer,
                       .clock = clock.get(),
                       .observer = observer,
                       .queue = &queue,
                       .expert_stats = &expert_stats,
                       .board = &board}) {}

  void RunUntilStopped() {
    while (!stopping.load(std::memory_order_acquire)) {
      if (!loop.Step()) queue.Wait();
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

  // Constant after construction.
  const EngineOptions options;
  const std::unique_ptr<ModelRunner> runner;
  const Tokenizer* const tokenizer;
  const std::shared_ptr<const Clock> clock;
  // With their own synchronization.
  RequestQueue queue;
  StatusBoard board;
  ExpertStats expert_stats;
  std::atomic<bool> stopping = false;
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
  CADRE_RETURN_IF_ERROR(state_->CheckTime(&request));
  if (request.echo && request.wants_text) {
    request.prompt_text = state_->tokenizer->Decode(request.prompt, request.sampling.skip_special_tokens);
  }
  return state_->queue.Push(std::move(request));
}

void Engine::Wake() { state_->queue.Wake(); }

void Engine::SetMemoryPressure(MemoryPressure pressure) {
  state_->queue.SetMemoryPressure(pressure);
  state_->loop.SetMemoryPressure(pressure);
  if (pressure >= MemoryPressure::kEvict) state_->queue.Wake();
}

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

absl::Status Engine::Audit() const { return state_->loop.Audit(); }

}  // namespace cadre
