// What the cache loads although no step has asked for it: experts that are kept, and those of a warm start.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "engine/experts/expert_cache.h"
#include "tests/support/memory_experts.h"

namespace cadre {
namespace {

constexpr int32_t kNumLayers = 2;
constexpr int32_t kNumExperts = 16;
constexpr int64_t kSlotBytes = 64;

class ExpertPlacingTest : public testing::Test {
 protected:
  ExpertCache& Start(int64_t num_slots, std::vector<ExpertId> warm_start = {},
                     EvictionPolicyKind policy = EvictionPolicyKind::kLru) {
    arena_.assign(static_cast<size_t>(num_slots * kSlotBytes), std::byte{0});
    ExpertCacheOptions options;
    options.num_layers = kNumLayers;
    options.num_experts = kNumExperts;
    options.num_slots = num_slots;
    options.slot_bytes = kSlotBytes;
    options.policy = policy;
    options.warm_start = std::move(warm_start);
    cache_ = std::make_unique<ExpertCache>(options, &experts_, &clock_, arena_.data());
    return *cache_;
  }

  // Until nothing is to come but what is stuck or set aside, which `left` counts.
  void PlaceAll(int64_t left = 0) {
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    while (cache_->Report().awaited > left) {
      ASSERT_LT(absl::Now(), deadline) << cache_->Report().awaited << " do not come";
      const absl::Duration pause = cache_->Place();
      if (cache_->Report().awaited > 0) {
        EXPECT_LE(pause, absl::Seconds(1));
      }
      EXPECT_TRUE(cache_->Audit().ok()) << cache_->Audit();
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }

  std::vector<int32_t> Serve(int32_t layer, const std::vector<int32_t>& needed) {
    std::vector<int32_t> served;
    cache_->BeginLayer(layer, needed);
    for (auto wave = cache_->NextWave(); !wave.empty(); wave = cache_->NextWave()) {
      for (const PlacedExpert& placed : wave) {
        const auto id = layer * kNumExperts + placed.expert;
        EXPECT_EQ(*placed.weights, std::byte(id + 1));
        served.push_back(placed.expert);
      }
    }
    std::ranges::sort(served);
    return served;
  }

  // How many of the lookups of such a step hit.
  int64_t CountHits(int32_t layer, const std::vector<int32_t>& needed) {
    const int64_t before = cache_->Report().slots.hits;
    cache_->BeginStep();
    EXPECT_EQ(Serve(layer, needed), needed);
    return cache_->Report().slots.hits - before;
  }

  MemoryExperts experts_{MakeNumberedExperts(kNumLayers * kNumExperts, size_t{kSlotBytes})};
  FakeClock clock_;
  std::vector<std::byte> arena_;
  std::unique_ptr<ExpertCache> cache_;
};

TEST_F(ExpertPlacingTest, AWarmStartFillsEmptySlots) {
  ExpertCache& cache = Start(12, {3, 1, 20, 31, 7});
  EXPECT_EQ(cache.Report().awaited, 5);
  PlaceAll();
  ExpertCacheReport report = cache.Report();
  EXPECT_EQ(report.slots.placed_loads, 5);
  EXPECT_EQ(report.idle_slots, 5);
  EXPECT_EQ(report.slots.evictions, 0);
  EXPECT_EQ(cache.Place(), absl::InfiniteDuration());
  EXPECT_EQ(CountHits(0, {1, 3, 7}), 3);
  EXPECT_EQ(CountHits(1, {4, 15}), 2);
  EXPECT_EQ(cache.Report().slots.miss_loads, 0);
}

// It was only a guess: nothing that a step has asked for gives way to it.
TEST_F(ExpertPlacingTest, AWarmStartPutsNobodyOut) {
  ExpertCache& cache = Start(4, {16, 17, 18, 19, 20, 21});
  EXPECT_EQ(CountHits(0, {0, 1, 2}), 0);
  PlaceAll();
  EXPECT_EQ(cache.Report().slots.evictions, 0);
  EXPECT_EQ(cache.Report().slots.placed_loads, 1);
  EXPECT_EQ(CountHits(0, {0, 1, 2}), 3);
}

TEST_F(ExpertPlacingTest, TheLeastOfAWarmStartGiveWayFirst) {
  for (const EvictionPolicyKind policy : {EvictionPolicyKind::kLru, EvictionPolicyKind::kLfu}) {
    Start(4, {0, 3, 2, 1}, policy);
    PlaceAll();
    EXPECT_EQ(CountHits(1, {0, 1}), 0);
    EXPECT_EQ(CountHits(0, {0, 3}), 2) << "not the first of the list";
  }
}

TEST_F(ExpertPlacingTest, KeptExpertsComeAndStay) {
  ExpertCache& cache = Start(4);
  EXPECT_EQ(CountHits(0, {0, 1, 2, 3}), 0);
  cache.Keep({5, 3, 20});
  PlaceAll();
  EXPECT_EQ(cache.Report().kept, 3);
  EXPECT_EQ(cache.Report().slots.placed_loads, 2) << "3 was there";
  std::mt19937 rng(1);
  for (int step = 0; step < 50; ++step) {
    std::vector<int32_t> needed;
    for (int32_t e = 0; e < kNumExperts; ++e) {
      if (rng() % 4 == 0) needed.push_back(e);
    }
    CountHits(0, needed);
  }
  EXPECT_EQ(CountHits(0, {3, 5}), 2);
  EXPECT_EQ(CountHits(1, {4}), 1);
  // A new set takes the place of the old one.
  cache.Keep({9});
  PlaceAll();
  EXPECT_EQ(cache.Report().kept, 1);
  CountHits(1, {0, 1, 2, 5});
  EXPECT_EQ(CountHits(0, {3, 5, 9}), 1);
  cache.Keep({});
  EXPECT_EQ(cache.Report().kept, 0);
  EXPECT_EQ(cache.Place(), absl::InfiniteDuration());
}

TEST_F(ExpertPlacingTest, KeptOnesGoBeforeAWarmStart) {
  Start(3, {0, 1, 2});
  cache_->Keep({10, 11});
  PlaceAll();
  EXPECT_EQ(CountHits(0, {10, 11}), 2);
  EXPECT_EQ(cache_->Report().slots.placed_loads, 3);
}

TEST_F(ExpertPlacingTest, OneThatIsAskedForOnItsWayIsReadOnce) {
  ExpertCache& cache = Start(4, {5});
  experts_.SetStuck(5, true);
  cache.Place();
  std::thread release([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    experts_.SetStuck(5, false);
  });
  EXPECT_EQ(CountHits(0, {5}), 0);
  release.join();
  EXPECT_EQ(experts_.num_reads(5), 1);
  EXPECT_EQ(cache.Report().awaited, 0);
}

// However long a read takes that nobody asked for.
TEST_F(ExpertPlacingTest, AStepDoesNotWaitForWhatItDidNotAskFor) {
  std::vector<ExpertId> all(kNumLayers * kNumExperts);
  std::iota(all.begin(), all.end(), 0);
  ExpertCache& cache = Start(20, all);
  for (const ExpertId id : all) {
    if (id != 31) experts_.SetStuck(id, true);
  }
  for (int i = 0; i < 10; ++i) cache.Place();
  EXPECT_EQ(CountHits(1, {15}), 0);
  EXPECT_EQ(experts_.num_reads(31), 1);
  for (const ExpertId id : all) experts_.SetStuck(id, false);
  PlaceAll();
}

TEST_F(ExpertPlacingTest, AKeptExpertThatCannotBeReadIsTriedAgain) {
  ExpertCache& cache = Start(4, {6});
  cache.Keep({5});
  experts_.Fail(5, absl::InternalError("no answer"), 3);
  experts_.Fail(6, absl::InternalError("no answer"), 3);
  PlaceAll(/*left=*/1);
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  while (cache.Report().quarantined < 2 && absl::Now() < deadline) cache.Place();
  EXPECT_EQ(cache.TakeFaults().told.size(), 2u);
  EXPECT_EQ(experts_.num_reads(5), 3);
  EXPECT_LE(cache.Place(), absl::Seconds(1));
  EXPECT_GT(cache.Place(), absl::Milliseconds(100));
  EXPECT_EQ(experts_.num_reads(5), 3);
  clock_.Advance(absl::Seconds(1));
  PlaceAll();
  EXPECT_EQ(CountHits(0, {5}), 1);
  EXPECT_EQ(experts_.num_reads(6), 3) << "nobody insists on it";
}

// A server that nobody asks for anything calls Place when it is told to, and then looks at the report.
TEST_F(ExpertPlacingTest, AQuarantineIsSeenToEndWithoutAStep) {
  ExpertCache& cache = Start(4);
  experts_.Fail(5, absl::InternalError("no answer"), 1'000'000);
  cache.BeginStep();
  EXPECT_THAT(Serve(0, {5}), testing::ElementsAre());
  clock_.Advance(absl::Milliseconds(400));
  EXPECT_EQ(cache.Report().quarantined, 1);
  EXPECT_EQ(cache.Place(), absl::Milliseconds(600));
  clock_.Advance(absl::Milliseconds(600));
  EXPECT_EQ(cache.Place(), absl::InfiniteDuration());
  EXPECT_EQ(cache.Report().quarantined, 0);
  EXPECT_EQ(experts_.num_reads(5), 3) << "nobody wants it";
}

TEST_F(ExpertPlacingTest, WhatHasComeIsCounted) {
  ExpertCache& cache = Start(12, {3, 1, 20});
  experts_.Fail(1, absl::InternalError("no answer"), 3);
  cache.Keep({7});
  PlaceAll();
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  while (cache.Report().slots.loads_failed == 0 && absl::Now() < deadline) cache.Place();
  EXPECT_EQ(cache.Report().placed, 3) << "of the warm start without the one that fails, and what is kept";
}

TEST_F(ExpertPlacingTest, TheOnlySlotIsForWhatIsAskedFor) {
  ExpertCache& cache = Start(1, {1, 2, 3});
  EXPECT_EQ(cache.Place(), absl::InfiniteDuration());
  EXPECT_EQ(cache.Report().slots.placed_loads, 0);
  EXPECT_EQ(CountHits(0, {4, 5}), 0);
}

// Any mixture of steps, pins and a warm start.
TEST_F(ExpertPlacingTest, EveryOrderOfThingsIsSound) {
  std::mt19937 rng(7);
  std::vector<ExpertId> all(kNumLayers * kNumExperts);
  std::iota(all.begin(), all.end(), 0);
  for (int round = 0; round < 20; ++round) {
    std::ranges::shuffle(all, rng);
    const int64_t num_slots = 1 + static_cast<int64_t>(rng() % 20);
    ExpertCache& cache = Start(num_slots, {all.begin(), all.begin() + 10});
    for (int step = 0; step < 60; ++step) {
      if (rng() % 8 == 0) {
        std::ranges::shuffle(all, rng);
        cache.Keep({all.begin(), all.begin() + static_cast<int64_t>(rng() % static_cast<uint64_t>(num_slots))});
      }
      cache.Place();
      cache.BeginStep();
      for (int32_t layer = 0; layer < kNumLayers; ++layer) {
        std::vector<int32_t> needed;
        for (int32_t e = 0; e < kNumExperts; ++e) {
          if (rng() % 3 == 0) needed.push_back(e);
        }
        EXPECT_EQ(Serve(layer, needed), needed);
      }
      ASSERT_TRUE(cache.Audit().ok()) << cache.Audit();
    }
  }
}

}  // namespace
}  // namespace cadre
