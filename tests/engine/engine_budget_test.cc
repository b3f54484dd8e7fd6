// Memory that moves between expert slots and KV blocks while requests run: no answer changes by it, no more memory is
// in use than the budget, and under a load that lacks blocks it moves by itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/expert_pins.h"
#include "engine/joint_budget.h"
#include "engine/schedule/scheduler.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/host_limits.h"
#include "tests/support/engine_harness.h"
#include "tests/support/random_model.h"
#include "tests/support/time_limit.h"
#include "tests/support/transformer_engine.h"

namespace cadre {
namespace {

using testing::HasSubstr;

// Time passes with every look at the clock.
class TickingClock final : public Clock {
 public:
  absl::Time Now() const override { return time_ += absl::Milliseconds(20); }

 private:
  mutable absl::Time time_ = absl::UnixEpoch();
};

struct Sizes {
  MemoryShares initial;
  MemoryShares least;
  MemoryShares most;
  int32_t block_size = 4;
  int64_t step_slots = 1;
};

std::unique_ptr<ModelRunner> MakeRunner(const ModelConfig& config, const Sizes& sizes, Device* device,
                                        int num_ahead_threads) {
  const CheckpointSummary summary = SummaryOf(config, DType::kF32);
  const int64_t block_bytes = config.num_layers * 2 * config.num_kv_heads * config.head_dim * sizes.block_size * 4;
  const RunnerOptions runner_options = {.max_model_len = static_cast<int32_t>(sizes.least.blocks) * sizes.block_size,
                                        .max_num_seqs = 8,
                                        .max_num_batched_tokens = 64,
                                        .kv_block_size = sizes.block_size,
                                        .kv_dtype = DType::kF32,
                                        .kv_cache_bytes = sizes.initial.blocks * block_bytes,
                                        .expert_cache_bytes = sizes.initial.slots * summary.one_expert_bytes,
                                        .expert_ahead_threads = num_ahead_threads};
  MemoryPlan plan = PlanMemory(config, summary, runner_options, *device, device->ops()).value();
  CADRE_CHECK_EQ(plan.num_expert_slots, sizes.initial.slots);
  CADRE_CHECK_EQ(int64_t{plan.num_kv_blocks}, sizes.initial.blocks);
  plan.split = {.budget_bytes = plan.expert_weight_bytes + plan.kv_cache_bytes,
                .slot_bytes = summary.one_expert_bytes,
                .block_bytes = block_bytes,
                .min_slots = sizes.least.slots,
                .max_slots = sizes.most.slots,
                .min_blocks = sizes.least.blocks,
                .max_blocks = sizes.most.blocks,
                .step_slots = sizes.step_slots};
  Weights weights = MakeRandomWeights(config, DType::kF32, 5, *device);
  weights.expert_source = std::make_unique<MemoryExperts>(TakeExperts(config, &weights));
  auto runner = CreateTransformerRunner(config, std::move(weights), plan, runner_options, device);
  CADRE_CHECK(runner.ok());
  return *std::move(runner);
}

// An engine over the real transformer whose slots and blocks live from the budget of `sizes.initial`.
struct BudgetEngine {
  BudgetEngine(const ModelConfig& config, const Sizes& sizes, EngineOptions options,
               std::shared_ptr<const Clock> clock = std::make_shared<FakeClock>(), int num_ahead_threads = 0) {
    device = std::move(CreateCpuDevice({.num_threads = 1})).value();
    options.max_num_seqs = 8;
    options.max_num_batched_tokens = 64;
    engine = std::make_unique<Engine>(options, MakeRunner(config, sizes, device.get(), num_ahead_threads), nullptr,
                                      std::move(clock), &observer);
  }

  Ticket Submit(int32_t index, int32_t num_prompt_tokens, int32_t max_tokens) {
    Ticket ticket{.prompt = MakePrompt(num_prompt_tokens, index)};
    for (int32_t& token : ticket.prompt) token %= kSmallVocabSize;
    Request request;
    request.prompt = ticket.prompt;
    request.sampling.max_tokens = max_tokens;
    request.sampling.temperature = index % 2 == 0 ? 0.0f : 0.9f;
    request.sampling.seed = static_cast<uint64_t>(index);
    request.sampling.logprobs = true;
    request.sampling.top_logprobs = 3;
    request.arrival = absl::UnixEpoch();
    request.wants_text = false;
    request.sink = ticket.sink;
    request.cancel = ticket.cancel;
    const absl::Status status = engine->Submit(std::move(request));
    EXPECT_TRUE(status.ok()) << status;
    return ticket;
  }

