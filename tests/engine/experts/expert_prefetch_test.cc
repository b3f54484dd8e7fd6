// What the next layer may need is read ahead: in time, at nobody's cost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "engine/experts/expert_cache.h"
#include "tests/support/memory_experts.h"

namespace cadre {
namespace {

using testing::ElementsAre;

constexpr int32_t kNumLayers = 3;
constexpr int32_t kNumExperts = 8;
constexpr size_t kExpertBytes = 192;

// By hand: what is read ahead, and when it may go on.
class ExpertPrefetchTest : public testing::Test {
 protected:
  struct Setup {
    int64_t num_slots = 8;
    int num_threads = 4;
    int num_ahead_threads = 1;
    absl::Duration wait_limit = absl::Minutes(1);
  };

  // `experts_` has been read from and the time between layers is known, as in a server that has run for a while.
  void Start(const Setup& setup) {
    arena_.assign(static_cast<size_t>(setup.num_slots) * kExpertBytes, std::byte{0});
    ExpertCacheOptions options;
    options.num_layers = kNumLayers;
    options.num_experts = kNumExperts;
    options.num_slots = setup.num_slots;
    options.slot_bytes = kExpertBytes;
    options.num_threads = setup.num_threads;
    options.num_ahead_threads = setup.num_ahead_threads;
    options.wait_limit = setup.wait_limit;
    cache_ = std::make_unique<ExpertCache>(options, &experts_, &clock_, arena_.data());
    cache_->BeginStep();
    Serve(0, {0}, {kNumExperts});
    clock_.Advance(absl::Hours(1));
    Serve(1, {0}, {});
    cache_->BeginStep();
  }

  std::vector<int32_t> TakeWaves() {
    std::vector<int32_t> served;
    for (auto wave = cache_->NextWave(); !wave.empty(); wave = cache_->NextWave()) {
      EXPECT_TRUE(cache_->Audit().ok()) << cache_->Audit();
      for (const PlacedExpert& placed : wave) {
        const auto id = static_cast<size_t>(layer_) * kNumExperts + static_cast<size_t>(placed.expert);
        EXPECT_TRUE(std::all_of(placed.weights, placed.weights + kExpertBytes,
                                [&](std::byte b) { return b == std::byte(id + 1); }));
        served.push_back(placed.expert);
      }
    }
    std::ranges::sort(served);
    return served;
  }

  void Begin(int32_t layer, const std::vector<int32_t>& needed, const std::vector<ExpertId>& predicted) {
    layer_ = layer;
    cache_->BeginLayer(layer, needed);
    std::vector<PredictedExpert> scored;
    scored.reserve(predicted.size());
    for (const ExpertId id : predicted) scored.push_back({id, 1.0});
    cache_->Prefetch(scored);
  }

  // Experts of the layer, in order of ids, and ids for the layer after it.
  std::vector<int32_t> Serve(int32_t layer, const std::vector<int32_t>& needed,
                             const std::vector<ExpertId>& predicted) {
    Begin(layer, needed, predicted);
    return TakeWaves();
  }

