// What is said at the start of a model whose experts do not all fit.
#include "server/expert_startup.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace cadre {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// 48 layers with 8 of 128 experts, of 9 MiB; three quarters fit.
ExpertSpeed LargeModel() {
  return {.num_experts = 6144,
          .num_slots = 4608,
          .token_experts = 384,
          .expert_bytes = 9 * kMiB,
          .num_probed = 8,
          .num_threads = 4,
          .bytes_per_second = 1728.0 * kMiB};
}

TEST(ExpertStartupTest, PastThePageCacheThereIsOneRate) {
  EXPECT_EQ(DescribeSpeed(LargeModel()),
            "expert speed: a token of one sequence waits about 500.0ms for experts (96.0 of its 384 at a hit ratio of "
            "75.0%, the share that fits: 864.0 MiB at 1.69 GiB/s, measured with 8 of them, 4 at a time)");
}

TEST(ExpertStartupTest, ThroughThePageCacheThereAreTwo) {
  ExpertSpeed speed = LargeModel();
  speed.bytes_per_second = 108.0 * kMiB;
  speed.cached_bytes_per_second = 8640.0 * kMiB;
  EXPECT_EQ(DescribeSpeed(speed),
            "expert speed: a token of one sequence waits about 8.00s for experts (96.0 of its 384 at a hit ratio of "
            "75.0%, the share that fits: 864.0 MiB at 108.0 MiB/s, measured with 8 of them, 4 at a time), or 100.0ms "
            "for those in the page cache (8.44 GiB/s)");
}

TEST(ExpertStartupTest, OverTheLinkOfADevice) {
  ExpertSpeed speed = LargeModel();
  speed.bytes_per_second = 43200.0 * kMiB;
  EXPECT_EQ(DescribeLinkSpeed(speed),
            "expert speed: a token of one sequence reads experts over the link for about 20.0ms (96.0 of its 384 at a "
            "hit ratio of 75.0%, the share that fits: 864.0 MiB at 42.19 GiB/s, measured when the slots were filled)");
}

}  // namespace
}  // namespace cadre
