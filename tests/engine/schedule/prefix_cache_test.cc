// What is found, what is shared and what is given up first.
#include "engine/schedule/prefix_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <vector>

namespace cadre {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr int32_t kBlockSize = 4;

// Sequences that run by hand.
class PrefixCacheTest : public testing::Test {
 protected:
  struct Run {
    Sequence sequence;
    PrefixChain chain;
    size_t num_found = 0;
  };

  void Build(int32_t num_blocks, PrefixCacheOptions options = {}) {
    options.block_size = kBlockSize;
    pool_ = std::make_unique<BlockPool>(num_blocks);
    cache_ = std::make_unique<PrefixCache>(options, pool_.get());
  }
  // Computes a whole prompt, with what is found of it.
  Run& Compute(std::vector<int32_t> tokens, const char* domain = "d") {
    Run& run = runs_.emplace_back(
        Run{Sequence(static_cast<SequenceId>(runs_.size()), std::move(tokens)), cache_->MakeChain(domain)});
    cache_->ExtendChain(run.sequence.tokens(), &run.chain);
    const std::vector<int32_t> found = cache_->Find(run.sequence, run.chain);
    run.num_found = found.size();
    cache_->Hold(found);
    run.sequence.Resume(static_cast<int32_t>(found.size()) * kBlockSize, found);
    run.chain.num_entered = static_cast<int32_t>(found.size());
    const int32_t num_blocks = (run.sequence.num_tokens() + kBlockSize - 1) / kBlockSize;
    run.sequence.Schedule(run.sequence.num_uncomputed_tokens(),
                          cache_->Allocate(num_blocks - static_cast<int32_t>(found.size())));
    run.sequence.Advance();
    return run;
  }
  void Enter(Run& run) {
    cache_->Enter(&run.sequence, &run.chain);
    Audit();
  }
  void Finish(Run& run) {
    cache_->Release(run.sequence.Finish());
    Audit();
  }
  // Computes, enters and ends; returns how many blocks were found.
  size_t Serve(std::vector<int32_t> tokens, const char* domain = "d") {
    Run& run = Compute(std::move(tokens), domain);
    Enter(run);
    Finish(run);
    return run.num_found;
  }
  void Audit() const {
    EXPECT_TRUE(cache_->Audit().ok()) << cache_->Audit();
    EXPECT_TRUE(pool_->Audit().ok()) << pool_->Audit();
  }

