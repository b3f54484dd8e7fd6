#include "server/model_loader.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

#include "server/request_limits.h"

namespace cadre {
namespace {

// Small machines keep their memory for the model, and yet take any one record.
TEST(ModelLoaderTest, RecordedChoicesTakeASmallPartOfTheMemory) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  constexpr int64_t kOneRecord = kMaxRoutedChoices * 8;
  EXPECT_EQ(MaxReplayBytes(8192 * kMiB), 128 * kMiB);
  EXPECT_EQ(MaxReplayBytes(16 * 1024 * kMiB), 256 * kMiB);
  EXPECT_EQ(MaxReplayBytes(1024 * 1024 * kMiB), 256 * kMiB);
  EXPECT_EQ(MaxReplayBytes(std::numeric_limits<int64_t>::max()), 256 * kMiB);
  EXPECT_EQ(MaxReplayBytes(100 * kMiB), kOneRecord);
  EXPECT_EQ(MaxReplayBytes(0), kOneRecord);
}

}  // namespace
}  // namespace cadre
