// Who is next, by tenant, priority and arrival.
#include "engine/schedule/fair_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <string>
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

TEST_F(FairQueueTest, RemembersABoundedNumberOfTenants) {
  Arrive("anchor");  // waits for ever and keeps the least service low
  for (int i = 0; i < 50; ++i) {
    Arrive("tenant " + std::to_string(i), 1);
    ASSERT_EQ(Serve(5 + i), i + 1);
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
