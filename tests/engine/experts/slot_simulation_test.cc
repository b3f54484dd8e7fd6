// A million operations on slot tables, each beside a model and audited; and the settings are what they are meant to be.
#include "tests/support/slot_simulation.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace cadre {
namespace {

struct Setting {
  const char* name;
  SlotSimulationOptions options;
};

class SlotSimulationTest : public ::testing::TestWithParam<Setting> {};

TEST_P(SlotSimulationTest, EveryAuditIsCleanAndTheModelAgrees) {
  std::mt19937 random(20261123);
  SlotSimulation simulation(GetParam().options);
  constexpr int kNumOperations = 200'000;
  for (int i = 0; i < kNumOperations; ++i) {
    const auto kind = static_cast<uint32_t>(random());
    const auto a = static_cast<uint32_t>(random());
    const absl::Status status = simulation.Operate(kind, a, static_cast<uint32_t>(random()));
    ASSERT_TRUE(status.ok()) << "operation " << i << ": " << status.ToString();
  }
  const absl::Status drained = simulation.Drain();
  ASSERT_TRUE(drained.ok()) << drained.ToString();
  const SlotCounters& counters = simulation.table().counters();
  EXPECT_GT(counters.hits, 1000);
  EXPECT_GT(counters.misses, 1000);
  EXPECT_GT(counters.evictions, 1000);
  EXPECT_GT(counters.loads_failed, 100);
  EXPECT_GT(counters.prefetches_used, 10);
  EXPECT_GT(counters.prefetches_late, 10);
  EXPECT_GT(counters.prefetches_wasted, 10);
  EXPECT_GT(counters.prefetches_failed, 10);
}

INSTANTIATE_TEST_SUITE_P(Tables, SlotSimulationTest,
                         ::testing::Values(Setting{"lru", {EvictionPolicyKind::kLru, 3, 8, 7}},
                                           Setting{"lfu", {EvictionPolicyKind::kLfu, 3, 8, 7}},
                                           Setting{"lfru", {EvictionPolicyKind::kLfru, 3, 8, 7}},
                                           Setting{"least_stale", {EvictionPolicyKind::kLeastStale, 3, 8, 7}},
                                           Setting{"next_use", {EvictionPolicyKind::kNextUse, 3, 8, 7}},
                                           Setting{"one_slot", {EvictionPolicyKind::kLru, 2, 3, 1}},
                                           Setting{"two_words", {EvictionPolicyKind::kLeastStale, 2, 40, 30}},
                                           Setting{"all_fit", {EvictionPolicyKind::kLfru, 2, 4, 9}}),
                         [](const auto& param_info) { return param_info.param.name; });

TEST(SlotSimulationTest, RandomBytesAreOperations) {
  std::mt19937 random(7);
  for (int i = 0; i < 300; ++i) {
    std::vector<uint8_t> bytes(4 + random() % 600);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    const absl::Status status = RunSlotBytes(bytes);
    ASSERT_TRUE(status.ok()) << "input " << i << ": " << status.ToString();
  }
}

}  // namespace
}  // namespace cadre
