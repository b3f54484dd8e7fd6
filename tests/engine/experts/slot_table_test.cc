#include "engine/experts/slot_table.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace cadre {
namespace {

constexpr LayerTime kNow{.step = 0, .layer = 0};
constexpr int64_t kNumExperts = 8;

SlotTable MakeTable(int64_t num_slots, int64_t num_experts = kNumExperts) {
  return {num_experts, num_slots,
          CreateEvictionPolicy(EvictionPolicyKind::kLru, {.num_experts = num_experts, .num_layers = 1})};
}

LoadTicket Begin(SlotTable& table, ExpertId expert, LoadCause cause = LoadCause::kMiss) {
  const std::optional<LoadTicket> ticket = table.BeginLoad(expert, cause, kNow);
  EXPECT_TRUE(ticket.has_value());
  return ticket.value_or(LoadTicket{});
}

void Load(SlotTable& table, ExpertId expert, LoadCause cause = LoadCause::kMiss) {
  table.FinishLoad(Begin(table, expert, cause));
}

// ---- transitions of expert 0, in a table of two slots ----

enum class Before { kAbsent, kLoading, kIdle, kPinned, kPinnedTwice };
enum class Operation { kBegin, kFinish, kFail, kPin, kUnpin, kLookup };
enum class After { kAbsent, kLoading, kIdle, kPinned, kDies };

struct Transition {
  Before before;
  Operation operation;
  After after;
};

class TransitionTest : public ::testing::TestWithParam<Transition> {
 protected:
  TransitionTest() {
    const Before before = GetParam().before;
    if (before == Before::kAbsent) return;
    ticket_ = Begin(table_, 0);
    if (before == Before::kLoading) return;
    table_.FinishLoad(ticket_);
    if (before != Before::kIdle) table_.Pin(0);
    if (before == Before::kPinnedTwice) table_.Pin(0);
  }

  void Operate() {
    switch (GetParam().operation) {
      case Operation::kBegin:
        EXPECT_EQ(table_.BeginLoad(0, LoadCause::kMiss, kNow).has_value(), GetParam().before == Before::kAbsent);
        return;
      case Operation::kFinish:
        return table_.FinishLoad(ticket_);
      case Operation::kFail:
        return table_.FailLoad(ticket_);
      case Operation::kPin:
        return table_.Pin(0);
      case Operation::kUnpin:
        return table_.Unpin(0);
      case Operation::kLookup: {
        const LookupResult expected = GetParam().before == Before::kAbsent    ? LookupResult::kMiss
                                      : GetParam().before == Before::kLoading ? LookupResult::kTravelling
                                                                              : LookupResult::kHit;
        EXPECT_EQ(table_.Lookup(0, kNow), expected);
        return;
      }
    }
  }

