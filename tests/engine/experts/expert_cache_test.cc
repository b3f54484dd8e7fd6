#include "engine/experts/expert_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "tests/support/memory_experts.h"

namespace cadre {
namespace {

using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;

constexpr int32_t kNumLayers = 3;
constexpr int32_t kNumExperts = 8;
constexpr size_t kExpertBytes = 192;

class ExpertCacheTest : public testing::Test {
 protected:
  ExpertCache& Start(int64_t num_slots, absl::Duration wait_limit = absl::Minutes(1)) {
    arena_.assign(static_cast<size_t>(num_slots) * kSlotBytes, std::byte{0});
    ExpertCacheOptions options;
    options.num_layers = kNumLayers;
    options.num_experts = kNumExperts;
    options.num_slots = num_slots;
    options.slot_bytes = kSlotBytes;
    options.wait_limit = wait_limit;
    cache_ = std::make_unique<ExpertCache>(options, &experts_, &clock_, arena_.data());
    return *cache_;
  }

  // Takes a layer's waves to their end; returns who was handed out, in order of ids.
  std::vector<int32_t> Serve(int32_t layer, std::vector<int32_t> needed) {
    std::vector<int32_t> served;
    cache_->BeginLayer(layer, needed);
    for (auto wave = cache_->NextWave(); !wave.empty(); wave = cache_->NextWave()) {
      EXPECT_TRUE(cache_->Audit().ok()) << cache_->Audit();
      for (const PlacedExpert& placed : wave) {
        const auto id = static_cast<size_t>(layer) * kNumExperts + static_cast<size_t>(placed.expert);
        EXPECT_TRUE(std::all_of(placed.weights, placed.weights + kExpertBytes,
                                [&](std::byte b) { return b == std::byte(id + 1); }))
            << "layer " << layer << " expert " << placed.expert;
        served.push_back(placed.expert);
      }
    }
    std::ranges::sort(served);
    return served;
  }

  // Lets a read go on, and takes its end.
  void Release(ExpertId expert) {
    experts_.SetStuck(expert, false);
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    while (cache_->Report().loading_slots > 0) {
      ASSERT_LT(absl::Now(), deadline) << "the read does not end";
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      Serve(0, {});
    }
  }

