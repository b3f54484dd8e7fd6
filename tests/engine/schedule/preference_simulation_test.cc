// A hundred thousand arrivals of three tenants and four priorities, with shares at random: what preferences must not
// break, counted by the test itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/schedule/fair_queue.h"

namespace cadre {
namespace {

constexpr int kNumArrivals = 100'000;

struct Waiting {
  Sequence sequence;
  int64_t order = 0;
  int32_t num_passed_over = 0;
  bool may_be_passed_over = true;
};

// A queue, and what the test knows of it.
class World {
 public:
  explicit World(const FairQueueOptions& options) : queue_(options) {}

  void Arrive(const std::string& tenant, int32_t priority, bool may_be_passed_over) {
    const SequenceId id = next_id_++;
    const SequenceTraits traits = {.priority = priority, .tenant = tenant};
    Waiting& waiting = waiting_
                           .try_emplace(id, Waiting{.sequence = Sequence(id, std::vector<int32_t>{1}, traits),
                                                    .may_be_passed_over = may_be_passed_over})
                           .first->second;
    waiting.order = queue_.Arrive(waiting.sequence);
    queue_.Push(&waiting.sequence, waiting.order);
  }
  // The one that came `index`-th of those that wait, modulo their number, goes unserved.
  void Withdraw(size_t index) {
    if (waiting_.empty()) return;
    const auto it = std::next(waiting_.begin(), static_cast<std::ptrdiff_t>(index % waiting_.size()));
    queue_.Remove(it->second.sequence, it->second.order);
    queue_.Leave(it->second.sequence);
    waiting_.erase(it);
  }
  // Nothing if nobody waits.
  void Serve(const Preferences* preferences) {
    FairQueue::Cursor cursor(&queue_, preferences);
    const Sequence* next = cursor.Next();
    if (next == nullptr) return;
    const auto served = waiting_.find(next->id());
    CountPassedOver(served->second);
    queue_.Start(served->second.sequence, served->second.order);
    queue_.Charge(served->second.sequence, 10);
    queue_.Leave(served->second.sequence);
    waiting_.erase(served);
  }

  size_t num_waiting() const { return waiting_.size(); }
  const Waiting& waiting(SequenceId id) const { return waiting_.at(id); }
  const FairQueue& queue() const { return queue_; }
  int64_t num_passed_over() const { return num_passed_over_; }
  int32_t most_passed_over() const { return most_passed_over_; }

 private:
  // By nothing but the order of arrival and the rules.
  void CountPassedOver(const Waiting& served) {
    for (auto& [id, waiting] : waiting_) {
      if (waiting.sequence.traits().tenant != served.sequence.traits().tenant) continue;
      if (std::pair(waiting.order, id) >= std::pair(served.order, served.sequence.id())) continue;
      EXPECT_EQ(waiting.sequence.traits().priority, served.sequence.traits().priority);
      EXPECT_TRUE(waiting.may_be_passed_over);
      ++num_passed_over_;
      most_passed_over_ = std::max(most_passed_over_, ++waiting.num_passed_over);
    }
  }

  FairQueue queue_;
  std::map<SequenceId, Waiting> waiting_;
  SequenceId next_id_ = 0;
  int64_t num_passed_over_ = 0;
  int32_t most_passed_over_ = 0;
};

std::string RandomTenant(std::mt19937& random) { return std::string(1, static_cast<char>('a' + random() % 3)); }

TEST(PreferenceSimulationTest, NobodyIsPassedOverMoreOftenThanTheBound) {
  const FairQueueOptions options = {.priority_tokens = 200};
  World world(options);
  std::mt19937 random(20261123);
  const Preferences preferences = [&](const Sequence& sequence) -> Preference {
    return {.share = static_cast<double>(random() % 5) / 4,
            .may_be_passed_over = world.waiting(sequence.id()).may_be_passed_over};
  };
  int num_arrived = 0;
  while (num_arrived < kNumArrivals || world.num_waiting() > 0) {
    const auto dice = random() % 100;
    if (num_arrived < kNumArrivals && dice < (world.num_waiting() < 60 ? 60u : 40u)) {
      ++num_arrived;
      world.Arrive(RandomTenant(random), random() % 10 == 0 ? static_cast<int32_t>(random() % 4) - 1 : 0,
                   random() % 20 != 0);
    } else if (dice < 98) {
      world.Serve(&preferences);
    } else {
      world.Withdraw(random());
    }
    if (dice == 0) {
      ASSERT_TRUE(world.queue().Audit().ok()) << world.queue().Audit();
    }
  }
  EXPECT_EQ(world.most_passed_over(), options.max_passed_over) << "the bound is reached, and holds";
  EXPECT_EQ(world.queue().num_passed_over(), world.num_passed_over());
  EXPECT_GT(world.queue().num_preferred(), kNumArrivals / 10);
}

// With equal costs, tenants have at any time been served as much as without preferences, but for one request: who of
// equals is first depends on who waits longest, and that may be another one.
TEST(PreferenceSimulationTest, TenantsAreServedAsWithoutPreferences) {
  World with({});
  World without({});
  std::mt19937 random(7);
  std::mt19937 shares(11);
  const Preferences preferences = [&](const Sequence&) -> Preference {
    return {.share = static_cast<double>(shares() % 5) / 4};
  };
  int num_arrived = 0;
  while (num_arrived < kNumArrivals || with.num_waiting() > 0) {
    if (num_arrived < kNumArrivals && random() % 100 < (with.num_waiting() < 60 ? 60u : 40u)) {
      ++num_arrived;
      const std::string tenant = RandomTenant(random);
      with.Arrive(tenant, 0, true);
      without.Arrive(tenant, 0, true);
    } else {
      with.Serve(&preferences);
      without.Serve(nullptr);
    }
    for (const char* const tenant : {"a", "b", "c"}) {
      ASSERT_NEAR(with.queue().service(tenant), without.queue().service(tenant), 10) << "after " << num_arrived;
    }
  }
  EXPECT_GT(with.queue().num_preferred(), kNumArrivals / 10);
  EXPECT_EQ(without.queue().num_preferred(), 0);
}

}  // namespace
}  // namespace cadre