  static void Await(const std::function<bool()>& condition) {
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    while (!condition()) {
      ASSERT_LT(absl::Now(), deadline);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  SlotCounters counters() const { return cache_->Report().slots; }

  MemoryExperts experts_{MakeNumberedExperts(kNumLayers * kNumExperts, kExpertBytes)};
  FakeClock clock_;
  std::vector<std::byte> arena_;
  int32_t layer_ = 0;
  std::unique_ptr<ExpertCache> cache_;
};

constexpr ExpertId Id(int32_t layer, int32_t expert) { return layer * kNumExperts + expert; }

TEST_F(ExpertPrefetchTest, WhatWasPredictedIsThere) {
  Start({});
  Serve(0, {0, 1}, {Id(1, 3), Id(1, 4)});
  Await([&] { return experts_.num_pieces(Id(1, 3)) + experts_.num_pieces(Id(1, 4)) == 8; });
  Serve(1, {3}, {});
  EXPECT_EQ(experts_.num_reads(Id(1, 3)), 1);
  EXPECT_EQ(experts_.num_reads(Id(1, 4)), 1);
  EXPECT_EQ(counters().prefetch_loads, 2);
  EXPECT_EQ(counters().prefetches_used + counters().prefetches_late, 1);
}

TEST_F(ExpertPrefetchTest, WithoutThreadsNothingIsReadAhead) {
  Start({.num_ahead_threads = 0});
  Serve(0, {0}, {Id(1, 3)});
  Serve(1, {3}, {});
  EXPECT_EQ(counters().prefetch_loads, 0);
  EXPECT_EQ(counters().misses, 3);
}

TEST_F(ExpertPrefetchTest, WhatAStepWaitsForIsReadFirst) {
  Start({});
  experts_.SetStuck(Id(0, 1), true);
  Begin(0, {1}, {Id(1, 3)});
  Await([&] { return experts_.num_reads(Id(0, 1)) == 1; });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(counters().prefetch_loads, 1);
  EXPECT_EQ(experts_.num_reads(Id(1, 3)), 0) << "does not begin while a step waits";
  experts_.SetStuck(Id(0, 1), false);
  EXPECT_THAT(TakeWaves(), ElementsAre(1));
  Await([&] { return experts_.num_pieces(Id(1, 3)) == 4; });
}

TEST_F(ExpertPrefetchTest, AReadAheadStandsStillWhileAStepWaits) {
  Start({});
  experts_.SetStuck(Id(1, 3), true);
  Serve(0, {0}, {Id(1, 3)});
  Await([&] { return experts_.num_reads(Id(1, 3)) == 1; });  // has begun
  experts_.SetStuck(Id(1, 5), true);
  Begin(1, {5}, {});
  Await([&] { return experts_.num_reads(Id(1, 5)) == 1; });
  experts_.SetStuck(Id(1, 3), false);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_LE(experts_.num_pieces(Id(1, 3)), 1) << "the piece that was under way, and no other";
  experts_.SetStuck(Id(1, 5), false);
  EXPECT_THAT(TakeWaves(), ElementsAre(5));
  Await([&] { return experts_.num_pieces(Id(1, 3)) == 4; });
}

TEST_F(ExpertPrefetchTest, WhoIsAskedForStandsStillNoMore) {
  Start({});
  experts_.SetStuck(Id(1, 3), true);
  Serve(0, {0}, {Id(1, 3), Id(1, 4)});
  Await([&] { return experts_.num_reads(Id(1, 3)) == 1; });  // 4 waits for the only thread
  experts_.SetStuck(Id(1, 5), true);
  Begin(1, {3, 4, 5}, {});
  experts_.SetStuck(Id(1, 3), false);
  Await([&] { return experts_.num_pieces(Id(1, 3)) == 4 && experts_.num_pieces(Id(1, 4)) == 4; });  // beside 5
  experts_.SetStuck(Id(1, 5), false);
  EXPECT_THAT(TakeWaves(), ElementsAre(3, 4, 5));
  EXPECT_EQ(experts_.num_reads(Id(1, 3)), 1);
  EXPECT_EQ(experts_.num_reads(Id(1, 4)), 1);
  EXPECT_EQ(counters().prefetches_late, 2);
}

// A read that was given up has one slot, one ahead the other: the step waits for neither of both.
TEST_F(ExpertPrefetchTest, SlotsOfReadsAheadAreWaitedForAtOnce) {
  Start({.num_slots = 2, .wait_limit = absl::Seconds(10)});
  experts_.SetStuck(Id(0, 1), true);
  EXPECT_THAT(Serve(0, {1}, {Id(1, 3)}), ElementsAre());
  EXPECT_EQ(counters().prefetch_loads, 1);
  EXPECT_THAT(Serve(1, {5, 6}, {}), ElementsAre(5, 6));
  EXPECT_EQ(cache_->Report().missing, 1);
  experts_.SetStuck(Id(0, 1), false);
}

// Eight reads are ordered, two hang: the others have not begun, and are not to blame once the disk is back.
TEST_F(ExpertPrefetchTest, ADiskThatIsBackServesEverybodyAtOnce) {
  Start({.num_slots = 16, .num_threads = 2, .wait_limit = absl::Milliseconds(500)});
  const std::vector<int32_t> all = {1, 2, 3, 4, 5, 6, 7};
  for (const int32_t expert : all) experts_.SetStuck(Id(0, expert), true);
  EXPECT_THAT(Serve(0, all, {}), ElementsAre());
  EXPECT_EQ(cache_->Report().loading_slots, 2) << "those that were begun";
  EXPECT_EQ(cache_->Report().quarantined, 2);
  EXPECT_THAT(Serve(1, all, {}), ElementsAre()) << "nobody is left to read them";
  for (const int32_t expert : all) experts_.SetStuck(Id(0, expert), false);
  Await([&] {
    cache_->BeginStep();
    Serve(0, {}, {});
    return cache_->Report().loading_slots == 0;
  });
  cache_->BeginStep();
  EXPECT_EQ(Serve(0, all, {}), all);
  EXPECT_EQ(Serve(1, all, {}), all);
  EXPECT_EQ(cache_->Report().quarantined, 0);
}

TEST_F(ExpertPrefetchTest, WhatIsNeededNowDoesNotGiveWay) {
  Start({.num_slots = 2});
  Serve(0, {0, 1}, {});
  cache_->BeginStep();
  Serve(0, {0, 1}, {Id(1, 3)});
  EXPECT_EQ(counters().prefetch_loads, 0);
  Serve(1, {2, 3, 4}, {Id(2, 1)});  // more than there are slots
  EXPECT_EQ(counters().prefetch_loads, 0);
}

TEST_F(ExpertPrefetchTest, AReadAheadThatFailsHurtsNobodyAfterwards) {
  Start({});
  experts_.Fail(Id(1, 3), absl::InternalError("no answer"), 3);
  Serve(0, {0}, {Id(1, 3)});
  Await([&] {
    Serve(0, {}, {});
    return cache_->Report().loading_slots == 0;
  });
  EXPECT_EQ(cache_->Report().quarantined, 1);
  Serve(0, {}, {Id(1, 3)});
  EXPECT_EQ(experts_.num_reads(Id(1, 3)), 3) << "set aside";
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(Serve(1, {3}, {}), ElementsAre(3));
}

TEST_F(ExpertPrefetchTest, EveryNeededExpertIsHandedOutWhateverIsPredicted) {
  std::mt19937 rng(3);
  for (const int64_t num_slots : {1, 2, 5, 23}) {
    SCOPED_TRACE(num_slots);
    Start({.num_slots = num_slots, .num_threads = 2, .num_ahead_threads = 2});
    for (int step = 0; step < 100; ++step) {
      cache_->BeginStep();
      for (int32_t layer = 0; layer < kNumLayers; ++layer) {
        std::vector<int32_t> needed;
        std::vector<ExpertId> predicted;
        for (int32_t e = 0; e < kNumExperts; ++e) {
          if (rng() % 3 == 0) needed.push_back(e);
          if (rng() % 3 == 0 && layer + 1 < kNumLayers) predicted.push_back(Id(layer + 1, e));
        }
        EXPECT_EQ(Serve(layer, needed, predicted), needed);
        EXPECT_TRUE(cache_->missing().empty());
        clock_.Advance(absl::Seconds(1));
      }
    }
    EXPECT_GT(counters().prefetch_loads, 0);
  }
}

// Twelve slots for three layers that need all of their eight experts: a third of each can stay while the others pass.
TEST_F(ExpertPrefetchTest, WhatPassesThroughLeavesTheOthersAlone) {
  Start({.num_slots = 12, .num_threads = 1, .num_ahead_threads = 0});
  std::vector<int32_t> all(kNumExperts);
  std::iota(all.begin(), all.end(), 0);
  int64_t hits_before = 0;
  for (int step = 0; step < 40; ++step) {
    cache_->BeginStep();
    if (step == 20) hits_before = counters().hits;
    for (int32_t layer = 0; layer < kNumLayers; ++layer) EXPECT_EQ(Serve(layer, all, {}), all);
  }
  EXPECT_GE(counters().hits - hits_before, 20 * 8)
      << "of 24 in each step; 6 where all misses of a layer travel at once";
}

TEST_F(ExpertPrefetchTest, EndsWhileReadsAheadStandStill) {
  Start({});
  experts_.SetStuck(Id(0, 1), true);
  Begin(0, {1}, {Id(1, 3)});
  std::thread release([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    experts_.SetStuck(Id(0, 1), false);
  });
  cache_.reset();
  release.join();
}

}  // namespace
}  // namespace cadre
