// Offloaded experts over a thousand random steps on a device of plain memory, whose copies end when they like, or fail:
// wherever a table leads, the expert is there and whole.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "engine/model/offloaded_experts.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/support/random_model.h"

namespace cadre {
namespace {

constexpr int32_t kLayers = 3;
constexpr int32_t kExperts = 16;

class SlowDevice final : public Device {
 public:
  explicit SlowDevice(uint32_t seed) : rng_(seed) {}

  // One copy in so many fails; 0: none.
  void FailOneIn(uint32_t copies) { fail_one_in_ = copies; }

  std::string name() const override { return "slow"; }
  std::string kernels() const override { return "none"; }
  absl::StatusOr<DeviceBuffer> Allocate(size_t size_bytes) override { return device_->Allocate(size_bytes); }
  absl::StatusOr<DeviceBuffer> AllocateMapped(size_t size_bytes) override { return device_->Allocate(size_bytes); }
  size_t AvailableBytes() const override { return device_->AvailableBytes(); }
  bool shares_host_memory() const override { return false; }
  void CopyToDevice(View to, const void* from) override { device_->CopyToDevice(to, from); }
  void CopyToHost(void* to, ConstView from) override { device_->CopyToHost(to, from); }
  absl::Status CopyInBackground(View to, const void* from) override {
    // From now on it may hold anything.
    std::memset(to.raw(), 0xFF, to.size_bytes());
    if (fail_one_in_ > 0 && rng_() % fail_one_in_ == 0) return absl::UnavailableError("the link is down");
    copies_.emplace_back(to, from);
    return absl::OkStatus();
  }
  absl::StatusOr<int64_t> CountBackgroundCopies() override {
    if (fail_one_in_ > 0 && rng_() % fail_one_in_ == 0) return absl::UnavailableError("nobody knows");
    for (uint32_t count = rng_() % 3; count > 0 && !copies_.empty(); --count) CopyNext();
    return num_ended_;
  }
  absl::Status FinishBackgroundCopies() override {
    while (!copies_.empty()) CopyNext();
    return absl::OkStatus();
  }
  absl::Status Synchronize() override { return absl::OkStatus(); }
  Ops& ops() override { return device_->ops(); }

 private:
  void CopyNext() {
    const auto [to, from] = copies_.front();
    copies_.pop_front();
    std::memcpy(to.raw(), from, to.size_bytes());
    ++num_ended_;
  }

  const std::unique_ptr<Device> device_ = CreateCpuDevice({.num_threads = 1}).value();
  std::mt19937 rng_;
  uint32_t fail_one_in_ = 0;
  std::deque<std::pair<View, const void*>> copies_;
  int64_t num_ended_ = 0;
};

ModelConfig Config() {
  ModelConfig config = SmallConfig(ModelFamily::kOlmoe);
  config.hidden_size = 8;
  config.expert_ffn_size = 5;  // gaps between the matrices
  return config;
}

class Simulation {
 public:
  Simulation(int64_t num_slots, EvictionPolicyKind policy, uint32_t seed, std::vector<ExpertId> warm_start = {})
      : device_(seed), rng_(seed) {
    for (ExpertId expert = 0; expert < kLayers * kExperts; ++expert) {
      std::byte* const base = hosted_.data() + expert * layout_.size_bytes();
      std::memset(base, expert + 1, static_cast<size_t>(layout_.size_bytes()));
      experts_.push_back(layout_.At(base));
    }
    std::vector<std::span<MlpWeights>> layers;
    for (size_t layer = 0; layer < kLayers; ++layer) {
      layers.push_back(std::span(experts_).subspan(layer * kExperts, kExperts));
    }
    const OffloadOptions options = {.num_slots = num_slots, .policy = policy, .warm_start = std::move(warm_start)};
    offloaded_ = OffloadedExperts::Create(layout_, layers, options, &device_).value();
    EXPECT_EQ(Report().idle_slots, std::min<int64_t>(num_slots, kLayers * kExperts));
    ExpectWhole();
  }

