#include "tools/what_if_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cadre {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::GetWhatIfResponse MakeResponse() {
  v1::GetWhatIfResponse response;
  response.set_model("toy");
  response.set_policy("lfu");
  response.set_slots(16);
  response.set_experts(64);
  response.set_expert_bytes(int64_t{1} << 30);
  return response;
}

TEST(WhatIfTableTest, NothingSimulatedIsSaid) {
  const std::string text = FormatWhatIf(MakeResponse());
  EXPECT_THAT(text, HasSubstr("toy: 16 of 64 experts in memory (16.0 GiB), policy lfu\n"));
  EXPECT_THAT(text, HasSubstr("nothing was simulated yet"));
}

TEST(WhatIfTableTest, ALineForEachSizeAndAColumnForEachPolicy) {
  v1::GetWhatIfResponse response = MakeResponse();
  response.set_steps(10);
  response.set_lookups(200);
  int hits = 0;
  for (const int slots : {8, 16}) {
    for (const char* const policy : {"lru", "lfu", "belady"}) {
      v1::WhatIfCache& cache = *response.add_caches();
      cache.set_policy(policy);
      cache.set_slots(slots);
      cache.set_hits(hits += 10);
    }
  }
  const std::string text = FormatWhatIf(response);
  EXPECT_THAT(text, HasSubstr("the last 10 steps, 200 lookups"));
  EXPECT_THAT(text, HasSubstr("   experts      memory          lru          lfu       belady\n"));
  EXPECT_THAT(text, HasSubstr("         8     8.0 GiB        5.0 %       10.0 %       15.0 %\n"));
  EXPECT_THAT(text, HasSubstr("        16    16.0 GiB       20.0 %     > 25.0 %       30.0 %\n"));
  EXPECT_THAT(text, Not(HasSubstr("nothing")));
  EXPECT_THAT(text, Not(HasSubstr("pinned")));
  EXPECT_THAT(text, Not(HasSubstr("for good")));
  response.set_resident(7);
  EXPECT_THAT(FormatWhatIf(response), HasSubstr("7 more experts lie in the device's memory for good"));
  response.set_pinned(3);
  EXPECT_THAT(FormatWhatIf(response), HasSubstr("the cache that serves has 3 pinned experts; none of these has any\n"));
}

}  // namespace
}  // namespace cadre
