// What a decision costs: the scheduler's part of a step, in which nobody computes anything.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "engine/schedule/scheduler.h"

namespace cadre {
namespace {

constexpr int32_t kBlockSize = 16;

std::vector<int32_t> Prompt(int32_t length, int32_t salt) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < length; ++i) tokens.push_back(i * 31 + salt);
  return tokens;
}

void Execute(Scheduler& scheduler, std::deque<Sequence>& sequences, const StepPlan& plan) {
  for (const ScheduledChunk& chunk : plan.chunks) {
    Sequence& sequence = sequences[static_cast<size_t>(chunk.sequence)];
    sequence.Advance();
    if (!chunk.samples) continue;
    sequence.AppendToken(9);
    scheduler.Confirm(&sequence);
  }
}

// A step in which `num_seqs` sequences of 8 tenants decode, all with a context of 1024 tokens and more.
void BM_DecodeStep(benchmark::State& state) {
  const auto num_seqs = static_cast<int32_t>(state.range(0));
  const bool is_cached = state.range(1) != 0;
  BlockPool pool(1 << 19);
  Scheduler scheduler(
      {.max_num_seqs = num_seqs, .max_num_batched_tokens = 1 << 20, .block_size = kBlockSize, .max_model_len = 1 << 24},
      &pool);
  std::deque<Sequence> sequences;
  for (int32_t i = 0; i < num_seqs; ++i) {
    SequenceTraits traits{.tenant = std::to_string(i % 8)};
    if (is_cached) traits.cache_domain = traits.tenant;
    scheduler.Add(&sequences.emplace_back(i, Prompt(1024, i), traits));
  }
  Execute(scheduler, sequences, [&] {
    const StepPlan plan = scheduler.Plan();
    scheduler.Commit(plan);
    return plan;
  }());
  for (auto _ : state) {
    const StepPlan plan = scheduler.Plan();
    scheduler.Commit(plan);
    Execute(scheduler, sequences, plan);
  }
  state.SetItemsProcessed(state.iterations() * num_seqs);
}
BENCHMARK(BM_DecodeStep)->ArgsProduct({{64, 256}, {0, 1}})->ArgNames({"seqs", "cached"})->Iterations(3000);

// From arrival to the first plan and to the end, for a prompt that is in the cache but for its last block; 200 others
// of 50 tenants wait behind it.
void BM_AdmitHit(benchmark::State& state) {
  const auto length = static_cast<int32_t>(state.range(0));
  BlockPool pool(1 << 16);
  Scheduler scheduler(
      {.max_num_seqs = 1, .max_num_batched_tokens = 1 << 20, .block_size = kBlockSize, .max_model_len = 1 << 24},
      &pool);
  std::deque<Sequence> sequences;
  SequenceId id = 0;
  const auto serve = [&] {
    Sequence& sequence =
        sequences.emplace_back(id++, Prompt(length, 0), SequenceTraits{.priority = 1, .cache_domain = "d"});
    scheduler.Add(&sequence);
    const StepPlan plan = scheduler.Plan();
    scheduler.Commit(plan);
    sequence.Advance();
    sequence.AppendToken(9);
    scheduler.Confirm(&sequence);
    scheduler.Finish(&sequence);
  };
  serve();
  for (int32_t i = 0; i < 200; ++i) {
    scheduler.Add(&sequences.emplace_back(id++, Prompt(64, i),
                                          SequenceTraits{.priority = -100, .tenant = std::to_string(i % 50)}));
  }
  for (auto _ : state) serve();
}
BENCHMARK(BM_AdmitHit)->Arg(512)->Arg(4096)->ArgName("prompt")->Iterations(2000);

}  // namespace
}  // namespace cadre

BENCHMARK_MAIN();
