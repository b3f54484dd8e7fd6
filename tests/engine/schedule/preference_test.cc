// Who goes out of turn, and who must not be passed over.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "engine/schedule/fair_queue.h"
#include "engine/schedule/scheduler.h"

namespace cadre {
namespace {

using testing::ElementsAre;

constexpr FairQueueOptions kOptions = {
    .priority_tokens = 100, .window = 4, .max_passed_over = 3, .min_advantage = 0.125};

class PreferenceTest : public testing::Test {
 protected:
  SequenceId Arrive(double share, const std::string& tenant = "a", int32_t priority = 0) {
    const auto id = static_cast<SequenceId>(sequences_.size());
    Sequence& sequence =
        sequences_.emplace_back(id, std::vector<int32_t>{1}, SequenceTraits{.priority = priority, .tenant = tenant});
    preferences_[id] = {.share = share};
    orders_.push_back(queue_.Arrive(sequence));
    queue_.Push(&sequence, orders_.back());
    return id;
  }
  SequenceId Serve() {
    const Preferences preferences = Asked();
    FairQueue::Cursor cursor(&queue_, &preferences);
    const Sequence* next = cursor.Next();
    if (next == nullptr) return kNoSequence;
    queue_.Start(*next, orders_[static_cast<size_t>(next->id())]);
    queue_.Charge(*next, 10);
    queue_.Leave(*next);
    EXPECT_TRUE(queue_.Audit().ok()) << queue_.Audit();
    return next->id();
  }
  std::vector<SequenceId> ServeAll() {
    std::vector<SequenceId> order;
    for (SequenceId id = Serve(); id != kNoSequence; id = Serve()) order.push_back(id);
    return order;
  }
  Preferences Asked() {
    return [this](const Sequence& sequence) {
      asked_.push_back(sequence.id());
      return preferences_.at(sequence.id());
    };
  }

