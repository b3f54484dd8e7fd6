// Loads that make themselves worse, in simulated time: clients that come again when they are refused or wait too long,
// and a few requests that are a hundred times the size of the others.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <queue>
#include <random>
#include <vector>

#include "tests/support/engine_harness.h"

namespace cadre {
namespace {

constexpr int kSeats = 8;
constexpr int32_t kOutput = 20;
// Requests a second: steps take 10 ms, and the prompts ride along.
constexpr double kCapacity = kSeats / (kOutput * 0.010);

HarnessOptions EightSeats() {
  HarnessOptions options;
  options.limits.num_kv_blocks = 4096;
  options.limits.max_model_len = 4096;
  options.engine.max_num_seqs = kSeats;
  options.engine.max_num_batched_tokens = 64;
  options.engine.max_prefill_chunk = 32;
  options.engine.deadline_admission = true;
  options.engine.max_queue_requests = 200;
  options.engine.prefix_cache = PrefixCacheScope::kOff;
  return options;
}

// ---- retries ----

enum class Retry { kNever, kAtOnce, kWithBackoff };

struct Attempt {
  absl::Time time;
  int number = 0;  // of its request
  bool operator>(const Attempt& other) const { return time > other.time; }
};

struct StormOutcome {
  double goodput = 0.0;  // requests answered in time, per second
  double wasted = 0.0;   // of the tokens that were generated, those of requests that were not
  int64_t num_attempts = 0;
};

// Twenty seconds of Poisson arrivals at `load` times the capacity. An attempt has a second; one that is refused or late
// is made again, three times at most.
StormOutcome RunStorm(double load, Retry retry) {
  EngineHarness harness(EightSeats());
  std::mt19937 random(11);
  std::exponential_distribution<double> gap(load * kCapacity);
  std::uniform_real_distribution<double> jitter(0.75, 1.25);
  const absl::Time begin = harness.clock->Now();
  const absl::Time end = begin + absl::Seconds(20);
  std::priority_queue<Attempt, std::vector<Attempt>, std::greater<>> attempts;
  for (absl::Time t = begin; t < end; t += absl::Seconds(gap(random))) attempts.push({t});

  struct Open {
    Ticket ticket;
    int number;
  };
  std::vector<Open> open;
  StormOutcome outcome;
  int64_t num_good = 0;
  int64_t num_wasted_tokens = 0;
  const auto try_again = [&](int number) {
    if (retry == Retry::kNever || number == 3) return;
    const double wait = retry == Retry::kAtOnce ? 0.001 : 0.2 * std::pow(2.0, number) * jitter(random);
    attempts.push({harness.clock->Now() + absl::Seconds(wait), number + 1});
  };
  while (harness.clock->Now() < end) {
    while (!attempts.empty() && attempts.top().time <= harness.clock->Now()) {
      const Attempt attempt = attempts.top();
      attempts.pop();
      ++outcome.num_attempts;
      Ticket ticket{.prompt = MakePrompt(8, static_cast<int32_t>(random() % 500))};
      Request request = harness.MakeRequest(ticket, kOutput);
      request.arrival = attempt.time;
      request.deadline = attempt.time + absl::Seconds(1);
      if (harness.engine->Submit(std::move(request)).ok()) {
        open.push_back({ticket, attempt.number});
      } else {
        try_again(attempt.number);
      }
    }
    if (!harness.engine->Step()) {
      harness.clock->Advance(attempts.empty() ? absl::Milliseconds(1) : attempts.top().time - harness.clock->Now());
    }
    std::erase_if(open, [&](const Open& one) {
      if (one.ticket.sink->num_finished() == 0) return false;
      if (one.ticket.sink->summary().status.ok()) {
        ++num_good;
      } else {
        num_wasted_tokens += static_cast<int64_t>(one.ticket.sink->token_ids().size());
        try_again(one.number);
      }
      return true;
    });
  }
  outcome.goodput = static_cast<double>(num_good) / 20;
  outcome.wasted =
      static_cast<double>(num_wasted_tokens) / static_cast<double>(harness.engine->Snapshot().generated_tokens);
  EXPECT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
  return outcome;
}

TEST(EngineMixedLoadTest, ClientsThatComeAgainDoNotMakeItWorse) {
  const double peak = RunStorm(1.0, Retry::kNever).goodput;
  EXPECT_GT(peak, 0.85 * kCapacity);
  for (const Retry retry : {Retry::kAtOnce, Retry::kWithBackoff}) {
    const StormOutcome storm = RunStorm(3.0, retry);
    EXPECT_GE(storm.goodput, 0.9 * peak);
    EXPECT_LE(storm.wasted, 0.01);
    EXPECT_GT(static_cast<double>(storm.num_attempts), 2 * 3.0 * kCapacity * 20) << "most came again and again";
  }
}

// ---- sizes ----

// The 99th percentile of the time to the first token of small requests that were accepted, with `share` of large ones.
absl::Duration SlowFirstToken(double share) {
  HarnessOptions options = EightSeats();
  options.engine.max_queue_wait = absl::Milliseconds(150);
  EngineHarness harness(options);
  std::mt19937 random(13);
  // Load 0.9, counted in tokens: a large request has a hundred times those of a small one.
  std::exponential_distribution<double> gap(0.9 * kCapacity / (1.0 + 99.0 * share));
  std::bernoulli_distribution is_large(share);
  std::vector<Ticket> small;
  const absl::Time begin = harness.clock->Now();
  absl::Time next_arrival = begin;
  while (harness.clock->Now() < begin + absl::Seconds(300)) {
    while (next_arrival <= harness.clock->Now()) {
      const int32_t size = is_large(random) ? 100 : 1;
      Ticket ticket{.prompt = MakePrompt(8 * size, static_cast<int32_t>(random() % 500))};
      Request request = harness.MakeRequest(ticket, kOutput * size);
      request.arrival = next_arrival;
      if (harness.engine->Submit(std::move(request)).ok() && size == 1) small.push_back(ticket);
      next_arrival += absl::Seconds(gap(random));
    }
    if (!harness.engine->Step()) harness.clock->Advance(next_arrival - harness.clock->Now());
  }
  harness.RunUntilIdle();
  std::vector<absl::Duration> first_tokens;
  for (const Ticket& ticket : small) {
    const RequestTimings& timings = ticket.sink->summary().timings;
    first_tokens.push_back(timings.queue + timings.prefill);
  }
  EXPECT_GT(first_tokens.size(), 300u);
  std::ranges::sort(first_tokens);
  return first_tokens[first_tokens.size() * 99 / 100];
}

TEST(EngineMixedLoadTest, FewLargeRequestsDoNotKeepSmallOnesWaiting) {
  EXPECT_LE(SlowFirstToken(0.05), 2 * SlowFirstToken(0.0));
}

}  // namespace
}  // namespace cadre
