// Experts that cannot be read, for a long time and under load: who does not need them notices nothing, who does is
// told, and all is as before once they can be read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "engine/model/expert_layout.h"
#include "engine/request/refusal.h"
#include "tests/support/memory_experts.h"
#include "tests/support/transformer_engine.h"

namespace cadre {
namespace {

using testing::HasSubstr;

constexpr int32_t kNumExperts = 48;  // of a layer: enough that requests differ in what they need
constexpr int64_t kNumSlots = 24;
constexpr int32_t kNumRequests = 40;

// Counts what the log is told.
class FaultObserver final : public EngineObserver {
 public:
  void OnStep(const StepReport&) override {}
  void OnFinish(const FinishSummary&) override {}
  void OnExpertFaults(const ExpertFaults& faults) override {
    told.insert(told.end(), faults.told.begin(), faults.told.end());
    num_more += faults.num_more;
  }

  std::vector<ExpertFault> told;
  int64_t num_more = 0;
};

// Requests come as others end, again and again the same ones, by a clock that each step moves.
class EngineExpertFaultsTest : public testing::Test {
 protected:
  EngineExpertFaultsTest() : config_(SmallConfig(ModelFamily::kOlmoe)) {
    config_.num_experts = kNumExperts;
    StartEngine();
    num_threads_ = CountThreads();
    expected_ = ServeAll();
    for (const Ticket& ticket : expected_) {
      EXPECT_TRUE(ticket.sink->summary().status.ok());
      needs_.push_back(NeedsOf(ticket.sink->summary().routed_experts));
    }
    server_ = nullptr;
    StartEngine();  // another, which has read nothing yet
  }
  ~EngineExpertFaultsTest() override { ExpectNothingIsLost(); }

  void StartEngine() {
    std::unique_ptr<Device> device = TestTargets().front().make_for_model(1);
    const int64_t block_bytes = config_.num_layers * 2 * config_.num_kv_heads * config_.head_dim * kSmallBlockSize * 4;
    const RunnerOptions runner_options = {
        .max_model_len = 32,
        .max_num_seqs = 8,
        .max_num_batched_tokens = kSmallMostRows,
        .kv_block_size = kSmallBlockSize,
        .kv_dtype = DType::kF32,
        .kv_cache_bytes = 80 * block_bytes,
        .expert_cache_bytes = kNumSlots * ExpertLayout(config_, DType::kF32).size_bytes(),
        .expert_ahead_threads = 2,
        .clock = clock_.get()};
    auto runner = MakeRandomRunner(config_, DType::kF32, 5, runner_options, device.get(), &experts_);
    // Nothing is found computed before: who needs an expert once needs it every time.
    auto engine = std::make_unique<Engine>(EngineOptions{.max_num_seqs = 8, .prefix_cache = PrefixCacheScope::kOff},
                                           std::move(runner), nullptr, clock_, &observer_);
    server_ = std::make_unique<TransformerEngine>(std::move(device), std::move(engine));
  }

  // Of this process.
  static int64_t CountThreads() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
  }

  Ticket Submit(int32_t number) {
    return server_->Submit(MakePrompt(1 + number % 3, number), /*max_tokens=*/3, {}, [number](Request& request) {
      request.wants_routed_experts = true;
      request.sampling.seed = static_cast<uint64_t>(number);
    });
  }

  void Step(absl::Duration time) {
    server_->engine->Step();
    const absl::Status audit = server_->engine->Audit();
    ASSERT_TRUE(audit.ok()) << audit;
    clock_->Advance(time);
  }

  // Each of the requests, eight at a time.
  std::vector<Ticket> ServeAll(absl::Duration step_time = absl::Milliseconds(10)) {
    std::vector<Ticket> tickets;
    for (int32_t number = 0; number < kNumRequests; ++number) {
      tickets.push_back(Submit(number));
      while (std::ranges::count_if(tickets, [](const Ticket& each) { return !each.sink->finished(); }) >= 8) {
        Step(step_time);
      }
    }
    while (!std::ranges::all_of(tickets, [](const Ticket& each) { return each.sink->finished(); })) Step(step_time);
    return tickets;
  }