  static constexpr int64_t kSlotBytes = 256;
  MemoryExperts experts_{MakeNumberedExperts(kNumLayers * kNumExperts, kExpertBytes)};
  FakeClock clock_;
  std::vector<std::byte> arena_;
  std::unique_ptr<ExpertCache> cache_;
};

TEST_F(ExpertCacheTest, AnAbandonedLayerLeavesNothingBehind) {
  Start(3);
  cache_->BeginStep();
  Serve(0, {0, 1});
  cache_->BeginStep();
  experts_.SetStuck(5, true);
  const std::vector<int32_t> needed = {0, 1, 5, 6};
  cache_->BeginLayer(0, needed);
  EXPECT_EQ(cache_->NextWave().size(), 2u);  // two are there, one travels, and one waits for a slot
  cache_->AbandonLayer();
  EXPECT_TRUE(cache_->Audit().ok()) << cache_->Audit();
  EXPECT_EQ(cache_->Report().pinned_slots, 0);
  cache_->Keep({5});
  cache_->Place();
  experts_.SetStuck(5, false);
  cache_->BeginStep();
  EXPECT_EQ(Serve(0, needed), needed);
  EXPECT_TRUE(cache_->missing().empty());
  EXPECT_EQ(experts_.num_reads(5), 1) << "the read went on";
}

TEST_F(ExpertCacheTest, EveryNeededExpertIsHandedOutOnce) {
  std::mt19937 rng(3);
  for (const int64_t num_slots : {1, 2, 3, 8, 23}) {
    SCOPED_TRACE(num_slots);
    Start(num_slots);
    int64_t lookups = 0;
    for (int step = 0; step < 100; ++step) {
      cache_->BeginStep();
      for (int32_t layer = 0; layer < kNumLayers; ++layer) {
        std::vector<int32_t> needed;
        for (int32_t e = 0; e < kNumExperts; ++e) {
          if (rng() % 3 == 0) needed.push_back(e);
        }
        lookups += std::ssize(needed);
        EXPECT_EQ(Serve(layer, needed), needed);
        EXPECT_TRUE(cache_->missing().empty());
      }
    }
    const ExpertCacheReport report = cache_->Report();
    EXPECT_EQ(report.slots.hits + report.slots.misses, lookups);
    EXPECT_EQ(report.slots.miss_loads, report.slots.misses);
    EXPECT_EQ(report.loads.bytes, report.slots.misses * static_cast<int64_t>(kExpertBytes));
    EXPECT_EQ(report.missing, 0);
  }
}

TEST_F(ExpertCacheTest, WhatIsThereGoesFirst) {
  ExpertCache& cache = Start(4);
  cache.BeginStep();
  Serve(0, {1, 5});
  const int64_t waves_before = cache.Report().waves;  // 1 or 2: as the reads ended
  experts_.SetStuck(3, true);
  const std::vector<int32_t> needed = {1, 3, 5};
  cache.BeginStep();
  cache.BeginLayer(0, needed);
  std::vector<int32_t> first;
  for (const PlacedExpert& placed : cache.NextWave()) first.push_back(placed.expert);
  EXPECT_THAT(first, ElementsAre(1, 5));  // although the read of 3 has not ended
  experts_.SetStuck(3, false);
  const auto second = cache.NextWave();
  ASSERT_EQ(second.size(), 1u);
  EXPECT_EQ(second.front().expert, 3);
  EXPECT_TRUE(cache.NextWave().empty());
  EXPECT_EQ(cache.Report().waves - waves_before, 2);
  EXPECT_EQ(experts_.num_reads(1), 1);
}

TEST_F(ExpertCacheTest, AnErrorIsTriedAgainAndThenTold) {
  ExpertCache& cache = Start(4);
  experts_.Fail(2, absl::InternalError("no answer"), 2);  // one less than there are attempts
  cache.BeginStep();
  EXPECT_THAT(Serve(0, {2}), ElementsAre(2));
  EXPECT_EQ(cache.Report().loads.errors, 2);

  experts_.Fail(3, absl::InternalError("no answer"), 1000);
  EXPECT_THAT(Serve(0, {2, 3}), ElementsAre(2));
  ASSERT_EQ(cache.missing().size(), 1u);
  EXPECT_EQ(cache.missing().front().expert, 3);
  EXPECT_EQ(cache.missing().front().status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(cache.missing().front().status.message(), "expert number 3 cannot be read: no answer");
  EXPECT_EQ(cache.Report().missing, 1);
  EXPECT_EQ(cache.Report().quarantined, 1);
  EXPECT_EQ(cache.Report().empty_slots, 3);
}

TEST_F(ExpertCacheTest, WhatCannotBeHeldIsNotReadTwiceInARow) {
  ExpertCache& cache = Start(4);
  experts_.Fail(2, absl::InvalidArgumentError("not a number"), 1'000'000);
  cache.BeginStep();
  EXPECT_THAT(Serve(0, {2}), ElementsAre());
  EXPECT_EQ(experts_.num_reads(2), 1);
  EXPECT_EQ(cache.missing().front().status.message(), "expert number 2 cannot be read: not a number");
}

TEST_F(ExpertCacheTest, AQuarantinedExpertIsLeftAloneForLongerEachTimeAndComesBack) {
  ExpertCache& cache = Start(4);
  experts_.Fail(3, absl::InternalError("no answer"), 1'000'000);
  cache.BeginStep();
  absl::Duration pause = absl::Seconds(1);
  for (int round = 0; round < 8; ++round) {
    SCOPED_TRACE(round);
    const int64_t reads = experts_.num_reads(3);
    EXPECT_THAT(Serve(0, {3}), ElementsAre());
    EXPECT_EQ(experts_.num_reads(3), reads + 3);
    clock_.Advance(pause - absl::Milliseconds(1));
    EXPECT_THAT(Serve(0, {3, 4}), ElementsAre(4));
    EXPECT_EQ(experts_.num_reads(3), reads + 3) << "tried again too soon";
    clock_.Advance(absl::Milliseconds(1));
    pause = std::min(pause * 2, absl::Seconds(30));
  }
  experts_.Fail(3, absl::OkStatus(), 0);
  EXPECT_THAT(Serve(0, {3}), ElementsAre(3));
  EXPECT_EQ(cache.Report().quarantined, 0);
}

TEST_F(ExpertCacheTest, OtherBytesThanTheFirstTimeAreAnError) {
  ExpertCache& cache = Start(1);
  cache.BeginStep();
  EXPECT_THAT(Serve(0, {1}), ElementsAre(1));
  EXPECT_THAT(Serve(0, {2}), ElementsAre(2));
  experts_.SetCorrupt(1, true);
  EXPECT_THAT(Serve(0, {1}), ElementsAre());
  EXPECT_THAT(cache.missing().front().status.message(), HasSubstr("its bytes are not those that were read first"));
  EXPECT_EQ(cache.Report().loads.errors, 3);
  experts_.SetCorrupt(1, false);
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(Serve(0, {1}), ElementsAre(1));
}

TEST_F(ExpertCacheTest, AReadThatDoesNotEndIsWaitedForOnce) {
  ExpertCache& cache = Start(2, absl::Milliseconds(500));
  experts_.SetStuck(1, true);
  cache.BeginStep();
  EXPECT_THAT(Serve(0, {0, 1}), ElementsAre(0));
  EXPECT_THAT(cache.missing().front().status.message(),
              HasSubstr("expert number 1 cannot be read: no read has ended for 500ms"));
  // Nobody waits again while it is under way, however long that takes; the other slot goes on.
  clock_.Advance(absl::Hours(1));
  cache.BeginLayer(0, std::vector<int32_t>{1});
  EXPECT_EQ(cache.missing().size(), 1u) << "before any wait";
  EXPECT_TRUE(cache.NextWave().empty());
  EXPECT_THAT(Serve(0, {1, 2}), ElementsAre(2));
  EXPECT_EQ(experts_.num_reads(1), 1);
  EXPECT_EQ(cache.Report().loading_slots, 1);
  Release(1);
  EXPECT_THAT(Serve(0, {1}), ElementsAre(1));
  EXPECT_EQ(experts_.num_reads(1), 1);
}

// The limit is on waiting, and not on what is computed meanwhile.
TEST_F(ExpertCacheTest, AWaveThatTakesLongerThanTheLimitHurtsNobody) {
  ExpertCache& cache = Start(1, absl::Milliseconds(500));
  cache.BeginStep();
  const std::vector<int32_t> needed = {1, 2, 3};
  cache.BeginLayer(0, needed);
  std::vector<int32_t> served;
  for (auto wave = cache.NextWave(); !wave.empty(); wave = cache.NextWave()) {
    served.push_back(wave.front().expert);
    clock_.Advance(absl::Minutes(1));
  }
  EXPECT_EQ(served, needed);
  EXPECT_EQ(cache.Report().quarantined, 0);
}

// A thread that pauses before another attempt takes no notice that is meant for those without work.
TEST_F(ExpertCacheTest, AReadDoesNotWaitForTheRetriesOfAnother) {
  ExpertCache& cache = Start(4);
  for (int round = 0; round < 20; ++round) {
    experts_.Fail(1, absl::InternalError("no answer"), 1'000'000);
    cache.BeginStep();
    EXPECT_THAT(Serve(0, {1, 2}), ElementsAre(2));
    EXPECT_THAT(Serve(1, {round % 8}), ElementsAre(round % 8));
    clock_.Advance(absl::Minutes(1));
  }
}

TEST_F(ExpertCacheTest, AFaultIsToldOnceForEachTimeThatItIsSetAside) {
  ExpertCache& cache = Start(4);
  experts_.Fail(3, absl::InternalError("no answer"), 1'000'000);
  cache.BeginStep();
  for (int i = 0; i < 3; ++i) Serve(0, {3, 4});
  ExpertFaults faults = cache.TakeFaults();
  ASSERT_EQ(faults.told.size(), 1u);
  EXPECT_EQ(faults.told.front().message, "expert number 3 cannot be read: no answer");
  EXPECT_EQ(faults.told.front().pause, absl::Seconds(1));
  EXPECT_TRUE(cache.TakeFaults().told.empty());

  clock_.Advance(absl::Seconds(1));
  Serve(0, {3});
  faults = cache.TakeFaults();
  ASSERT_EQ(faults.told.size(), 1u);
  EXPECT_EQ(faults.told.front().pause, absl::Seconds(2));

  clock_.Advance(absl::Seconds(2));
  experts_.Fail(3, absl::OkStatus(), 0);
  for (int i = 0; i < 2; ++i) Serve(0, {3});
  faults = cache.TakeFaults();
  ASSERT_EQ(faults.told.size(), 1u);
  EXPECT_EQ(faults.told.front().message, "expert number 3");
  EXPECT_EQ(faults.told.front().pause, absl::ZeroDuration());
}

TEST_F(ExpertCacheTest, ManyFaultsAreToldInFewWords) {
  ExpertCache& cache = Start(4);
  std::vector<int32_t> all(kNumExperts);
  std::iota(all.begin(), all.end(), 0);
  cache.BeginStep();
  for (int32_t id = 0; id < kNumLayers * kNumExperts; ++id) experts_.Fail(id, absl::InternalError("gone"), 1'000'000);
  for (int32_t layer = 0; layer < kNumLayers; ++layer) Serve(layer, all);
  const ExpertFaults faults = cache.TakeFaults();
  EXPECT_EQ(faults.told.size(), 16u);
  EXPECT_EQ(faults.num_more, kNumLayers * kNumExperts - 16);
}

// One that was set aside and that nobody asks for is no trouble any more.
TEST_F(ExpertCacheTest, AQuarantineEndsByItself) {
  ExpertCache& cache = Start(4);
  experts_.Fail(1, absl::InternalError("no answer"), 1'000'000);
  cache.BeginStep();
  Serve(0, {1});
  EXPECT_EQ(cache.Report().quarantined, 1);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(cache.Report().quarantined, 0);
}

TEST_F(ExpertCacheTest, AStuckReadInTheOnlySlotBlocksNobodyForEver) {
  Start(1, absl::Milliseconds(500));
  experts_.SetStuck(1, true);
  cache_->BeginStep();
  EXPECT_THAT(Serve(0, {1, 2}), ElementsAre());
  EXPECT_EQ(cache_->missing().size(), 2u);
  EXPECT_EQ(cache_->Report().quarantined, 1) << "2 was not even tried";
  Release(1);
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(Serve(0, {1, 2}), ElementsAre(1, 2));
}

TEST_F(ExpertCacheTest, EndsWhileReadsAreUnderWay) {
  ExpertCache& cache = Start(4, absl::Milliseconds(100));
  experts_.SetStuck(1, true);
  experts_.Fail(2, absl::InternalError("no answer"), 1'000'000);
  cache.BeginStep();
  Serve(0, {1, 2, 3});
  std::thread release([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    experts_.SetStuck(1, false);
  });
  cache_.reset();
  release.join();
}

TEST_F(ExpertCacheTest, PlacementTellsWhoIsWhere) {
  ExpertCache& cache = Start(3);
  cache.BeginStep();
  Serve(0, {1, 2});
  Serve(2, {7});
  cache.BeginStep();
  Serve(0, {1, 5});  // 2 gives way
  ExpertPlacement placement = cache.Placement();
  ASSERT_EQ(placement.tiers.size(), size_t{kNumLayers} * kNumExperts);
  std::vector<ExpertId> there;
  for (ExpertId id = 0; id < kNumLayers * kNumExperts; ++id) {
    const ExpertTier tier = placement.tiers[static_cast<size_t>(id)];
    if (tier == ExpertTier::kDevice) there.push_back(id);
    EXPECT_NE(tier, ExpertTier::kHost);
  }
  EXPECT_THAT(there, ElementsAre(1, 5, 2 * kNumExperts + 7));
  EXPECT_THAT(placement.counters,
              ElementsAre(Field(&SlotCounters::hits, 1), Field(&SlotCounters::hits, 0), Field(&SlotCounters::hits, 0)));
  EXPECT_THAT(placement.counters, ElementsAre(Field(&SlotCounters::misses, 3), Field(&SlotCounters::misses, 0),
                                              Field(&SlotCounters::misses, 1)));
  EXPECT_THAT(placement.counters, ElementsAre(Field(&SlotCounters::evictions, 1), Field(&SlotCounters::evictions, 0),
                                              Field(&SlotCounters::evictions, 0)));
  EXPECT_THAT(placement.counters, ElementsAre(Field(&SlotCounters::loads_done, 3), Field(&SlotCounters::loads_done, 0),
                                              Field(&SlotCounters::loads_done, 1)));
  EXPECT_THAT(placement.loading, ElementsAre());
  EXPECT_THAT(placement.kept, ElementsAre());
  EXPECT_THAT(placement.quarantined, ElementsAre());

  cache.BeginStep();
  experts_.Fail(kNumExperts + 3, absl::DataLossError("gone"), /*times=*/100);
  EXPECT_THAT(Serve(1, {3}), ElementsAre());
  placement = cache.Placement();
  EXPECT_THAT(placement.quarantined, ElementsAre(kNumExperts + 3));
  EXPECT_EQ(placement.tiers[kNumExperts + 3], ExpertTier::kCheckpoint);
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(cache.Placement().quarantined, ElementsAre());
}

TEST_F(ExpertCacheTest, PlacementTellsWhoTravels) {
  ExpertCache& cache = Start(2, absl::Milliseconds(20));
  experts_.SetStuck(4, true);
  cache.BeginStep();
  Serve(0, {4});
  const ExpertPlacement placement = cache.Placement();
  EXPECT_THAT(placement.loading, ElementsAre(4));
  EXPECT_THAT(placement.quarantined, ElementsAre(4)) << "nobody waits for it";
  EXPECT_EQ(placement.tiers[4], ExpertTier::kCheckpoint);
  Release(4);
  EXPECT_THAT(cache.Placement().loading, ElementsAre());
  EXPECT_EQ(cache.Placement().tiers[4], ExpertTier::kDevice);
}

}  // namespace
}  // namespace cadre
