// Who is next, by tenant, priority and arrival.
#include "engine/schedule/fair_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <string>
#include <utility>
#include <vector>

namespace cadre {
namespace {

using testing::ElementsAre;

class FairQueueTest : public testing::Test {
 protected:
  SequenceId Arrive(const std::string& tenant, int32_t priority = 0) {
    const auto id = static_cast<SequenceId>(sequences_.size());
    Sequence& sequence =
        sequences_.emplace_back(id, std::vector<int32_t>{1}, SequenceTraits{.priority = priority, .tenant = tenant});
    orders_.push_back(queue_.Arrive(sequence));
    queue_.Push(&sequence, orders_.back());
    Audit();
    return id;
  }
  // Takes the next one out and charges it.
  SequenceId Serve(int64_t tokens = 10, bool leaves = true) {
    FairQueue::Cursor cursor(&queue_);
    const Sequence* next = cursor.Next();
    if (next == nullptr) return kNoSequence;
    queue_.Remove(*next, orders_[static_cast<size_t>(next->id())]);
    queue_.Charge(*next, tokens);
    if (leaves) queue_.Leave(*next);
    Audit();
    return next->id();
  }
  // It ends before it runs.
  void Withdraw(SequenceId id) {
    const Sequence& sequence = sequences_[static_cast<size_t>(id)];
    queue_.Remove(sequence, orders_[static_cast<size_t>(id)]);
    queue_.Leave(sequence);
    Audit();
  }
  // What follows a first run, then the end.
  void ServeOn(SequenceId id, int64_t tokens) {
    Sequence& sequence = sequences_[static_cast<size_t>(id)];
    sequence.Schedule(1, std::vector<int32_t>{0});
    queue_.Charge(sequence, tokens);
    queue_.Leave(sequence);
    Audit();
  }
  std::vector<SequenceId> ServeAll() {
    std::vector<SequenceId> order;
    for (SequenceId id = Serve(); id != kNoSequence; id = Serve()) order.push_back(id);
    return order;
  }
  void Audit() const { EXPECT_TRUE(queue_.Audit().ok()) << queue_.Audit(); }