  SlotTable table_ = MakeTable(2);
  LoadTicket ticket_;
};

TEST_P(TransitionTest, LeadsWhereItShould) {
  const After after = GetParam().after;
  if (after == After::kDies) {
    EXPECT_DEATH(Operate(), "check failed");
    return;
  }
  Operate();
  EXPECT_TRUE(table_.Audit().ok()) << table_.Audit();
  EXPECT_EQ(table_.CountSlots(SlotState::kLoading), after == After::kLoading ? 1 : 0);
  EXPECT_EQ(table_.CountSlots(SlotState::kIdle), after == After::kIdle ? 1 : 0);
  EXPECT_EQ(table_.CountSlots(SlotState::kPinned), after == After::kPinned ? 1 : 0);
  EXPECT_EQ(table_.CountSlots(SlotState::kEmpty), after == After::kAbsent ? 2 : 1);
  EXPECT_EQ(table_.is_loading(0), after == After::kLoading);
  EXPECT_EQ(table_.Find(0).has_value(), after == After::kIdle || after == After::kPinned);
}

INSTANTIATE_TEST_SUITE_P(All, TransitionTest,
                         ::testing::Values(Transition{Before::kAbsent, Operation::kBegin, After::kLoading},
                                           Transition{Before::kAbsent, Operation::kFinish, After::kDies},
                                           Transition{Before::kAbsent, Operation::kFail, After::kDies},
                                           Transition{Before::kAbsent, Operation::kPin, After::kDies},
                                           Transition{Before::kAbsent, Operation::kUnpin, After::kDies},
                                           Transition{Before::kAbsent, Operation::kLookup, After::kAbsent},
                                           Transition{Before::kLoading, Operation::kBegin, After::kLoading},
                                           Transition{Before::kLoading, Operation::kFinish, After::kIdle},
                                           Transition{Before::kLoading, Operation::kFail, After::kAbsent},
                                           Transition{Before::kLoading, Operation::kPin, After::kDies},
                                           Transition{Before::kLoading, Operation::kUnpin, After::kDies},
                                           Transition{Before::kLoading, Operation::kLookup, After::kLoading},
                                           Transition{Before::kIdle, Operation::kBegin, After::kIdle},
                                           Transition{Before::kIdle, Operation::kFinish, After::kDies},
                                           Transition{Before::kIdle, Operation::kFail, After::kDies},
                                           Transition{Before::kIdle, Operation::kPin, After::kPinned},
                                           Transition{Before::kIdle, Operation::kUnpin, After::kDies},
                                           Transition{Before::kIdle, Operation::kLookup, After::kIdle},
                                           Transition{Before::kPinned, Operation::kBegin, After::kPinned},
                                           Transition{Before::kPinned, Operation::kFinish, After::kDies},
                                           Transition{Before::kPinned, Operation::kFail, After::kDies},
                                           Transition{Before::kPinned, Operation::kPin, After::kPinned},
                                           Transition{Before::kPinned, Operation::kUnpin, After::kIdle},
                                           Transition{Before::kPinned, Operation::kLookup, After::kPinned},
                                           Transition{Before::kPinnedTwice, Operation::kUnpin, After::kPinned}));

// ---- who gives way ----

TEST(SlotTable, EmptySlotsAreTakenFirst) {
  SlotTable table = MakeTable(3);
  for (ExpertId expert = 0; expert < 3; ++expert) Load(table, expert);
  EXPECT_EQ(table.counters().evictions, 0);
  for (ExpertId expert = 0; expert < 3; ++expert) EXPECT_EQ(table.Find(expert), expert);
  Load(table, 3);
  EXPECT_EQ(table.counters().evictions, 1);
  EXPECT_EQ(table.Find(0), std::nullopt);
  EXPECT_EQ(table.Find(3), 0);
}

TEST(SlotTable, PinnedAndLoadingSlotsAreNotTaken) {
  SlotTable table = MakeTable(2);
  Load(table, 0);
  table.Pin(0);
  const LoadTicket ticket = Begin(table, 1);
  EXPECT_EQ(table.BeginLoad(2, LoadCause::kMiss, kNow), std::nullopt);
  EXPECT_EQ(table.counters().miss_loads, 2);
  table.FinishLoad(ticket);
  EXPECT_EQ(Begin(table, 2).slot, ticket.slot);
  EXPECT_TRUE(table.Find(0).has_value());
}

TEST(SlotTable, AFailedLoadLeavesItsSlotToTheNext) {
  SlotTable table = MakeTable(1);
  Load(table, 0);
  const LoadTicket failed = Begin(table, 1);
  table.FailLoad(failed);
  EXPECT_EQ(table.Find(0), std::nullopt);
  EXPECT_EQ(Begin(table, 1).version, failed.version + 1);
  EXPECT_EQ(table.counters().evictions, 1);
  EXPECT_EQ(table.counters().loads_failed, 1);
}

TEST(SlotTable, ProtectedExpertsGiveWayToMissesOnly) {
  SlotTable table = MakeTable(2);
  Load(table, 1);
  Load(table, 4);
  const std::vector<ExpertId> both{1, 4};
  EXPECT_EQ(table.BeginLoad(2, LoadCause::kPrefetch, kNow, both), std::nullopt);
  EXPECT_EQ(table.counters().prefetch_loads, 0);
  EXPECT_TRUE(table.BeginLoad(2, LoadCause::kPrefetch, kNow, std::vector<ExpertId>{1}).has_value());
  EXPECT_TRUE(table.Find(1).has_value());
  EXPECT_TRUE(table.BeginLoad(3, LoadCause::kMiss, kNow, both).has_value());
  EXPECT_EQ(table.Find(1), std::nullopt);
}

// ---- versions ----

TEST(SlotTable, VersionsRiseWithEachLoadOfASlot) {
  SlotTable table = MakeTable(1);
  uint64_t version = 0;
  for (ExpertId expert = 0; expert < kNumExperts; ++expert) {
    const LoadTicket ticket = Begin(table, expert);
    EXPECT_GT(ticket.version, version);
    version = ticket.version;
    table.FinishLoad(ticket);
  }
}

TEST(SlotTableDeathTest, ALoadThatEndsLateIsKnownByItsVersion) {
  SlotTable table = MakeTable(1);
  const LoadTicket old = Begin(table, 0);
  table.FailLoad(old);
  Begin(table, 0);  // the same expert in the same slot
  EXPECT_DEATH(table.FinishLoad(old), "version");
  EXPECT_DEATH(table.FailLoad(old), "version");
}

TEST(SlotTableDeathTest, TicketsNameTheirLoad) {
  SlotTable table = MakeTable(2);
  const LoadTicket ticket = Begin(table, 0);
  EXPECT_DEATH(table.FinishLoad({.expert = 1, .slot = ticket.slot, .version = ticket.version}), "expert");
  EXPECT_DEATH(table.FinishLoad({.expert = 0, .slot = 2, .version = ticket.version}), "slot");
  EXPECT_DEATH(table.FinishLoad({.expert = 0, .slot = -1, .version = ticket.version}), "slot");
}

// ---- kept experts ----

TEST(SlotTable, KeptExpertsStay) {
  SlotTable table = MakeTable(3);
  for (ExpertId expert = 0; expert < 3; ++expert) Load(table, expert);
  ASSERT_TRUE(table.SetKept({5, 0, 0}, 1).ok());  // 5 is not in yet
  for (ExpertId expert = 3; expert < 8; ++expert) Load(table, expert);
  EXPECT_TRUE(table.Find(0).has_value());
  EXPECT_TRUE(table.Find(5).has_value());
  EXPECT_TRUE(table.Find(7).has_value());
  EXPECT_TRUE(table.Audit().ok()) << table.Audit();
  ASSERT_TRUE(table.SetKept({7}, 1).ok());
  Load(table, 1);
  EXPECT_EQ(table.Find(0), std::nullopt);
  table.Pin(1);
  Load(table, 2);
  EXPECT_EQ(table.Find(5), std::nullopt);
  EXPECT_TRUE(table.Find(7).has_value());
  EXPECT_TRUE(table.Audit().ok()) << table.Audit();
}

TEST(SlotTable, KeptExpertsThatArePinnedStayWhenTheyAreUnpinned) {
  SlotTable table = MakeTable(2);
  Load(table, 0);
  table.Pin(0);
  ASSERT_TRUE(table.SetKept({0}, 1).ok());
  table.Unpin(0);
  Load(table, 1);
  Load(table, 2);
  EXPECT_TRUE(table.Find(0).has_value());
  EXPECT_TRUE(table.Audit().ok()) << table.Audit();
}

TEST(SlotTable, TooManyKeptExpertsAreRefused) {
  SlotTable table = MakeTable(4);
  ASSERT_TRUE(table.SetKept({0, 1}, 2).ok());
  const absl::Status status = table.SetKept({0, 1, 2}, 2);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "keeping 3 experts in 4 slots would leave fewer than 2 for the others");
  EXPECT_EQ(table.SetKept({8}, 1).message(), "expert 8 is not below 8");
  EXPECT_EQ(table.SetKept({-1}, 1).message(), "expert -1 is not below 8");
  Load(table, 0);
  for (ExpertId expert = 3; expert < 7; ++expert) Load(table, expert);
  EXPECT_TRUE(table.Find(0).has_value()) << "what was kept before is kept still";
}

