// Random operations on scheduler, pool and sequences, audited after each one; and seeded bugs that the audit must
// catch.
#include "tests/support/scheduler_simulation.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace cadre {
namespace {

struct Setting {
  const char* name;
  int32_t num_blocks;
  int32_t block_size;
  int32_t max_num_batched_tokens;
  int32_t max_num_seqs;
  int32_t max_prefill_chunk = 0;
  bool keeps_idle = true;
  int32_t key_bits = 64;
  int32_t prompt_group = 0;
  int32_t max_sequence_blocks = 0;  // more: the pool is made smaller and larger, now and then
  bool has_preferences = false;
};

int32_t UpTo(int32_t n, std::mt19937* random) { return std::uniform_int_distribution<int32_t>(1, n)(*random); }

// Of every kind: three tenants, three priorities, families of prompts, groups, with and without cache.
SimulatedArrival RandomArrival(std::mt19937* random) {
  const auto up_to = [random](int32_t n) { return UpTo(n, random); };
  SimulatedArrival arrival;
  arrival.num_prompt_tokens = up_to(up_to(10) == 1 ? 180 : 40);
  arrival.max_tokens = up_to(40);
  arrival.num_generated = up_to(arrival.max_tokens);
  arrival.ttl = up_to(200);
  arrival.num_sequences = up_to(6) == 1 ? up_to(4) : 1;
  arrival.family = up_to(4) - 1;
  arrival.num_family_tokens = up_to(2) == 1 ? 24 : up_to(60);
  arrival.tenant = std::string(1, static_cast<char>('a' + up_to(3)));
  arrival.priority = up_to(5) == 1 ? up_to(3) - 2 : 0;
  arrival.is_cached = up_to(8) > 1;
  arrival.needs_prompt_logits = up_to(12) == 1;
  return arrival;
}

class SchedulerSimulationTest : public testing::TestWithParam<Setting> {};

TEST_P(SchedulerSimulationTest, EveryArrivalEndsAndEveryAuditIsClean) {
  const Setting& setting = GetParam();
  std::mt19937 random(20240607);
  const auto up_to = [&](int32_t n) { return UpTo(n, &random); };
  SchedulerOptions options;
  options.block_size = setting.block_size;
  options.max_num_batched_tokens = setting.max_num_batched_tokens;
  options.max_num_seqs = setting.max_num_seqs;
  options.max_model_len = 200;
  options.max_prefill_chunk = setting.max_prefill_chunk;
  options.max_sequence_blocks = setting.max_sequence_blocks;
  options.prefix_cache.keeps_idle = setting.keeps_idle;
  options.prefix_cache.key_bits = setting.key_bits;
  options.fair_queue = {.priority_tokens = 100, .max_idle_tenants = 1};
  SchedulerSimulation simulation(options, setting.num_blocks, setting.prompt_group);
  if (setting.has_preferences) {
    // What is in memory changes from time to time.
    simulation.SetPreferences([&simulation](const Sequence& sequence) -> Preference {
      const auto hash = static_cast<uint64_t>(sequence.tokens().front()) + simulation.num_steps() / 16 * 7919u;
      return {.share = static_cast<double>(hash % 11) / 10, .may_be_passed_over = sequence.id() % 13 != 0};
    });
  }
  constexpr int kNumOperations = 100'000;
  for (int i = 0; i < kNumOperations; ++i) {
    absl::Status status;
    const int32_t dice = up_to(100);
    if (dice <= 15) {
      status = simulation.Arrive(RandomArrival(&random));
    } else if (dice <= 19) {
      status = simulation.Cancel(static_cast<uint32_t>(random()));
    } else if (dice <= 20) {
      status = simulation.Fail(static_cast<uint32_t>(random()));
    } else if (dice <= 23) {
      status = simulation.StopSoon(static_cast<uint32_t>(random()));
    } else if (dice <= 30) {
      status = simulation.Expire(up_to(5));
    } else if (setting.max_sequence_blocks > 0 && dice <= 33) {
      status = simulation.Resize(static_cast<uint32_t>(random()));
    } else {
      status = simulation.Step();
    }
    ASSERT_TRUE(status.ok()) << "operation " << i << ": " << status.ToString();
  }
  const absl::Status drained = simulation.Drain();
  ASSERT_TRUE(drained.ok()) << drained.ToString();
  EXPECT_GT(simulation.num_arrived(), kNumOperations / 10);
  EXPECT_EQ(simulation.num_arrived(), simulation.num_refused() + simulation.num_ended());
  EXPECT_LE(simulation.most_preemptions(), Scheduler::kMaxPreemptions);
  // The settings are what they are meant to be.
  EXPECT_GT(simulation.num_found(), setting.num_blocks > 1 ? 5000 : -1);
  const bool is_resized = setting.max_sequence_blocks > 0;
  EXPECT_EQ(simulation.scheduler().prefix_cache().num_evictions() > 0, setting.keeps_idle || is_resized);
  EXPECT_EQ(simulation.num_resizes() > 1000, is_resized);
  EXPECT_EQ(simulation.num_drained() > 100, is_resized);
  EXPECT_EQ(simulation.scheduler().fair_queue().num_preferred() > 500, setting.has_preferences);
}

INSTANTIATE_TEST_SUITE_P(Pools, SchedulerSimulationTest,
                         testing::Values(Setting{"roomy", 256, 16, 256, 16}, Setting{"tiny", 12, 4, 16, 8},
                                         Setting{"one_row", 40, 4, 1, 4}, Setting{"one_block", 1, 16, 8, 8},
                                         Setting{"block_size_one", 60, 1, 7, 32},
                                         Setting{"small_chunks", 64, 4, 64, 16, 3},
                                         Setting{"groups", 64, 4, 32, 16, 12, true, 64, 8},
                                         Setting{"odd_groups", 40, 4, 16, 8, 0, true, 64, 6},
                                         Setting{"no_idle_blocks", 64, 4, 32, 16, 0, false},
                                         Setting{"resized", 64, 4, 32, 16, 0, true, 64, 0, 20},
                                         Setting{"resized_groups", 48, 4, 32, 16, 12, true, 8, 8, 24},
                                         Setting{"resized_without_idle", 40, 4, 64, 8, 0, false, 64, 0, 10},
                                         Setting{"colliding_keys", 48, 4, 32, 16, 0, true, 1},
                                         Setting{"preferences", 40, 4, 16, 6, 0, true, 64, 0, 0, true}),
                         [](const auto& param_info) { return param_info.param.name; });

// Without eviction pressure the tiny setting would prove little.
TEST(SchedulerSimulationTest, TinyPoolsPreempt) {
  SchedulerOptions options{.max_num_seqs = 8, .max_num_batched_tokens = 64, .block_size = 4, .max_model_len = 128};
  SchedulerSimulation simulation(options, 24);
  for (int i = 0; i < 100; ++i)
    ASSERT_TRUE(simulation.Arrive({.num_prompt_tokens = 10, .max_tokens = 40, .num_generated = 40}).ok());
  ASSERT_TRUE(simulation.Drain().ok());
  EXPECT_EQ(simulation.num_ended(), 100);
  EXPECT_GT(simulation.num_preemptions(), 20);
  EXPECT_GT(simulation.num_recomputed(), 0);
  EXPECT_EQ(simulation.num_rows() - simulation.num_recomputed() + simulation.num_found(), 100 * (10 + 40 - 1));
  EXPECT_LE(simulation.most_preemptions(), Scheduler::kMaxPreemptions);
}

// Who must not be preempted any more was promised what there was when it entered.
TEST(SchedulerSimulationTest, APoolThatShrinksBreaksNoPromise) {
  SchedulerOptions options{.max_num_seqs = 8, .max_num_batched_tokens = 64, .block_size = 4, .max_model_len = 128};
  options.max_sequence_blocks = 13;
  SchedulerSimulation simulation(options, 40);
  std::mt19937 random(11);
  int64_t num_refused = 0;
  for (int i = 0; i < 400; ++i)
    ASSERT_TRUE(simulation.Arrive({.num_prompt_tokens = 10, .max_tokens = 40, .num_generated = 40}).ok());
  for (int i = 0; i < 6000; ++i) {
    const int64_t before = simulation.num_resizes();
    if (i % 3 == 0) {
      const absl::Status resized = simulation.Resize(static_cast<uint32_t>(random()));
      ASSERT_TRUE(resized.ok()) << i << ": " << resized;
      num_refused += simulation.num_resizes() == before ? 1 : 0;
    }
    const absl::Status status = simulation.Step();
    ASSERT_TRUE(status.ok()) << i << ": " << status;
  }
  ASSERT_TRUE(simulation.Drain().ok());
  EXPECT_EQ(simulation.most_preemptions(), Scheduler::kMaxPreemptions);
  EXPECT_GT(num_refused, 20);
  EXPECT_GT(simulation.num_drained(), 100);
}

TEST(SchedulerSimulationTest, RandomBytesAreOperations) {
  std::mt19937 random(7);
  for (int i = 0; i < 300; ++i) {
    std::vector<uint8_t> bytes(4 + random() % 400);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    const absl::Status status = RunSchedulerBytes(bytes);
    ASSERT_TRUE(status.ok()) << "input " << i << ": " << status.ToString();
  }
}

// Negative controls: a detector that never fires proves nothing.
TEST(SchedulerSimulationTest, AuditCatchesALeakedBlock) {
  SchedulerSimulation simulation({.block_size = 4, .max_model_len = 64}, 8);
  ASSERT_TRUE(simulation.Arrive({.num_prompt_tokens = 6, .max_tokens = 4, .num_generated = 4}).ok());
  simulation.pool().Allocate(1);
  const absl::Status status = simulation.Step();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_NE(status.message().find("0 sequences hold it"), absl::string_view::npos) << status.ToString();
}

TEST(SchedulerSimulationTest, AuditCatchesABlockReleasedUnderItsHolder) {
  SchedulerSimulation simulation({.block_size = 4, .max_model_len = 64}, 8);
  ASSERT_TRUE(simulation.Arrive({.num_prompt_tokens = 6, .max_tokens = 4, .num_generated = 4}).ok());
  ASSERT_TRUE(simulation.Step().ok());
  int32_t held = 0;
  while (simulation.pool().ref_count(held) == 0) ++held;
  simulation.pool().Release(held);
  EXPECT_EQ(simulation.Expire(0).code(), absl::StatusCode::kInternal);
}

TEST(SchedulerSimulationTest, AuditCatchesABlockWithTwoHolders) {
  BlockPool pool(8);
  Scheduler scheduler({.block_size = 4, .max_model_len = 64}, &pool);
  Sequence first(0, {1, 2, 3});
  Sequence second(1, {4, 5, 6});
  scheduler.Add(&first);
  scheduler.Add(&second);
  scheduler.Commit(scheduler.Plan());
  ASSERT_TRUE(scheduler.Audit().ok());
  first.Advance();
  first.AppendToken(9);
  second.Advance();
  second.AppendToken(9);
  first.Schedule(1, {});
  ASSERT_TRUE(scheduler.Audit().ok());
  first.Advance();
  first.AppendToken(9);
  first.Schedule(1, second.block_table());  // the fifth token in another's block
  EXPECT_NE(scheduler.Audit().message().find("2 sequences hold it"), absl::string_view::npos);
}

TEST(SchedulerSimulationTest, AuditCatchesASequenceInTheWrongList) {
  BlockPool pool(8);
  Scheduler scheduler({.block_size = 4, .max_model_len = 64}, &pool);
  Sequence sequence(0, {1, 2, 3});
  scheduler.Add(&sequence);
  scheduler.Commit(scheduler.Plan());
  sequence.Advance();
  for (int32_t block : sequence.Preempt()) pool.Release(block);  // behind the scheduler's back
  EXPECT_NE(scheduler.Audit().message().find("wrong list"), absl::string_view::npos);
}

}  // namespace
}  // namespace cadre