  SlowDevice& device() { return device_; }
  ExpertCacheReport Report() const { return offloaded_->Report(); }
  void Keep(const std::vector<ExpertId>& experts) { offloaded_->Keep(experts); }
  bool IsInSlot(ExpertId expert) const { return !IsHosted(static_cast<size_t>(expert)); }

  void Step() {
    StepRouting routing;
    routing.num_layers = kLayers;
    routing.num_experts = kExperts;
    routing.assignments.resize(kLayers * kExperts);
    const int rows = 1 + static_cast<int>(rng_() % 3);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      for (int i = 0; i < rows; ++i) {
        // Some are favored, and now and then others.
        const uint32_t favorites = static_cast<uint32_t>(num_steps_ / 250) * 5;
        const uint32_t choice = rng_() % 4 == 0 ? rng_() : favorites + rng_() % 4;
        ++routing.assignments[static_cast<size_t>(layer) * kExperts + choice % kExperts];
      }
    }
    for (size_t expert = 0; expert < experts_.size(); ++expert) {
      if (routing.assignments[expert] == 0) continue;
      ++(IsHosted(expert) ? misses_ : hits_);
    }
    ++num_steps_;
    offloaded_->EndStep(routing);
    ExpectWhole();
    const absl::Status audit = offloaded_->Audit();
    ASSERT_TRUE(audit.ok()) << audit;
    const ExpertCacheReport report = Report();
    ASSERT_EQ(report.slots.hits, hits_);
    ASSERT_EQ(report.slots.misses, misses_);
    ASSERT_EQ(report.direct_bytes, misses_ * layout_.size_bytes());
    ASSERT_EQ(report.loads.bytes, report.slots.loads_done * layout_.size_bytes());
    ASSERT_LE(report.loading_slots, std::max<int64_t>(1, report.num_slots / 16));
  }

  // No step comes; what is told of the cache is soon what it is.
  void Rest() {
    const int64_t before = Report().loading_slots;
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    while (offloaded_->Place() < absl::InfiniteDuration()) {
      ASSERT_LT(absl::Now(), deadline);
      ExpectWhole();
      const absl::Status audit = offloaded_->Audit();
      ASSERT_TRUE(audit.ok()) << audit;
    }
    EXPECT_EQ(Report().loading_slots, 0);
    const ExpertPlacement placement = offloaded_->Placement();
    EXPECT_TRUE(placement.loading.empty());
    EXPECT_EQ(std::ranges::count(placement.tiers, ExpertTier::kDevice), Report().idle_slots);
    num_seen_resting_ += before;
  }
  // Copies that ended while it rested.
  int64_t num_seen_resting() const { return num_seen_resting_; }

 private:
  const std::byte* Hosted(size_t expert) const {
    return hosted_.data() + static_cast<int64_t>(expert) * layout_.size_bytes();
  }
  bool IsHosted(size_t expert) const { return experts_[expert].gate.raw() == Hosted(expert); }
  void ExpectWhole() const {
    for (size_t expert = 0; expert < experts_.size(); ++expert) {
      ASSERT_EQ(std::memcmp(experts_[expert].gate.raw(), Hosted(expert), static_cast<size_t>(layout_.size_bytes())), 0)
          << "expert " << expert << " in step " << num_steps_;
    }
  }

