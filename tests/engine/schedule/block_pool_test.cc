#include "engine/schedule/block_pool.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace cadre {
namespace {

TEST(BlockPoolTest, GivesEachBlockOnceAndTakesItBack) {
  BlockPool pool(5);
  const std::vector<int32_t> first = pool.Allocate(3);
  const std::vector<int32_t> second = pool.Allocate(2);
  std::set<int32_t> all(first.begin(), first.end());
  all.insert(second.begin(), second.end());
  EXPECT_EQ(all, (std::set<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_TRUE(pool.Audit().ok());
  pool.Release(first);
  EXPECT_EQ(pool.num_in_use(), 2);
  EXPECT_EQ(pool.Allocate(1).front(), first.back());  // the warm one
  EXPECT_TRUE(pool.Audit().ok());
  EXPECT_TRUE(pool.Allocate(0).empty());
}

TEST(BlockPoolDeathTest, MistakesEndTheProcess) {
  BlockPool pool(2);
  const std::vector<int32_t> blocks = pool.Allocate(1);
  EXPECT_DEATH(pool.Allocate(2), "num_free");
  EXPECT_DEATH(pool.Release(std::vector<int32_t>{2}), "num_total");
  pool.Release(blocks);
  EXPECT_DEATH(pool.Release(blocks), "ref_count");
}

}  // namespace
}  // namespace cadre