  static std::set<ExpertId> NeedsOf(const RoutedExperts& routed) {
    std::set<ExpertId> needs;
    for (size_t i = 0; i < routed.expert_ids.size(); ++i) {
      const auto layer = static_cast<int32_t>(i / static_cast<size_t>(routed.top_k)) % routed.num_layers;
      needs.insert(layer * kNumExperts + routed.expert_ids[i]);
    }
    return needs;
  }

  bool Needs(size_t request, const std::vector<ExpertId>& experts) const {
    return std::ranges::any_of(experts, [&](ExpertId id) { return needs_[request].contains(id); });
  }

  // Experts that so many requests need, and no more than half of all.
  std::vector<ExpertId> ChooseVictims(size_t count) const {
    std::vector<ExpertId> ids;
    for (ExpertId id = 0; id < 2 * kNumExperts; ++id) ids.push_back(id);
    const auto users = [&](ExpertId id) {
      return std::ranges::count_if(needs_, [&](const auto& needs) { return needs.contains(id); });
    };
    std::ranges::stable_sort(ids, std::ranges::greater(), users);
    std::vector<ExpertId> victims;
    for (const ExpertId id : ids) {
      std::vector<ExpertId> more = victims;
      more.push_back(id);
      int32_t num_hurt = 0;
      for (size_t i = 0; i < needs_.size(); ++i) num_hurt += Needs(i, more) ? 1 : 0;
      if (num_hurt <= kNumRequests / 2 && victims.size() < count) victims = more;
    }
    EXPECT_EQ(victims.size(), count);
    return victims;
  }

  void ExpectAsBefore(const std::vector<Ticket>& tickets) const {
    for (size_t i = 0; i < tickets.size(); ++i) {
      SCOPED_TRACE(i);
      EXPECT_TRUE(tickets[i].sink->summary().status.ok()) << tickets[i].sink->summary().status;
      ExpectSameAnswer(tickets[i], expected_[i]);
    }
  }

  // Of a round at whose begin the experts `before` could not be read, and at whose end those of them that are in
  // `after` still could not.
  void ExpectUntouchedOrTold(const std::vector<Ticket>& tickets, const std::vector<ExpertId>& before,
                             const std::vector<ExpertId>& after) const {
    for (size_t i = 0; i < tickets.size(); ++i) {
      SCOPED_TRACE(i);
      EXPECT_EQ(tickets[i].sink->num_finished(), 1);
      EXPECT_TRUE(tickets[i].sink->in_order());
      const absl::Status status = tickets[i].sink->summary().status;
      if (Needs(i, after) || !status.ok()) {
        EXPECT_TRUE(Needs(i, before)) << status;
        EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
        EXPECT_EQ(RefusalOf(status), Refusal::kExpertUnavailable);
      } else {
        ExpectSameAnswer(tickets[i], expected_[i]);
      }
    }
  }

  void ExpectNothingIsLost() {
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    // One that has ended may be seen for a moment longer.
    while (CountThreads() != num_threads_ && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(10));
    EXPECT_EQ(CountThreads(), num_threads_);
    // What was read ahead is to be taken in.
    while (Cache().loading_slots > 0 && absl::Now() < deadline) {
      Submit(0);
      server_->Run();
    }
    const EngineSnapshot snapshot = server_->engine->Snapshot();
    EXPECT_EQ(snapshot.kv_blocks_in_use, 0);
    EXPECT_EQ(snapshot.kv_blocks_free, snapshot.kv_blocks_total);
    EXPECT_EQ(snapshot.admitted_requests, snapshot.num_finished());
    const ExpertCacheReport cache = Cache();
    EXPECT_EQ(cache.pinned_slots, 0);
    EXPECT_EQ(cache.loading_slots, 0);
    EXPECT_EQ(cache.empty_slots + cache.idle_slots, kNumSlots);
    EXPECT_EQ(cache.quarantined, 0);
  }