  const ExpertLayout layout_ = ExpertLayout(Config(), DType::kF32);
  SlowDevice device_;
  DeviceBuffer hosted_ = *device_.AllocateMapped(static_cast<size_t>(kLayers * kExperts * layout_.size_bytes()));
  std::vector<MlpWeights> experts_;  // as ops are given them, layer by layer
  std::unique_ptr<OffloadedExperts> offloaded_;
  std::mt19937 rng_;
  int64_t num_steps_ = 0;
  int64_t hits_ = 0;
  int64_t misses_ = 0;
  int64_t num_seen_resting_ = 0;
};

using Parameters = std::tuple<EvictionPolicyKind, int64_t>;
class OffloadedSimulationTest : public testing::TestWithParam<Parameters> {};

TEST_P(OffloadedSimulationTest, EveryTableLeadsToAWholeExpert) {
  const auto [policy, num_slots] = GetParam();
  for (const uint32_t fail_one_in : {0u, 5u}) {
    Simulation simulation(num_slots, policy, /*seed=*/static_cast<uint32_t>(num_slots) + fail_one_in);
    simulation.device().FailOneIn(fail_one_in);
    for (int i = 0; i < 1000; ++i) {
      simulation.Step();
      if (i % 10 == 9) simulation.Rest();
      if (HasFatalFailure()) return;
    }
    EXPECT_GT(simulation.num_seen_resting(), 0);
    const ExpertCacheReport report = simulation.Report();
    EXPECT_GT(report.slots.hits, 0);
    EXPECT_GT(report.slots.evictions, 0);
    EXPECT_EQ(report.slots.loads_failed > 0, fail_one_in > 0);
    EXPECT_EQ(report.loads.errors, report.slots.loads_failed);
  }
}

INSTANTIATE_TEST_SUITE_P(Caches, OffloadedSimulationTest,
                         testing::Combine(testing::ValuesIn(kEvictionPolicies), testing::Values(1, 2, 7, 32, 47)),
                         [](const auto& parameters) {
                           std::string name = std::string(EvictionPolicyName(std::get<0>(parameters.param))) + "_" +
                                              std::to_string(std::get<1>(parameters.param));
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST(OffloadedExpertsTest, WarmStartIsThereFirst) {
  const std::vector<ExpertId> warm = {47, 3, 20, 3, 21};
  const Simulation simulation(/*num_slots=*/6, EvictionPolicyKind::kLru, /*seed=*/3, warm);
  for (const ExpertId expert : warm) EXPECT_TRUE(simulation.IsInSlot(expert)) << expert;
  EXPECT_TRUE(simulation.IsInSlot(0)) << "places are left for others";
  EXPECT_EQ(simulation.Report().slots.evictions, 0);
}

TEST(OffloadedExpertsTest, WhoIsKeptComesAndStays) {
  for (const int64_t num_slots : {5, 20}) {
    for (const uint32_t fail_one_in : {0u, 4u}) {
      Simulation simulation(num_slots, EvictionPolicyKind::kNextUse, /*seed=*/7);
      simulation.device().FailOneIn(fail_one_in);
      for (const std::vector<ExpertId>& kept : {std::vector<ExpertId>{40, 41, 42, 43}, {8, 41}, {}}) {
        simulation.Keep(kept);
        simulation.Step();
        simulation.Rest();
        ASSERT_FALSE(testing::Test::HasFatalFailure());
        for (int i = 0; i < 100; ++i) {
          for (const ExpertId expert : kept) ASSERT_TRUE(simulation.IsInSlot(expert)) << expert << " in step " << i;
          simulation.Step();
        }
        EXPECT_EQ(simulation.Report().kept, std::ssize(kept));
        EXPECT_EQ(simulation.Report().awaited, 0);
      }
    }
  }
}

// Who is favored is in the slots before long, whoever gives way.
TEST(OffloadedExpertsTest, WhatIsNeededOftenComesIn) {
  Simulation simulation(/*num_slots=*/16, EvictionPolicyKind::kLru, /*seed=*/3);
  for (int i = 0; i < 100; ++i) simulation.Step();
  const SlotCounters before = simulation.Report().slots;
  for (int i = 0; i < 140; ++i) simulation.Step();
  const SlotCounters after = simulation.Report().slots;
  const auto hits = static_cast<double>(after.hits - before.hits);
  EXPECT_GT(hits / (hits + static_cast<double>(after.misses - before.misses)), 0.6) << "a third fits";
}

}  // namespace
}  // namespace cadre