  std::unique_ptr<BlockPool> pool_;
  std::unique_ptr<PrefixCache> cache_;
  std::deque<Run> runs_;
};

TEST_F(PrefixCacheTest, WhatIsNotUsableIsGivenUpWithAllThatStandsOnIt) {
  Build(6);
  Serve({1, 2, 3, 4, 5, 6, 7, 8, 9});       // blocks 0 and 1; 2 is free again, and the warm one
  Run& running = Compute({5, 6, 7, 8, 1});  // in 2 and 3
  Enter(running);
  cache_->SetUsableBlocks(1);
  Audit();
  EXPECT_EQ(cache_->num_entries(), 1);  // block 0
  EXPECT_EQ(cache_->num_evictions(), 2);
  EXPECT_EQ(pool_->num_in_use(), 2);
  EXPECT_FALSE(pool_->is_drained());
  Finish(running);
  EXPECT_TRUE(pool_->is_drained());
  EXPECT_EQ(pool_->num_available(), 1);

  cache_->SetUsableBlocks(6);
  EXPECT_EQ(Serve({1, 2, 3, 4, 5, 6, 7, 8, 9}), 1u);
  EXPECT_EQ(Serve({5, 6, 7, 8, 1}), 0u);
}

TEST_F(PrefixCacheTest, ABlockThatIsNotUsableAnyMoreEntersNoMore) {
  Build(6);
  Run& running = Compute({1, 2, 3, 4, 5, 6, 7, 8, 9});  // in 0, 1 and 2
  cache_->SetUsableBlocks(1);
  Enter(running);
  EXPECT_EQ(cache_->num_entries(), 1);
  Finish(running);
  EXPECT_TRUE(pool_->is_drained());
  EXPECT_EQ(pool_->num_idle(), 1);
}

TEST_F(PrefixCacheTest, FindsTheLongestPrefixOfFullBlocks) {
  Build(20);
  EXPECT_EQ(Serve({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}), 0u);
  EXPECT_EQ(pool_->num_idle(), 2);
  EXPECT_EQ(pool_->num_in_use(), 0);
  EXPECT_EQ(Serve({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}), 2u);
  EXPECT_EQ(Serve({1, 2, 3, 4, 5, 6, 7, 0, 9, 10}), 1u);
  EXPECT_EQ(Serve({0, 2, 3, 4, 5, 6, 7, 8, 9, 10}), 0u);
  EXPECT_EQ(Serve({5, 6, 7, 8, 9, 10}), 0u);  // the same block after another beginning is another block
  EXPECT_EQ(Serve({1, 2, 3}), 0u);
}

TEST_F(PrefixCacheTest, TheLastTokenIsNeverFound) {
  Build(20);
  Serve({1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_EQ(pool_->num_idle(), 2);
  EXPECT_EQ(Serve({1, 2, 3, 4, 5, 6, 7, 8}), 1u);
  EXPECT_EQ(Serve({1, 2, 3, 4, 5, 6, 7, 8, 9}), 2u);
}

TEST_F(PrefixCacheTest, DomainsDoNotMeet) {
  Build(20);
  Serve({1, 2, 3, 4, 5}, "a");
  EXPECT_EQ(Serve({1, 2, 3, 4, 5}, "b"), 0u);
  EXPECT_EQ(Serve({1, 2, 3, 4, 5}, "a"), 1u);
  EXPECT_EQ(Serve({1, 2, 3, 4, 5}, ""), 0u);
  EXPECT_EQ(Serve({1, 2, 3, 4, 5}, ""), 0u);
  EXPECT_EQ(pool_->num_idle(), 2);
}

// With one bit of key, everything collides with everything.
TEST_F(PrefixCacheTest, AKeyAloneProvesNothing) {
  for (const int32_t key_bits : {1, 8}) {
    Build(400, {.key_bits = key_bits});
    for (int32_t i = 0; i < 60; ++i) {
      EXPECT_EQ(Serve({i, 2, 3, 4, 5, 6, 7, 8, 9}, i % 2 == 0 ? "a" : "b"), 0u) << i;
    }
    for (int32_t i = 0; i < 60; ++i) {
      EXPECT_EQ(Serve({i, 2, 3, 4, 5, 6, 7, 8, 9}, i % 2 == 0 ? "a" : "b"), 2u) << i;
      EXPECT_EQ(Serve({i, 2, 3, 4, 5, 6, 7, 8, 9}, i % 2 == 0 ? "b" : "a"), 0u) << i;
    }
  }
}

TEST_F(PrefixCacheTest, EqualBlocksThatWereComputedTwiceBecomeOne) {
  Build(20);
  Run& first = Compute({1, 2, 3, 4, 5, 6, 7, 8, 9});
  Run& second = Compute({1, 2, 3, 4, 5, 6, 7, 8, 9});
  EXPECT_EQ(pool_->num_in_use(), 6);
  Enter(first);
  Enter(second);
  EXPECT_EQ(pool_->num_in_use(), 4);
  EXPECT_EQ(first.sequence.block_table()[1], second.sequence.block_table()[1]);
  EXPECT_NE(first.sequence.block_table()[2], second.sequence.block_table()[2]);
  EXPECT_EQ(pool_->ref_count(first.sequence.block_table()[0]), 2);
  Finish(first);
  EXPECT_EQ(pool_->num_idle(), 0);
  Finish(second);
  EXPECT_EQ(pool_->num_idle(), 2);
}

TEST_F(PrefixCacheTest, TheLongestUnusedGoesFirstAndLeavesBeforeTheirParents) {
  Build(6);
  Serve({1, 1, 1, 1, 2, 2, 2, 2, 3});     // 2 blocks stay
  Serve({7, 7, 7, 7, 8, 8, 8, 8, 9});     // 2 more
  EXPECT_EQ(Serve({1, 1, 1, 1, 0}), 1u);  // the parent of the first is the latest now
  EXPECT_EQ(pool_->num_free(), 2);
  cache_->Release(cache_->Allocate(3));  // evicts the leaf of the first
  EXPECT_EQ(cache_->num_evictions(), 1);
  Run& still = Compute({7, 7, 7, 7, 8, 8, 8, 8, 9});
  EXPECT_EQ(still.num_found, 2u);
  Run& cut = Compute({1, 1, 1, 1, 2, 2, 2, 2, 3});
  EXPECT_EQ(cut.num_found, 1u);
  EXPECT_EQ(pool_->num_available(), 0);
  Audit();
}

TEST_F(PrefixCacheTest, WhatIsInUseIsNotEvicted) {
  Build(4);
  Run& run = Compute({1, 2, 3, 4, 5, 6, 7, 8, 9});
  Enter(run);
  Serve({1, 2, 3, 4, 9});
  EXPECT_EQ(pool_->num_available(), 1);
  EXPECT_EQ(cache_->Allocate(1).size(), 1u);
  EXPECT_EQ(cache_->num_evictions(), 0);
  EXPECT_DEATH(cache_->Allocate(1), "num_idle");
}

TEST_F(PrefixCacheTest, WithoutIdleBlocksOnlyTheLivingShare) {
  Build(20, {.keeps_idle = false});
  Run& run = Compute({1, 2, 3, 4, 5, 6, 7, 8, 9});
  Enter(run);
  EXPECT_EQ(Serve({1, 2, 3, 4, 5, 6, 7, 8, 10}), 2u);
  Finish(run);
  EXPECT_EQ(pool_->num_free(), 20);
  EXPECT_EQ(cache_->num_entries(), 0);
  EXPECT_EQ(Serve({1, 2, 3, 4, 5, 6, 7, 8, 10}), 0u);
}

TEST_F(PrefixCacheTest, ForgettingTakesAllThatStandsOnIt) {
  Build(20);
  Serve({1, 2, 3, 4, 5, 6, 7, 8, 9});
  Serve({1, 2, 3, 4, 50, 60, 70, 80, 9});
  Serve({9, 9, 9, 9, 9});
  Run& failed = Compute({1, 2, 3, 4, 5, 6, 7, 8, 9});
  Run& neighbor = Compute({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13});
  Enter(neighbor);
  const std::vector<int32_t> table = failed.sequence.block_table();
  Finish(failed);
  // The neighbor holds three of the blocks: those are not free, but nobody finds them any more. Free are the failed
  // one's last block and the other branch.
  EXPECT_EQ(cache_->Forget(table).size(), 2u);
  Audit();
  EXPECT_EQ(cache_->num_entries(), 1);
  EXPECT_EQ(Compute({1, 2, 3, 4, 5, 6, 7, 8, 9}).num_found, 0u);
  // What the neighbor computes from now on stands on something without a name.
  neighbor.sequence.AppendToken(14);
  cache_->ExtendChain(neighbor.sequence.tokens(), &neighbor.chain);
  Enter(neighbor);
  EXPECT_EQ(cache_->num_entries(), 1);
  Finish(neighbor);
  EXPECT_EQ(pool_->num_idle(), 1);
}

// Negative control: a rule that is never broken proves nothing.
TEST_F(PrefixCacheTest, TheAuditFindsABlockReleasedBeforeItsChild) {
  Build(8);
  Run& run = Compute({1, 2, 3, 4, 5, 6, 7, 8, 9});
  Enter(run);
  for (int32_t block : run.sequence.Finish()) pool_->Release(block);  // parents first
  EXPECT_NE(cache_->Audit().message().find("after its parent"), absl::string_view::npos) << cache_->Audit();
}

TEST_F(PrefixCacheTest, TheAuditFindsAKeptBlockWithoutAnEntry) {
  Build(8);
  Run& run = Compute({1, 2, 3, 4, 5});
  pool_->Keep(run.sequence.block_table()[0]);
  EXPECT_FALSE(cache_->Audit().ok());
}

}  // namespace
}  // namespace cadre