  FairQueue queue_{kOptions};
  std::deque<Sequence> sequences_;
  std::vector<int64_t> orders_;
  std::map<SequenceId, Preference> preferences_;
  std::vector<SequenceId> asked_;
};

TEST_F(PreferenceTest, TheLargestShareGoesFirst) {
  Arrive(0.25);
  Arrive(0.5);
  Arrive(1.0);
  EXPECT_EQ(Serve(), 2);
  EXPECT_EQ(queue_.num_preferred(), 1);
  EXPECT_EQ(queue_.num_passed_over(), 2);
  EXPECT_THAT(ServeAll(), ElementsAre(1, 0));
  EXPECT_EQ(queue_.num_preferred(), 2);
  EXPECT_EQ(queue_.num_passed_over(), 3);
}

TEST_F(PreferenceTest, ASmallAdvantageIsNone) {
  Arrive(0.75);
  Arrive(0.8125);
  Arrive(0.8125);
  EXPECT_THAT(ServeAll(), ElementsAre(0, 1, 2));
  EXPECT_EQ(queue_.num_preferred(), 0);
  Arrive(0.75);
  Arrive(0.875);
  Arrive(0.9375);
  EXPECT_THAT(ServeAll(), ElementsAre(4, 5, 3)) << "the earliest of those that are nearly the best";
}

TEST_F(PreferenceTest, OfAnotherPriorityNobodyIsPassedOver) {
  Arrive(0.0);
  Arrive(1.0, "a", -1);
  Arrive(1.0, "a", 1);
  EXPECT_THAT(ServeAll(), ElementsAre(2, 0, 1));
  // Not even through somebody between them, who waits behind a lower priority by having come late.
  const SequenceId low = Arrive(0.0);
  for (int i = 0; i < 10; ++i) queue_.Charge(sequences_[static_cast<size_t>(low)], 100);
  const SequenceId urgent = Arrive(0.0, "a", 1);
  const SequenceId late = Arrive(1.0);
  EXPECT_THAT(ServeAll(), ElementsAre(low, urgent, late));
}

TEST_F(PreferenceTest, OnlyTheFirstFewAreLookedAt) {
  for (int i = 0; i < 4; ++i) Arrive(0.0);
  Arrive(1.0);
  EXPECT_EQ(Serve(), 0);
  EXPECT_THAT(asked_, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(Serve(), 4);
}

TEST_F(PreferenceTest, NobodyIsPassedOverTooOften) {
  Arrive(0.0);
  for (int i = 0; i < 6; ++i) Arrive(1.0);
  EXPECT_THAT(ServeAll(), ElementsAre(1, 2, 3, 0, 4, 5, 6));
  EXPECT_EQ(queue_.num_passed_over(), 3);
}

TEST_F(PreferenceTest, WhoHasNoTimeIsNotPassedOver) {
  Arrive(0.0);
  preferences_[Arrive(0.0)].may_be_passed_over = false;
  Arrive(1.0);
  EXPECT_THAT(ServeAll(), ElementsAre(0, 1, 2));
  Arrive(0.0);
  preferences_[Arrive(1.0)].may_be_passed_over = false;
  EXPECT_THAT(ServeAll(), ElementsAre(4, 3)) << "it may itself be preferred";
}

// Which tenant is next does not depend on what its sequences need.
TEST_F(PreferenceTest, TenantsTakeTurnsAsBefore) {
  for (int i = 0; i < 3; ++i) Arrive(0.0, "few");
  for (int i = 0; i < 3; ++i) Arrive(1.0, "many");
  Arrive(1.0, "few");
  EXPECT_THAT(ServeAll(), ElementsAre(6, 3, 0, 4, 1, 5, 2));
}

// Of several that start together, each choice knows those before it, and what is counted afterwards is what was
// planned.
TEST_F(PreferenceTest, ACursorCountsAsTheQueueDoes) {
  Arrive(0.0);
  for (int i = 0; i < 6; ++i) Arrive(i % 2 == 0 ? 1.0 : 0.5);
  const Preferences preferences = Asked();
  FairQueue::Cursor cursor(&queue_, &preferences);
  std::vector<SequenceId> planned;
  while (const Sequence* next = cursor.Next()) {
    planned.push_back(next->id());
    cursor.Take(10);
  }
  EXPECT_EQ(asked_.size(), 7u) << "each once";
  EXPECT_EQ(queue_.size(), 7);
  EXPECT_EQ(planned, ServeAll());
}

// A step that has no place for anybody asks nothing.
TEST(SchedulerPreferenceTest, IsAskedOnlyWhereSomebodyMayEnter) {
  BlockPool pool(64);
  Scheduler scheduler({.max_num_seqs = 1, .block_size = 4, .max_model_len = 64}, &pool);
  std::deque<Sequence> sequences;
  for (SequenceId id = 0; id < 4; ++id) scheduler.Add(&sequences.emplace_back(id, std::vector<int32_t>{1, 2, 3}));
  int num_asked = 0;
  const Preferences preferences = [&](const Sequence& sequence) -> Preference {
    ++num_asked;
    return {.share = sequence.id() == 2 ? 1.0 : 0.0};
  };
  const StepPlan plan = scheduler.Plan(RunningLimit::kNone, &preferences);
  EXPECT_THAT(plan.started, ElementsAre(2));
  EXPECT_EQ(num_asked, 4);
  scheduler.Commit(plan);
  ASSERT_TRUE(scheduler.Audit().ok()) << scheduler.Audit();
  EXPECT_EQ(scheduler.fair_queue().num_passed_over(), 2);
  sequences[2].Advance();
  sequences[2].AppendToken(7);
  EXPECT_TRUE(scheduler.Plan(RunningLimit::kNone, &preferences).started.empty());
  EXPECT_EQ(num_asked, 4);
  EXPECT_THAT(scheduler.Plan(RunningLimit::kNone).chunks.size(), 1u);
}

}  // namespace
}  // namespace cadre