  FairQueue queue_{{.priority_tokens = 100, .max_idle_tenants = 3}};
  std::deque<Sequence> sequences_;
  std::vector<int64_t> orders_;
};

TEST_F(FairQueueTest, OneTenantIsFirstComeFirstServed) {
  for (int i = 0; i < 4; ++i) Arrive("a");
  EXPECT_THAT(ServeAll(), ElementsAre(0, 1, 2, 3));
}

TEST_F(FairQueueTest, TenantsTakeTurnsWhateverTheyBring) {
  for (int i = 0; i < 4; ++i) Arrive("many");
  Arrive("few");
  Arrive("few");
  EXPECT_THAT(ServeAll(), ElementsAre(0, 4, 1, 5, 2, 3));
}

TEST_F(FairQueueTest, ServiceIsCountedInTokensNotInRequests) {
  for (int i = 0; i < 6; ++i) Arrive(i % 2 == 0 ? "long" : "short");
  EXPECT_EQ(Serve(100), 0);
  EXPECT_EQ(Serve(30), 1);
  EXPECT_EQ(Serve(30), 3);
  EXPECT_EQ(Serve(30), 5);
  EXPECT_EQ(Serve(30), 2);
}

TEST_F(FairQueueTest, AHigherPriorityGoesFirst) {
  Arrive("a");
  Arrive("a", -1);
  Arrive("a", 2);
  Arrive("a", 1);
  EXPECT_THAT(ServeAll(), ElementsAre(2, 3, 0, 1));
}

// A priority reaches 100 tokens a level.
TEST_F(FairQueueTest, NobodyIsOvertakenForEver) {
  const SequenceId low = Arrive("a");
  int64_t served_before = 0;
  for (;; served_before += 10) {
    Arrive("a", 1);
    if (Serve() == low) break;
    ASSERT_LT(served_before, 1000);
  }
  EXPECT_EQ(served_before, 100);
}

TEST_F(FairQueueTest, APriorityIsAHeadStartAndNotMore) {
  Arrive("low", -1);
  int64_t served_before = 0;
  for (;; served_before += 10) {
    Arrive("high", 1);
    if (Serve() == 0) break;
    ASSERT_LT(served_before, 1000);
  }
  EXPECT_EQ(served_before, 200);
}

TEST_F(FairQueueTest, WhoComesBackHasNotSavedUp) {
  Arrive("away");
  EXPECT_EQ(Serve(), 0);
  for (int i = 0; i < 20; ++i) Arrive("here");
  for (int i = 0; i < 10; ++i) Serve(10);  // 100 tokens
  Arrive("away");
  Arrive("away");
  Arrive("away");
  // From here on they take turns: no ten turns in a row.
  EXPECT_EQ(queue_.service("away"), queue_.service("here"));
  EXPECT_EQ(Serve(), 11);
  EXPECT_EQ(Serve(), 21);
  EXPECT_EQ(Serve(), 12);
  EXPECT_EQ(Serve(), 22);
}

TEST_F(FairQueueTest, NorHasWhoLeftEscapedItsDebt) {
  Arrive("other");
  Arrive("other");
  Arrive("greedy");
  EXPECT_EQ(Serve(10), 0);
  EXPECT_EQ(Serve(500), 2);  // and leaves
  Arrive("greedy");
  EXPECT_EQ(queue_.service("greedy"), 500);
  EXPECT_EQ(Serve(10), 1);
}

// A tenant that always has a little running is there all the time; that is no reason to owe it anything.
TEST_F(FairQueueTest, ATrickleSavesNothingUp) {
  Arrive("trickle");
  EXPECT_EQ(Serve(1, /*leaves=*/false), 0);
  for (int i = 0; i < 40; ++i) Arrive("here");
  for (int i = 0; i < 20; ++i) Serve(10);
  for (int i = 0; i < 3; ++i) Arrive("trickle");
  EXPECT_EQ(Serve(), 21);
  EXPECT_EQ(Serve(), 41);
  EXPECT_EQ(Serve(), 22);
  EXPECT_EQ(Serve(), 42);
}

// Nor does it make a present of it to whoever comes under a new name.
TEST_F(FairQueueTest, NewNamesAreAheadOfNobodyWhoWaits) {
  Arrive("trickle");
  EXPECT_EQ(Serve(1, /*leaves=*/false), 0);
  for (int i = 0; i < 40; ++i) Arrive("here");
  for (int i = 0; i < 20; ++i) Serve(10);
  int num_served_here = 0;
  for (int i = 0; i < 20; ++i) {
    Arrive("name " + std::to_string(i));
    const SequenceId served = Serve();
    num_served_here += sequences_[static_cast<size_t>(served)].traits().tenant == "here" ? 1 : 0;
  }
  EXPECT_GE(num_served_here, 4);  // some of the names wait, too
}

// Nor is it ahead of who has waited behind its own long answer, which no first run tells of.
TEST_F(FairQueueTest, ANewNameStartsFromTheLeastServiceOfThoseWhoWait) {
  const SequenceId answer = Arrive("long");
  EXPECT_EQ(Serve(1, /*leaves=*/false), answer);
  Arrive("long");
  ServeOn(answer, 1000);
  Arrive("new");
  EXPECT_EQ(queue_.service("new"), 1001);
}

// A request of the lowest priority that never runs is no ticket for what comes after it.
TEST_F(FairQueueTest, ALowRequestHoldsNoPlaceForAHigherOne) {
  SequenceId dummy = Arrive("name", -100);
  for (int i = 0; i < 40; ++i) Arrive("here");
  for (int i = 0; i < 20; ++i) Serve(10);
  int num_served_here = 0;
  for (int i = 0; i < 20; ++i) {
    const std::string name = "name " + std::to_string(i);
    const SequenceId next_dummy = Arrive(name, -100);
    Arrive(name);
    Withdraw(std::exchange(dummy, next_dummy));
    const SequenceId served = Serve();
    num_served_here += sequences_[static_cast<size_t>(served)].traits().tenant == "here" ? 1 : 0;
  }
  EXPECT_GE(num_served_here, 4);
}

// Nor does one that is always there let its tenant save up what it leaves to others.
TEST_F(FairQueueTest, ALowRequestSavesNothingUpForHigherOnes) {
  Arrive("idle", -100);
  const SequenceId early = Arrive("idle");
  for (int i = 0; i < 40; ++i) Arrive("here");
  EXPECT_EQ(Serve(), early);
  for (int i = 0; i < 20; ++i) Serve(10);
  std::vector<SequenceId> late;
  for (int i = 0; i < 3; ++i) late.push_back(Arrive("idle"));
  std::vector<SequenceId> order;
  for (int i = 0; i < 6; ++i) order.push_back(Serve(10));
  for (size_t i = 1; i < 3; ++i) {
    EXPECT_GE(std::ranges::find(order, late[i]) - std::ranges::find(order, late[i - 1]), 2) << "they take turns";
  }
}

// A higher priority of a tenant that waits overtakes what is the tenant's own, and costs it nothing.
TEST_F(FairQueueTest, AHigherPriorityLeadsItsTenantWhoeverHasLedBefore) {
  for (int i = 0; i < 30; ++i) Arrive("here", 1);
  const SequenceId plain = Arrive("other");
  for (int i = 0; i < 3; ++i) Arrive("other");
  for (int i = 0; i < 10; ++i) EXPECT_LT(Serve(10), plain);
  const SequenceId urgent = Arrive("other", 1);
  const SequenceId first_of_other = [&] {
    SequenceId served = Serve(10);
    while (served < plain) served = Serve(10);
    return served;
  }();
  EXPECT_EQ(first_of_other, urgent);
  EXPECT_EQ(queue_.service("other"), 10) << "what it was charged, and no lift";
}

TEST_F(FairQueueTest, TheHeadStartOfOnePushesNobodyElseBack) {
  const SequenceId batch = Arrive("batch");
  for (int i = 0; i < 9; ++i) Arrive("batch");
  for (int i = 0; i < 9; ++i) {
    Arrive("urgent", 1);
    Serve(10);
  }
  const SequenceId newcomer = Arrive("new");
  EXPECT_EQ(Serve(), batch);
  EXPECT_EQ(Serve(), newcomer);
}

// What was taken while nobody waited was taken from nobody.
TEST_F(FairQueueTest, WhoWasAloneOwesNothing) {
  Arrive("alone");
  EXPECT_EQ(Serve(1000, /*leaves=*/false), 0);
  for (int i = 0; i < 3; ++i) Arrive("new");
  for (int i = 0; i < 3; ++i) Arrive("alone");
  EXPECT_THAT(ServeAll(), ElementsAre(1, 4, 2, 5, 3, 6));
}

TEST_F(FairQueueTest, ThousandsOfNamesAreForgottenTogether) {
  FairQueue queue({.priority_tokens = 100, .max_idle_tenants = 1000});
  const Sequence anchor(0, {1}, {.tenant = "anchor"});
  queue.Push(&anchor, queue.Arrive(anchor));
  for (SequenceId i = 1; i <= 5000; ++i) {
    Sequence sequence(i, {1}, {.tenant = std::to_string(i)});
    queue.Arrive(sequence);
    sequence.Schedule(1, std::vector<int32_t>{0});
    queue.Charge(sequence, i);
    queue.Leave(sequence);
    ASSERT_LE(queue.num_tenants(), 1001);
  }
  EXPECT_TRUE(queue.Audit().ok()) << queue.Audit();
  EXPECT_EQ(queue.service("5000"), 5000);
  EXPECT_GE(queue.num_tenants(), 750);  // who used most is remembered
}

TEST_F(FairQueueTest, RemembersABoundedNumberOfTenants) {
  Arrive("anchor");  // waits for ever and keeps the least service low
  for (int i = 0; i < 50; ++i) {
    Arrive("tenant " + std::to_string(i), 1);
    ASSERT_EQ(Serve(0, /*leaves=*/false), i + 1);
    ServeOn(i + 1, 5 + i);
    EXPECT_LE(queue_.num_tenants(), 4);
  }
  EXPECT_EQ(queue_.service("tenant 49"), 54);
}

TEST_F(FairQueueTest, ACursorSeesWhatItHasTaken) {
  for (int i = 0; i < 3; ++i) Arrive("a");
  for (int i = 0; i < 2; ++i) Arrive("b");
  FairQueue::Cursor cursor(&queue_);
  std::vector<SequenceId> order;
  while (const Sequence* next = cursor.Next()) {
    order.push_back(next->id());
    cursor.Take(7);
  }
  EXPECT_THAT(order, ElementsAre(0, 3, 1, 4, 2));
  EXPECT_EQ(queue_.size(), 5);
}

}  // namespace
}  // namespace cadre
