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
  for (int32_t block : first) pool.Release(block);
  EXPECT_EQ(pool.num_in_use(), 2);
  EXPECT_EQ(pool.Allocate(1).front(), first.back());  // the warm one
  EXPECT_TRUE(pool.Audit().ok());
  EXPECT_TRUE(pool.Allocate(0).empty());
}

TEST(BlockPoolTest, AKeptBlockIsIdleUntilItIsForgotten) {
  BlockPool pool(4);
  const std::vector<int32_t> blocks = pool.Allocate(4);
  for (int32_t block : blocks) pool.Keep(block);
  for (int i : {2, 0, 3}) pool.Release(blocks[static_cast<size_t>(i)]);
  EXPECT_EQ(pool.num_idle(), 3);
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_EQ(pool.num_available(), 3);
  EXPECT_EQ(pool.num_in_use(), 1);
  EXPECT_EQ(pool.OldestIdle(), blocks[2]);

  pool.AddHolder(blocks[2]);  // in use again, and then the latest to become idle
  EXPECT_EQ(pool.OldestIdle(), blocks[0]);
  pool.AddHolder(blocks[2]);
  pool.Release(blocks[2]);
  EXPECT_EQ(pool.num_idle(), 2);
  pool.Release(blocks[2]);
  EXPECT_EQ(pool.IdleBlocks(), (std::vector<int32_t>{blocks[0], blocks[3], blocks[2]}));
  EXPECT_TRUE(pool.Audit().ok()) << pool.Audit();

  pool.Forget(blocks[3]);
  EXPECT_EQ(pool.IdleBlocks(), (std::vector<int32_t>{blocks[0], blocks[2]}));
  EXPECT_EQ(pool.Allocate(1).front(), blocks[3]);
  pool.Forget(blocks[1]);  // in use: free as soon as it is released
  pool.Release(blocks[1]);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_TRUE(pool.Audit().ok()) << pool.Audit();
}

TEST(BlockPoolTest, UsedFreeBlocksAreReturnedOnceForEachUse) {
  BlockPool pool(4);
  EXPECT_EQ(pool.TakeUsedFree().size(), 4u);
  EXPECT_TRUE(pool.TakeUsedFree().empty());

  const std::vector<int32_t> blocks = pool.Allocate(3);
  pool.Keep(blocks[0]);
  pool.Release(blocks[0]);
  pool.Release(blocks[1]);
  EXPECT_EQ(pool.TakeUsedFree(), std::vector<int32_t>{blocks[1]});  // the others are idle and in use
  pool.Forget(blocks[0]);
  EXPECT_EQ(pool.TakeUsedFree(), std::vector<int32_t>{blocks[0]});

  pool.Release(pool.Allocate(1).front());
  EXPECT_EQ(pool.TakeUsedFree().size(), 1u);
  EXPECT_TRUE(pool.TakeUsedFree().empty());
}

TEST(BlockPoolTest, WhatIsNotUsableIsWithdrawnWhenItsLastHolderReleasesIt) {
  BlockPool pool(6);
  const std::vector<int32_t> blocks = pool.Allocate(4);  // 0, 1, 2, 3
  EXPECT_EQ(blocks, (std::vector<int32_t>{0, 1, 2, 3}));
  pool.AddHolder(3);
  pool.SetUsable(2);
  EXPECT_EQ(pool.num_usable(), 2);
  EXPECT_EQ(pool.num_free(), 0);  // 4 and 5 are withdrawn, 2 and 3 still in use
  EXPECT_EQ(pool.num_present(), 4);
  EXPECT_EQ(pool.num_in_use(), 4);
  EXPECT_FALSE(pool.is_drained());
  EXPECT_TRUE(pool.Audit().ok()) << pool.Audit();
  for (const int32_t block : {1, 2, 3}) pool.Release(block);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_EQ(pool.num_present(), 3);
  EXPECT_FALSE(pool.is_drained());  // 3 has another holder
  pool.Release(3);
  EXPECT_TRUE(pool.is_drained());
  EXPECT_EQ(pool.num_present(), 2);
  EXPECT_EQ(pool.Allocate(1), std::vector<int32_t>{1});
  EXPECT_TRUE(pool.Audit().ok()) << pool.Audit();
}

TEST(BlockPoolTest, WhatIsUsableAgainIsFreeOrStillInUse) {
  BlockPool pool(5);
  pool.TakeUsedFree();
  const std::vector<int32_t> blocks = pool.Allocate(4);
  for (const int32_t block : {0, 1, 2}) pool.Release(block);
  pool.SetUsable(1);
  EXPECT_EQ(pool.TakeUsedFree(), std::vector<int32_t>{0});
  EXPECT_EQ(pool.num_present(), 2);  // 3 is in use
  pool.SetUsable(5);
  EXPECT_TRUE(pool.is_drained());
  EXPECT_EQ(pool.num_present(), 5);
  EXPECT_EQ(pool.num_in_use(), 1);
  EXPECT_EQ(pool.TakeUsedFree().size(), 3u);             // 1, 2 and 4 have memory again
  EXPECT_EQ(pool.Allocate(1), std::vector<int32_t>{0});  // the warm one
  pool.Release(3);
  EXPECT_EQ(pool.num_free(), 4);
  EXPECT_TRUE(pool.Audit().ok()) << pool.Audit();
}

TEST(BlockPoolDeathTest, MistakesEndTheProcess) {
  BlockPool pool(2);
  const std::vector<int32_t> blocks = pool.Allocate(1);
  EXPECT_DEATH(pool.Allocate(2), "num_free");
  EXPECT_DEATH(pool.Release(2), "num_total");
  EXPECT_DEATH(pool.Forget(blocks.front()), "is_kept");
  pool.Release(blocks.front());
  EXPECT_DEATH(pool.Release(blocks.front()), "ref_count");
  EXPECT_DEATH(pool.Keep(blocks.front()), "ref_count");
  EXPECT_DEATH(pool.AddHolder(blocks.front()), "is_kept");
  EXPECT_DEATH(pool.OldestIdle(), "num_idle");
  EXPECT_DEATH(pool.SetUsable(3), "num_total");
  pool.Keep(pool.Allocate(1).front());
  EXPECT_DEATH(pool.SetUsable(0), "is_kept");
}

}  // namespace
}  // namespace cadre
