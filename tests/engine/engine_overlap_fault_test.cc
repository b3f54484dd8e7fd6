// A device that breaks while a step is computed and another is ordered behind it. On the emulated runtime.
#include <gtest/gtest.h>

#include <cstdint>

#include "tests/support/simt/runtime_control.h"
#include "tests/support/transformer_engine.h"

namespace cadre {
namespace {

class EngineOverlapFaultTest : public testing::Test {
 protected:
  void SetUp() override { simt::ResetDevice(); }
  void TearDown() override { simt::ResetDevice(); }
};

TEST_F(EngineOverlapFaultTest, ABrokenKernelIsToldToAllAndTheDeviceIsLost) {
  TransformerEngine served;
  const Ticket a = served.Submit(MakePrompt(4, 1), 30);
  const Ticket b = served.Submit(MakePrompt(6, 2), 30);
  while (served.engine->Snapshot().steps_ahead < 3) ASSERT_TRUE(served.engine->Step());
  const auto num_told = static_cast<int64_t>(a.sink->token_ids().size());
  simt::BreakNextKernel(cudaErrorIllegalAddress);  // of the step that is under way
  ASSERT_TRUE(served.engine->Step());
  EXPECT_TRUE(served.engine->Audit().ok()) << served.engine->Audit();
  for (const Ticket& ticket : {a, b}) {
    ASSERT_TRUE(ticket.sink->finished());
    EXPECT_EQ(ticket.sink->summary().status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(ticket.sink->summary().usage.generated_tokens, num_told);
  }
  EXPECT_TRUE(served.engine->Snapshot().is_lost);
  EXPECT_EQ(served.engine->Snapshot().kv_blocks_in_use, 0);
  const Ticket later = served.Submit(MakePrompt(4, 3), 3);
  served.Run();
  EXPECT_EQ(later.sink->summary().status.code(), absl::StatusCode::kUnavailable);
}

// A launch that is refused is an error of the steps under way, and of nothing after them.
TEST_F(EngineOverlapFaultTest, ALaunchThatIsRefusedEndsTheRequestsUnderWayAlone) {
  TransformerEngine served;
  const Ticket a = served.Submit(MakePrompt(4, 1), 30);
  while (served.engine->Snapshot().steps_ahead < 3) ASSERT_TRUE(served.engine->Step());
  simt::FailNext("cudaGraphLaunch", cudaErrorLaunchOutOfResources);  // of the step that is ordered behind
  while (!a.sink->finished()) ASSERT_TRUE(served.engine->Step());
  EXPECT_EQ(a.sink->summary().status.code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(served.engine->Snapshot().is_lost);
  const Ticket later = served.Submit(MakePrompt(4, 1), 8);
  const Ticket alone = later;
  served.Run();
  EXPECT_TRUE(alone.sink->summary().status.ok()) << alone.sink->summary().status;
  EXPECT_EQ(alone.sink->token_ids().size(), 8u);
}

// Whoever stops the engine gives the device back with nothing under way.
TEST_F(EngineOverlapFaultTest, StoppingLeavesNothingUnderWay) {
  TransformerEngine served;
  const Ticket a = served.Submit(MakePrompt(4, 1), 30);
  while (served.engine->Snapshot().steps_ahead < 3) ASSERT_TRUE(served.engine->Step());
  const size_t before = simt::NumKernels();
  served.engine->Stop();
  EXPECT_GT(simt::NumKernels(), before) << "the step under way was waited for";
  EXPECT_EQ(a.sink->summary().status.code(), absl::StatusCode::kUnavailable);
  const size_t stopped = simt::NumKernels();
  ASSERT_TRUE(served.device->Synchronize().ok());
  EXPECT_EQ(simt::NumKernels(), stopped);
}

}  // namespace
}  // namespace cadre