// ---- usable slots ----

TEST(SlotTable, UsableSlotsAloneAreTaken) {
  SlotTable table = MakeTable(4);
  for (ExpertId expert = 0; expert < 3; ++expert) Load(table, expert);
  ASSERT_TRUE(table.SetUsableSlots(2).ok());
  EXPECT_EQ(table.Find(2), std::nullopt) << "idle in slot 2";
  EXPECT_TRUE(table.is_drained());
  EXPECT_EQ(table.counters().evictions, 1);
  for (ExpertId expert = 3; expert < 8; ++expert) {
    const LoadTicket ticket = Begin(table, expert);
    EXPECT_LT(ticket.slot, 2);
    table.FinishLoad(ticket);
  }
}

TEST(SlotTable, SlotsThatAreNotUsableAnyMoreDrain) {
  SlotTable table = MakeTable(3);
  for (ExpertId expert = 0; expert < 2; ++expert) Load(table, expert);
  table.Pin(1);
  const LoadTicket load = Begin(table, 2);
  ASSERT_TRUE(table.SetUsableSlots(1).ok());
  EXPECT_FALSE(table.is_drained());
  table.FinishLoad(load);
  EXPECT_EQ(table.Find(2), load.slot) << "who waits for it finds it";
  table.Unpin(1);
  EXPECT_EQ(Begin(table, 3).slot, 0);
  EXPECT_EQ(table.BeginLoad(4, LoadCause::kMiss, kNow), std::nullopt) << "idle slots that are not usable are no room";
  EXPECT_TRUE(table.Audit().ok()) << table.Audit();
  ASSERT_TRUE(table.SetUsableSlots(1).ok());
  EXPECT_TRUE(table.is_drained());
  EXPECT_EQ(table.Find(2), std::nullopt);
  EXPECT_TRUE(table.Audit().ok()) << table.Audit();
}