  ExpertCacheReport Cache() const { return *server_->engine->Snapshot().expert_cache; }

  ModelConfig config_;
  std::shared_ptr<FakeClock> clock_ = std::make_shared<FakeClock>();
  FaultObserver observer_;
  MemoryExperts* experts_ = nullptr;
  std::unique_ptr<TransformerEngine> server_;
  int64_t num_threads_ = 0;
  std::vector<Ticket> expected_;           // without any fault
  std::vector<std::set<ExpertId>> needs_;  // of each request
};

TEST_F(EngineExpertFaultsTest, AThousandErrorsConcernWhoNeedsTheExpertsAndNobodyElse) {
  constexpr int64_t kErrors = 1000;
  constexpr size_t kVictims = 4;
  const std::vector<ExpertId> victims = ChooseVictims(kVictims);
  for (const ExpertId id : victims) experts_->Fail(id, absl::DataLossError("a bad sector"), kErrors / kVictims);
  const auto failing = [&] {
    std::vector<ExpertId> left = victims;
    std::erase_if(left, [&](ExpertId id) { return experts_->num_failures_left(id) == 0; });
    return left;
  };
  const absl::Time deadline = absl::Now() + absl::Minutes(2);
  while (!failing().empty()) {
    ASSERT_LT(absl::Now(), deadline) << Cache().loads.errors;
    const std::vector<ExpertId> before = failing();
    const std::vector<Ticket> tickets = ServeAll(/*step_time=*/absl::Seconds(8));
    ExpectUntouchedOrTold(tickets, before, failing());
  }
  clock_->Advance(absl::Minutes(1));
  ExpectAsBefore(ServeAll());
  EXPECT_EQ(Cache().loads.errors, kErrors);
}

TEST_F(EngineExpertFaultsTest, AnExpertThatFailsForTenMinutesComesBackByItself) {
  const ExpertId victim = ChooseVictims(1).front();
  experts_->Fail(victim, absl::DataLossError("a bad sector"), /*times=*/1'000'000);
  const absl::Time end = clock_->Now() + absl::Minutes(10);
  int64_t num_refused = 0;
  while (clock_->Now() < end) {
    const std::vector<Ticket> tickets = ServeAll(/*step_time=*/absl::Milliseconds(500));
    ExpectUntouchedOrTold(tickets, {victim}, {victim});
    num_refused += std::ranges::count_if(tickets, [](const Ticket& each) { return !each.sink->summary().status.ok(); });
  }
  // After 1, 3, 7, 15 and 31 s, and then every 30 s, as soon as somebody asks.
  const auto num_told = static_cast<int64_t>(observer_.told.size());
  EXPECT_GE(num_told, 15);
  EXPECT_LE(num_told, 26);
  EXPECT_EQ(observer_.num_more, 0);
  EXPECT_GT(num_refused, 10 * num_told) << "refusals, which the log is not told of one by one";
  for (const ExpertFault& fault : observer_.told) {
    EXPECT_THAT(fault.message, HasSubstr("cannot be read: a bad sector"));
    EXPECT_LE(fault.pause, absl::Seconds(30));
  }
  EXPECT_EQ(experts_->num_reads(victim), 3 * num_told) << "and is left alone meanwhile";

  experts_->Fail(victim, absl::OkStatus(), 0);
  const absl::Time mended = clock_->Now();
  while (Cache().quarantined > 0) ServeAll(/*step_time=*/absl::Milliseconds(500));
  EXPECT_LE(clock_->Now() - mended, absl::Seconds(60));
  ExpectAsBefore(ServeAll());
  ASSERT_EQ(observer_.told.size(), static_cast<size_t>(num_told) + 1);
  EXPECT_EQ(observer_.told.back().pause, absl::ZeroDuration()) << "it is told that it is back";
}

}  // namespace
}  // namespace cadre
