#include "engine/experts/shadow_simulator.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <random>
#include <set>
#include <thread>
#include <vector>

#include "absl/time/clock.h"

namespace cadre {
namespace {

constexpr int64_t kLayers = 3;
constexpr int64_t kExperts = 16;
constexpr int64_t kSlots = 12;

ShadowSimulatorOptions Options() {
  return {.num_layers = kLayers,
          .num_experts = kExperts,
          .num_slots = kSlots,
          .interval = absl::Milliseconds(20),
          .min_pause = absl::ZeroDuration()};
}

// Notes some steps, and appends them to `log`.
class Traffic {
 public:
  void Run(int64_t steps, ShadowSimulator* simulator) {
    for (const int64_t end = step_ + steps; step_ < end; ++step_) {
      for (int32_t layer = 0; layer < kLayers; ++layer) {
        std::set<int32_t> needed;
        while (needed.size() < 3) needed.insert(static_cast<int32_t>(random_() % kExperts));
        simulator->Note({step_, layer}, std::vector<int32_t>(needed.begin(), needed.end()));
        std::vector<ExpertId> ids;
        ids.reserve(needed.size());
        for (const int32_t expert : needed) ids.push_back(layer * static_cast<ExpertId>(kExperts) + expert);
        log_.Append({step_, layer}, ids);
      }
    }
  }
  const AccessLog& log() const { return log_; }

 private:
  std::mt19937 random_{7};
  int64_t step_ = 0;
  AccessLog log_{.num_layers = kLayers, .num_experts = kExperts, .times = {}, .ends = {}, .experts = {}};
};

// Waits for a simulation of all accesses so far.
std::shared_ptr<const WhatIfReport> AwaitAll(ShadowSimulator& simulator) {
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  while (absl::Now() < deadline) {
    auto report = simulator.Latest();
    if (report->num_accesses == simulator.num_accesses()) return report;
    absl::SleepFor(absl::Milliseconds(1));
  }
  ADD_FAILURE() << "no simulation within a minute";
  return simulator.Latest();
}

void ExpectRows(const std::vector<WhatIfRow>& rows, const AccessLog& log) {
  const std::vector<WhatIfRow> expected = SimulateWhatIf(log, {.num_slots = kSlots});
  ASSERT_EQ(rows.size(), expected.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].policy, expected[i].policy);
    EXPECT_EQ(rows[i].num_slots, expected[i].num_slots);
    EXPECT_EQ(rows[i].result, expected[i].result) << rows[i].policy << " " << rows[i].num_slots;
  }
}

TEST(ShadowSimulator, TellsOfSomeSlotsMoreAndFewer) {
  ShadowSimulator simulator(Options());
  simulator.SetNumSlots(10);
  simulator.SetMarginStep(3);
  Traffic traffic;
  traffic.Run(40, &simulator);
  const auto report = AwaitAll(simulator);
  EXPECT_EQ(report->num_slots, 10);
  EXPECT_EQ(report->margin.num_slots, 10);
  EXPECT_EQ(report->margin.step_slots, 3);
  const auto simulate = [&](int64_t num_slots) {
    return SimulatePolicy(traffic.log(), {.policy = EvictionPolicyKind::kNextUse, .num_slots = num_slots});
  };
  EXPECT_EQ(report->margin.fewer, simulate(7));
  EXPECT_EQ(report->margin.same, simulate(10));
  EXPECT_EQ(report->margin.more, simulate(13));
  EXPECT_GT(report->margin.more.hits, report->margin.fewer.hits);
}

TEST(ShadowSimulator, TellsOfMarginsWithWhoIsKept) {
  const std::vector<ExpertId> kept = {40, 41, 42, 43, 44};
  ShadowSimulator simulator(Options());
  simulator.SetMarginStep(3);
  simulator.SetKept(kept);
  Traffic traffic;
  traffic.Run(40, &simulator);
  const auto report = AwaitAll(simulator);
  ShadowOptions options = {.policy = EvictionPolicyKind::kNextUse, .num_slots = kSlots - 3};
  EXPECT_NE(report->margin.fewer, SimulatePolicy(traffic.log(), options)) << "or the test tells nothing";
  options.kept = kept;
  EXPECT_EQ(report->margin.fewer, SimulatePolicy(traffic.log(), options));
}

TEST(ShadowSimulator, BeforeTheFirstSimulationItTellsTheSizeThatThereIs) {
  ShadowSimulator simulator(Options());
  simulator.SetNumSlots(5);
  EXPECT_EQ(simulator.Latest()->num_slots, 5);
}