TEST(SlotTable, SlotsBecomeUsableAgain) {
  SlotTable table = MakeTable(4);
  Load(table, 0);
  Load(table, 1);
  table.Pin(1);
  ASSERT_TRUE(table.SetUsableSlots(1).ok());
  ASSERT_TRUE(table.SetUsableSlots(3).ok());
  EXPECT_TRUE(table.is_drained());
  EXPECT_EQ(table.num_usable_slots(), 3);
  EXPECT_EQ(Begin(table, 2).slot, 2);
  table.Unpin(1);
  EXPECT_EQ(Begin(table, 3).slot, 0);
  EXPECT_EQ(Begin(table, 4).slot, 1);
  EXPECT_EQ(table.BeginLoad(5, LoadCause::kMiss, kNow), std::nullopt);
  EXPECT_TRUE(table.Audit().ok()) << table.Audit();
}

TEST(SlotTable, TooFewUsableSlotsForWhatIsKeptAreRefused) {
  SlotTable table = MakeTable(6);
  ASSERT_TRUE(table.SetKept({0, 1}, 2).ok());
  EXPECT_EQ(table.SetUsableSlots(3).message(), "keeping 2 experts in 3 slots would leave fewer than 2 for the others");
  EXPECT_EQ(table.num_usable_slots(), 6);
  ASSERT_TRUE(table.SetUsableSlots(4).ok());
  EXPECT_EQ(table.SetKept({0, 1, 2}, 2).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(table.SetKept({}, 7).ok()) << "nothing is kept from the others";
  EXPECT_TRUE(table.SetUsableSlots(1).ok());
}

// ---- counters ----

TEST(SlotTable, CountsWhatBecameOfPrefetches) {
  SlotTable table = MakeTable(2);
  Load(table, 0, LoadCause::kPrefetch);
  EXPECT_EQ(table.Lookup(0, kNow), LookupResult::kHit);
  EXPECT_EQ(table.Lookup(0, kNow), LookupResult::kHit);
  EXPECT_EQ(table.counters().prefetches_used, 1);
  const LoadTicket late = Begin(table, 1, LoadCause::kPrefetch);
  EXPECT_EQ(table.Lookup(1, kNow), LookupResult::kTravelling);
  EXPECT_EQ(table.Lookup(1, kNow), LookupResult::kTravelling);
  table.FinishLoad(late);
  EXPECT_EQ(table.Lookup(1, kNow), LookupResult::kHit);
  EXPECT_EQ(table.counters().prefetches_late, 1);
  EXPECT_EQ(table.counters().prefetches_used, 1);
  table.FailLoad(Begin(table, 2, LoadCause::kPrefetch));
  EXPECT_EQ(table.counters().prefetches_failed, 1);
  Load(table, 3, LoadCause::kPrefetch);
  Load(table, 4);
  EXPECT_EQ(table.counters().prefetches_wasted, 0) << "who is awaited goes last";
  table.Pin(4);
  Load(table, 5);
  EXPECT_EQ(table.counters().prefetches_wasted, 1);
  EXPECT_EQ(table.counters().prefetch_loads, 4);
  EXPECT_EQ(table.counters().miss_loads, 2);
  EXPECT_EQ(table.counters().hits, 3);
  EXPECT_EQ(table.counters().misses, 2);
  EXPECT_TRUE(table.Audit().ok()) << table.Audit();
}

// ---- what is required ----

TEST(SlotTableDeathTest, WhatIsRequiredIsChecked) {
  SlotTable table = MakeTable(2);
  EXPECT_DEATH(MakeTable(0), "count >= 1");
  EXPECT_DEATH(MakeTable(-1), "count >= 1");
  EXPECT_DEATH(SlotTable(0, 1, nullptr), "count >= 1");
  EXPECT_DEATH(SlotTable(4, 1, nullptr), "policy");
  for (const ExpertId wrong : {-1, static_cast<ExpertId>(kNumExperts)}) {
    EXPECT_DEATH(table.Lookup(wrong, kNow), "expert");
    EXPECT_DEATH(table.Find(wrong), "expert");
    EXPECT_DEATH(static_cast<void>(table.is_loading(wrong)), "expert");
    EXPECT_DEATH(table.BeginLoad(wrong, LoadCause::kMiss, kNow), "expert");
    EXPECT_DEATH(table.Pin(wrong), "expert");
    EXPECT_DEATH(table.Unpin(wrong), "expert");
  }
  EXPECT_DEATH(table.SetUsableSlots(0).IgnoreError(), "count");
  EXPECT_DEATH(table.SetUsableSlots(3).IgnoreError(), "count");
  EXPECT_DEATH(table.SetKept({}, 0).IgnoreError(), "min_free_slots");
}

// Puts out what the table does not offer.
class WillfulPolicy : public EvictionPolicy {
 public:
  void OnUse(ExpertId /*expert*/, const LayerTime& /*now*/) override {}
  void OnPrefetch(ExpertId /*expert*/, const LayerTime& /*now*/) override {}
  ExpertId ChooseVictim(std::span<const ExpertId> /*candidates*/, const LayerTime& /*now*/) override { return 0; }
  size_t ChooseVictims(std::span<const ExpertId> /*candidates*/, const LayerTime& /*now*/,
                       std::span<ExpertId> victims) override {
    victims[0] = 0;
    return 1;
  }
};

TEST(SlotTableDeathTest, AVictimOutsideTheCandidatesEndsTheProcess) {
  SlotTable table(4, 2, std::make_unique<WillfulPolicy>());
  for (ExpertId expert = 0; expert < 2; ++expert) table.FinishLoad(*table.BeginLoad(expert, LoadCause::kMiss, {}));
  table.Pin(0);
  EXPECT_DEATH(table.BeginLoad(2, LoadCause::kMiss, {}), "may_give_way");
  EXPECT_DEATH(table.BeginLoad(2, LoadCause::kPrefetch, {}), "may_give_way");
}

}  // namespace
}  // namespace cadre
