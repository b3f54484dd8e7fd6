// Plans for devices with memory of their own, beside the host's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>

#include "engine/model/memory_plan.h"
#include "tests/engine/model/paper_device.h"

namespace cadre {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Where the host cannot write what the device computes with, experts are all there or the model does not run.
TEST(MemoryPlan, ADeviceOfItsOwnMemoryHoldsAllExperts) {
  PaperDevice device(40 * kGiB, /*shares_host_memory=*/false);
  RunnerOptions options;
  EXPECT_EQ(PlanMemory(LargeConfig(), LargeSummary(), options, device, device.ops()).status().code(),
            absl::StatusCode::kResourceExhausted);
  options.expert_cache_bytes = kGiB;
  EXPECT_THAT(PlanMemory(LargeConfig(), LargeSummary(), options, device, device.ops()).status().message(),
              AllOf(HasSubstr("--expert-cache-gb asks for 1.00 GiB"), HasSubstr("paper must hold all experts")));
}

// Where the device reads the host's memory, that holds all experts beside the slots.
TEST(MemoryPlan, ExpertsThatDoNotFitIntoADeviceLieInTheHostsMemory) {
  const auto plan = [](int64_t device_bytes, int64_t mapped_bytes, const RunnerOptions& options) {
    PaperDevice device(device_bytes, /*shares_host_memory=*/false, mapped_bytes);
    return PlanMemory(LargeConfig(), LargeSummary(), options, device, device.ops());
  };
  const auto cached = plan(80 * kGiB, 100 * kGiB, {});
  ASSERT_TRUE(cached.ok()) << cached.status();
  EXPECT_EQ(cached->expert_place(), ExpertPlace::kHost);
  EXPECT_EQ(cached->host_expert_bytes, 84 * kGiB);
  EXPECT_GE(cached->num_expert_slots, 100);
  EXPECT_EQ(cached->expert_weight_bytes, cached->num_expert_slots * kExpertBytes);
  EXPECT_LE(cached->total_bytes(), 72 * kGiB) << "of the device alone, with a reserve";
  const auto all = plan(120 * kGiB, 0, {});
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->expert_place(), ExpertPlace::kDevice);
  EXPECT_EQ(all->host_expert_bytes, 0);
  EXPECT_EQ(Plan(LargeConfig(), LargeSummary(), {}, 80 * kGiB)->expert_place(), ExpertPlace::kCheckpoint);

  RunnerOptions options;
  options.expert_host_bytes = 84 * kGiB;
  EXPECT_EQ(plan(80 * kGiB, 90 * kGiB, options)->expert_place(), ExpertPlace::kHost);
  // What experts may take is no demand.
  options.expert_host_bytes = 200 * kGiB;
  EXPECT_EQ(plan(80 * kGiB, 100 * kGiB, options)->expert_place(), ExpertPlace::kHost);
  EXPECT_EQ(plan(80 * kGiB, 30 * kGiB, options)->num_expert_slots, 30 * kGiB / kExpertBytes);
  options.expert_host_bytes = 84 * kGiB;
  EXPECT_THAT(Plan(LargeConfig(), LargeSummary(), options, 200 * kGiB).status().message(),
              AllOf(HasSubstr("--expert-host-gb"), HasSubstr("memory of their own")));
  options.expert_host_bytes.reset();
  options.expert_cache_bytes = 10 * kExpertBytes;
  EXPECT_EQ(plan(200 * kGiB, 100 * kGiB, options)->num_expert_slots, 10);
  EXPECT_EQ(plan(200 * kGiB, 100 * kGiB, options)->expert_place(), ExpertPlace::kHost);
}

// Where the host does not hold all of them either, the device holds some for good, and the host others by turns.
TEST(MemoryPlan, ExpertsThatDoNotFitIntoTheHostEitherAreRead) {
  const auto plan = [](int64_t mapped_bytes, const RunnerOptions& options) {
    PaperDevice device(60 * kGiB, /*shares_host_memory=*/false, mapped_bytes);
    return PlanMemory(LargeConfig(), LargeSummary(), options, device, device.ops());
  };
  // 84 GiB of experts; of the host's memory a tenth stays free.
  const auto most = plan(50 * kGiB, {});
  ASSERT_TRUE(most.ok()) << most.status();
  EXPECT_EQ(most->expert_place(), ExpertPlace::kCheckpoint);
  EXPECT_GE(most->num_resident_experts, 60);
  EXPECT_EQ(most->expert_weight_bytes, most->num_resident_experts * kExpertBytes);
  EXPECT_EQ(most->num_expert_slots, 45 * kGiB / kExpertBytes);
  EXPECT_EQ(most->host_expert_bytes, most->num_expert_slots * kExpertBytes);
  EXPECT_LE(most->total_bytes(), 54 * kGiB) << "of the device alone, with a reserve";
  EXPECT_EQ(most->split, std::nullopt);

  RunnerOptions options;
  options.expert_host_bytes = 3 * kExpertBytes;
  EXPECT_EQ(plan(50 * kGiB, options)->num_expert_slots, 3);
  // No more slots than there are experts beside those of the device.
  options.expert_host_bytes = 84 * kGiB - 1;
  const auto few = plan(100 * kGiB, options);
  ASSERT_TRUE(few.ok()) << few.status();
  EXPECT_EQ(few->num_resident_experts + few->num_expert_slots, 84 * kGiB / kExpertBytes);
  options.expert_host_bytes = kExpertBytes - 1;
  EXPECT_THAT(plan(50 * kGiB, options).status().message(),
              AllOf(HasSubstr("not all experts go into paper"), HasSubstr("at least one, which takes 336.00 MiB"),
                    HasSubstr("--expert-host-gb can change"), HasSubstr("50.00 GiB")));
  // What reads ahead needs is the device's memory, where anything is read.
  options.expert_host_bytes = 3 * kExpertBytes;
  const int64_t workspace_bytes = plan(50 * kGiB, options)->workspace_bytes;
  options.expert_ahead_threads = 2;
  EXPECT_GT(plan(50 * kGiB, options)->workspace_bytes, workspace_bytes);
  options.expert_host_bytes = 84 * kGiB;
  EXPECT_EQ(plan(100 * kGiB, options)->workspace_bytes, workspace_bytes);
}

}  // namespace
}  // namespace cadre