TEST(ShadowSimulator, KnowsAllOfTheTraceHoweverItCame) {
  ShadowSimulator simulator(Options());
  EXPECT_TRUE(simulator.Latest()->rows.empty());
  EXPECT_EQ(simulator.Latest()->time, absl::InfinitePast());
  Traffic traffic;
  for (const int64_t steps : {1, 40, 7}) {
    traffic.Run(steps, &simulator);
    const auto report = AwaitAll(simulator);
    ExpectRows(report->rows, traffic.log());
    EXPECT_EQ(report->num_lookups, static_cast<int64_t>(traffic.log().experts.size()));
    EXPECT_EQ(report->num_steps, traffic.log().times.back().step + 1);
    EXPECT_GT(report->num_simulations, 0);
    EXPECT_GT(report->time, absl::InfinitePast());
  }
}

TEST(ShadowSimulator, NothingNewIsNotSimulatedAgain) {
  ShadowSimulator simulator(Options());
  Traffic traffic;
  traffic.Run(5, &simulator);
  const int64_t simulations = AwaitAll(simulator)->num_simulations;
  for (int i = 0; i < 20; ++i) {
    simulator.Refresh();
    absl::SleepFor(absl::Milliseconds(3));
  }
  EXPECT_EQ(simulator.Latest()->num_simulations, simulations);
}

TEST(ShadowSimulator, ComesSoonerWhereSomebodyAsks) {
  ShadowSimulatorOptions options = Options();
  options.interval = absl::Hours(1);
  ShadowSimulator simulator(options);
  Traffic traffic;
  for (int i = 0; i < 3; ++i) {
    traffic.Run(2, &simulator);
    simulator.Refresh();
    ExpectRows(AwaitAll(simulator)->rows, traffic.log());
  }
}

TEST(ShadowSimulator, HoldsTheLatestOfALongTrace) {
  ShadowSimulatorOptions options = Options();
  constexpr int64_t kGroups = 100;
  options.trace_bytes = kGroups * 12;  // six for a group, and two for each of three experts
  ShadowSimulator simulator(options);
  Traffic traffic;
  traffic.Run(kGroups, &simulator);
  AccessLog latest{.num_layers = kLayers, .num_experts = kExperts, .times = {}, .ends = {}, .experts = {}};
  for (size_t i = traffic.log().num_groups() - kGroups; i < traffic.log().num_groups(); ++i) {
    latest.Append(traffic.log().times[i], traffic.log().group(i));
  }
  const auto report = AwaitAll(simulator);
  EXPECT_EQ(report->num_accesses, kGroups * kLayers * 3);
  EXPECT_EQ(report->num_lookups, kGroups * 3);
  ExpectRows(report->rows, latest);
}

TEST(ShadowSimulator, MayEndAtAnyTime) {
  for (int i = 0; i < 20; ++i) {
    ShadowSimulator simulator(Options());
    Traffic traffic;
    traffic.Run(50 * i, &simulator);
    simulator.Refresh();
    absl::SleepFor(absl::Milliseconds(i % 4));
  }
}

TEST(ShadowSimulator, AskingDoesNotDisturbWhoNotes) {
  ShadowSimulator simulator(Options());
  Traffic traffic;
  std::thread reader([&simulator] {
    for (int i = 0; i < 50; ++i) {
      simulator.Refresh();
      EXPECT_LE(simulator.Latest()->num_accesses, simulator.num_accesses());
      absl::SleepFor(absl::Milliseconds(1));
    }
  });
  for (int i = 0; i < 50; ++i) traffic.Run(3, &simulator);
  reader.join();
  ExpectRows(AwaitAll(simulator)->rows, traffic.log());
}

// A server starts where its threads are all that it may have.
TEST(ShadowSimulator, WithoutAThreadNothingIsSimulatedAndTold) {
  pthread_attr_t usual;
  ASSERT_EQ(pthread_getattr_default_np(&usual), 0);
  pthread_attr_t huge;
  ASSERT_EQ(pthread_getattr_default_np(&huge), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&huge, size_t{1} << 47), 0);  // more than there are addresses for
  ASSERT_EQ(pthread_setattr_default_np(&huge), 0);
  ShadowSimulator simulator(Options());
  ASSERT_EQ(pthread_setattr_default_np(&usual), 0);
  pthread_attr_destroy(&huge);
  pthread_attr_destroy(&usual);

  Traffic traffic;
  traffic.Run(10, &simulator);
  simulator.Refresh();
  const auto report = simulator.Latest();
  EXPECT_EQ(report->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(report->rows.empty());
  EXPECT_EQ(report->num_accesses, simulator.num_accesses()) << "who waits for a simulation would wait for ever";
}

TEST(ShadowSimulator, BoundsTheTraceByTheWork) {
  EXPECT_EQ(ShadowSimulator::TraceBytes(4, 16), int64_t{1} << 20);
  EXPECT_LT(ShadowSimulator::TraceBytes(48, 128), 200'000);
  // One step that needs everything always fits.
  EXPECT_EQ(ShadowSimulator::TraceBytes(100, 10'000), 100 * (2 * 10'000 + 6));
}

}  // namespace
}  // namespace cadre