  MemoryShares shares() const { return engine->Snapshot().joint_budget->shares; }

  struct Moves final : EngineObserver {
    void OnStep(const StepReport& /*report*/) override {}
    void OnFinish(const FinishSummary& /*summary*/) override {}
    void OnMemoryMove(const MemoryMove& move, const JointBudgetReport& /*report*/) override { told.push_back(move); }
    std::vector<MemoryMove> told;
  };

  Moves observer;
  std::unique_ptr<Device> device;
  std::unique_ptr<Engine> engine;
};

// Blocks of 2,048 bytes and experts of 9,600.
const Sizes kSmall = {
    .initial = {.slots = 7, .blocks = 40}, .least = {.slots = 2, .blocks = 16}, .most = {.slots = 8, .blocks = 63}};

ModelConfig SmallQwen() { return SmallConfig(ModelFamily::kQwen3Moe); }

std::vector<Ticket> SubmitAll(BudgetEngine& served) {
  std::vector<Ticket> tickets;
  for (int32_t i = 0; i < 24; ++i) tickets.push_back(served.Submit(i, 1 + (i * 7) % 20, 12 + i));
  return tickets;
}

void Finish(BudgetEngine& served) {
  while (served.engine->Step()) ASSERT_TRUE(served.engine->Audit().ok()) << served.engine->Audit();
}

TEST(EngineBudgetTest, AnswersDoNotDependOnWhereMemoryGoes) {
  // Of blocks as many as all could want, and nothing moves.
  Sizes roomy = kSmall;
  roomy.initial.blocks = roomy.most.blocks = 128;
  BudgetEngine still(SmallQwen(), roomy, {});
  const std::vector<Ticket> want = SubmitAll(still);
  Finish(still);

  for (const PrefixCacheScope scope : {PrefixCacheScope::kTenant, PrefixCacheScope::kOff}) {
    for (const int num_ahead_threads : {0, 2}) {
      BudgetEngine moved(SmallQwen(), kSmall, {.prefix_cache = scope}, std::make_shared<FakeClock>(),
                         num_ahead_threads);
      const std::vector<Ticket> got = SubmitAll(moved);
      const std::vector<MemoryShares> wanted = {{7, 16}, {3, 58}, {5, 49}, {2, 63}, {7, 40}, {4, 20}};
      for (size_t step = 0; moved.engine->Step(); ++step) {
        ASSERT_TRUE(moved.engine->Audit().ok()) << moved.engine->Audit();
        if (step % 3 != 0) continue;
        const absl::Status asked = moved.engine->AskForShares(wanted[step / 3 % wanted.size()]);
        ASSERT_TRUE(asked.ok()) << asked;
      }
      for (size_t i = 0; i < got.size(); ++i) {
        SCOPED_TRACE(i);
        ASSERT_TRUE(got[i].sink->summary().status.ok()) << got[i].sink->summary().status;
        ExpectSameAnswer(got[i], want[i]);
      }
      const EngineSnapshot snapshot = moved.engine->Snapshot();
      EXPECT_GT(snapshot.preemptions, 3);
      EXPECT_GT(snapshot.joint_budget->moves_to_slots, 3);
      EXPECT_GT(snapshot.joint_budget->moves_to_blocks, 3);
      const std::vector<MemoryMove>& told = moved.observer.told;
      EXPECT_EQ(snapshot.joint_budget->moves_to_slots,
                std::ranges::count_if(told, [](const auto& move) { return move.to.slots > move.from.slots; }));
      EXPECT_EQ(snapshot.joint_budget->moves_to_blocks,
                std::ranges::count_if(told, [](const auto& move) { return move.to.blocks > move.from.blocks; }));
      for (const MemoryMove& move : told) EXPECT_TRUE(move.status.ok()) << move.status;
    }
  }
}

TEST(EngineBudgetTest, WhatIsSharedOutIsWhatThereIs) {
  BudgetEngine served(SmallQwen(), kSmall, {});
  served.Submit(1, 10, 4);
  Finish(served);
  EXPECT_EQ(served.shares(), kSmall.initial);
  ASSERT_TRUE(served.engine->AskForShares({.slots = 3, .blocks = 58}).ok());
  for (int i = 0; i < 1000 && served.shares().slots != 3; ++i) served.engine->Step();
  const EngineSnapshot snapshot = served.engine->Snapshot();
  EXPECT_EQ(snapshot.joint_budget->shares, (MemoryShares{.slots = 3, .blocks = 58}));
  EXPECT_EQ(snapshot.kv_blocks_total, 58);
  EXPECT_EQ(snapshot.expert_cache->num_slots, 3);
  EXPECT_EQ(snapshot.expert_cache->empty_slots + snapshot.expert_cache->idle_slots, 3);
}

TEST(EngineBudgetTest, NobodyIsPromisedWhatMayGo) {
  BudgetEngine served(SmallQwen(), kSmall, {});
  EXPECT_EQ(served.engine->limits().max_sequence_blocks, 16);
  const auto ask = [&](int64_t slots, int64_t blocks) {
    return std::string(served.engine->AskForShares({.slots = slots, .blocks = blocks}).message());
  };
  EXPECT_THAT(ask(1, 40), HasSubstr("expert slots are to be 1, must be 2 to 8"));
  EXPECT_THAT(ask(7, 15), HasSubstr("KV blocks are to be 15, must be 16 to 63"));
  EXPECT_THAT(ask(7, 60), HasSubstr("the budget is"));
  // The longest request that is accepted runs with the fewest blocks.
  ASSERT_TRUE(served.engine->AskForShares({.slots = 7, .blocks = 16}).ok());
  const Ticket longest = served.Submit(2, 20, 44);
  const Ticket other = served.Submit(3, 20, 40);
  Finish(served);
  EXPECT_EQ(served.shares().blocks, 16);
  EXPECT_EQ(longest.sink->token_ids().size(), 44u);
  EXPECT_EQ(other.sink->token_ids().size(), 40u);
}

TEST(EngineBudgetTest, PinnedExpertsStay) {
  BudgetEngine served(SmallQwen(), kSmall, {});
  ASSERT_TRUE(served.engine->PinExperts({0, 1, 2, 3}).ok());
  served.Submit(1, 10, 4);
  Finish(served);
  ASSERT_TRUE(served.engine->AskForShares({.slots = 4, .blocks = 49}).ok());
  for (int i = 0; i < 10; ++i) served.engine->Step();
  EXPECT_EQ(served.shares(), kSmall.initial) << "one place must be left";
  ASSERT_TRUE(served.engine->AskForShares({.slots = 5, .blocks = 49}).ok());
  for (int i = 0; i < 1000 && served.shares().slots != 5; ++i) served.engine->Step();
  EXPECT_EQ(served.shares().slots, 5);
  EXPECT_THAT(std::string(served.engine->PinExperts({0, 1, 2, 3, 4}).status().message()), HasSubstr("more than 4"));
}

// The runner may not have been told yet that pins were taken back, as on an idle server.
TEST(JointBudgetTest, PinsThatWereTakenBackHoldNoSlot) {
  const std::unique_ptr<Device> device = std::move(CreateCpuDevice({.num_threads = 1})).value();
  const std::unique_ptr<ModelRunner> runner = MakeRunner(SmallQwen(), kSmall, device.get(), /*num_ahead_threads=*/0);
  BlockPool pool(static_cast<int32_t>(kSmall.most.blocks));
  Scheduler scheduler({.max_num_seqs = 8,
                       .max_num_batched_tokens = 64,
                       .block_size = kSmall.block_size,
                       .max_sequence_blocks = static_cast<int32_t>(kSmall.least.blocks)},
                      &pool);
  ExpertPins pins(runner.get());
  JointBudget budget(runner.get(), &scheduler, &pins);
  ASSERT_TRUE(pins.Set({0, 1, 2, 3}).ok());
  pins.Apply();
  ASSERT_TRUE(pins.Set({}).ok());
  ASSERT_TRUE(budget.Ask({.slots = 4, .blocks = 49}).ok());
  const std::optional<MemoryMove> move = budget.Advance(/*may_begin=*/true);
  ASSERT_TRUE(move.has_value());
  EXPECT_EQ(move->to.slots, 4);
  EXPECT_EQ(budget.Report().moves_to_blocks, 1);
}

// Experts of 3 MiB, blocks of 64 KiB: 32 MiB go and come.
TEST(EngineBudgetTest, ResidentMemoryStaysWithinTheBudget) {
#ifdef __SANITIZE_THREAD__
  // Its own record of every byte that was ever touched is resident, too, and does not go with the byte.
  GTEST_SKIP() << "the thread sanitizer keeps memory that this test would take for the engine's";
#endif
  ModelConfig config = SmallConfig(ModelFamily::kQwen3Moe);
  config.max_position_embeddings = 4096;
  config.hidden_size = 128;
  config.num_experts = 16;
  config.expert_ffn_size = 2048;
  const Sizes sizes = {.initial = {.slots = 16, .blocks = 768},
                       .least = {.slots = 2, .blocks = 16},
                       .most = {.slots = 28, .blocks = 1280},
                       .block_size = 128};
  BudgetEngine served(config, sizes, {});
  const JointBudgetReport before = *served.engine->Snapshot().joint_budget;
  const int64_t moved_bytes = 10 * before.limits.slot_bytes;
  ASSERT_GE(moved_bytes, int64_t{30} << 20);
  const auto move = [&](const MemoryShares& shares) {
    const int64_t expected = before.limits.budget_bytes - shares.slots * before.limits.slot_bytes -
                             shares.blocks * before.limits.block_bytes;
    ASSERT_GE(expected, 0);
    ASSERT_TRUE(served.engine->AskForShares(shares).ok());
    served.Submit(3, 100, 30);
    Finish(served);
    ASSERT_EQ(served.shares(), shares);
  };
  served.Submit(1, 100, 30);
  Finish(served);  // all that a step needs is there
  const auto resident = static_cast<int64_t>(ResidentAnonymousBytes());
  // At most a huge page at each end of the keys and of the values of a layer, and one behind the slots.
  const int64_t slack = int64_t{(2 * 2 * 2 + 1) * 2} << 20;
  const int64_t blocks_of_ten = moved_bytes / before.limits.block_bytes;
  for (int round = 0; round < 3; ++round) {
    move({.slots = sizes.initial.slots - 10, .blocks = sizes.initial.blocks + blocks_of_ten});
    EXPECT_LT(static_cast<int64_t>(ResidentAnonymousBytes()), resident + slack) << round;
    EXPECT_GT(static_cast<int64_t>(ResidentAnonymousBytes()), resident - slack) << "what is given is committed";
    move({.slots = sizes.initial.slots + 10, .blocks = sizes.initial.blocks - blocks_of_ten});
    EXPECT_LT(static_cast<int64_t>(ResidentAnonymousBytes()), resident + slack) << round;
    EXPECT_GT(static_cast<int64_t>(ResidentAnonymousBytes()), resident - slack) << "what is given is committed";
  }
}

// Eight could run, and there are blocks for two: what is waited for is worth more than experts that are read at once.
TEST(EngineBudgetTest, MemoryMovesToBlocksWhereRequestsWaitForThem) {
  Sizes sizes = kSmall;
  sizes.initial = {.slots = 8, .blocks = 20};
  BudgetEngine served(SmallQwen(), sizes, {.prefix_cache = PrefixCacheScope::kOff}, std::make_shared<TickingClock>());
  std::vector<Ticket> tickets;
  const absl::Time end = absl::Now() + absl::Seconds(60) * kTimeFactor;
  for (int32_t i = 0; served.shares() == sizes.initial && absl::Now() < end; ++i) {
    while (served.engine->Snapshot().waiting_requests < 8) tickets.push_back(served.Submit(i, 20, 20));
    served.engine->Step();
    // The shadow's thread, which is the least urgent of all, gets its turn.
    if (i % 8 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ASSERT_FALSE(served.observer.told.empty());
  EXPECT_GT(served.observer.told.front().to.blocks, sizes.initial.blocks);
  EXPECT_LT(served.observer.told.front().to.slots, sizes.initial.slots);
  const JointBudgetReport report = *served.engine->Snapshot().joint_budget;
  EXPECT_GT(report.effects.blocks_gain, report.effects.slots_loss);
  EXPECT_GE(report.stretch, JointBudget::kStretch);
  for (const Ticket& ticket : tickets) ticket.cancel->Cancel();
  Finish(served);
}

}  // namespace
}  // namespace cadre
