// The emulator of blocks: who runs, in which order, and which mistakes are found.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <set>
#include <vector>

#include "kernels/cuda/ptx.h"
#include "kernels/cuda/simt.h"

namespace {

using cadre::cuda::kAllLanes;

constexpr int kNumSeeds = 20;

// How many of the seeds let `run` return true.
template <typename Run>
int CountSeeds(const Run& run) {
  int count = 0;
  for (uint64_t seed = 0; seed < kNumSeeds; ++seed) {
    simt::SetSeed(seed);
    count += run() ? 1 : 0;
  }
  return count;
}

__global__ void Reverse(int* out, int n) {
  CADRE_DYNAMIC_SHARED(int, values);
  const int i = static_cast<int>(threadIdx.x);
  values[i] = i;
  __syncthreads();
  out[blockIdx.x * n + i] = values[n - 1 - i];
}

TEST(SimtBlockTest, ThreadsExchangeThroughSharedMemory) {
  for (const int n : {1, 31, 32, 33, 1024}) {
    std::vector<int> out(3 * n, -1);
    simt::Launch(dim3(3), dim3(n), n * sizeof(int), [&] { Reverse(out.data(), n); });
    for (int i = 0; i < 3 * n; ++i) ASSERT_EQ(out[i], n - 1 - i % n);
  }
}

TEST(SimtBlockTest, EveryThreadOfEveryBlockRunsOnceWithItsIndices) {
  std::set<std::vector<unsigned>> seen;
  simt::Launch(dim3(3, 2, 2), dim3(4, 3, 2), 0, [&] {
    EXPECT_EQ(gridDim.x, 3u);
    EXPECT_EQ(blockDim.y, 3u);
    EXPECT_TRUE(seen.insert({blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z}).second);
  });
  EXPECT_EQ(seen.size(), 12u * 24u);
  EXPECT_EQ(*seen.rbegin(), (std::vector<unsigned>{2, 1, 1, 3, 2, 1}));
}

TEST(SimtBlockTest, OrdersDependOnTheSeedAndTheLaunchAlone) {
  const auto order_of_launch = [] {
    std::vector<unsigned> order;
    simt::Launch(dim3(4), dim3(64), 0, [&] {
      __syncthreads();
      order.push_back(blockIdx.x * 64 + threadIdx.x);
    });
    return order;
  };
  simt::SetSeed(7);
  const std::vector<unsigned> first = order_of_launch();
  EXPECT_NE(order_of_launch(), first);
  simt::SetSeed(7);
  EXPECT_EQ(order_of_launch(), first);
  simt::SetSeed(8);
  EXPECT_NE(order_of_launch(), first);
}

// A tree of sums whose steps may lack their barriers.
__global__ void TreeSum(int* out, bool has_barrier) {
  __shared__ int values[256];
  const int i = static_cast<int>(threadIdx.x);
  values[i] = i;
  __syncthreads();
  for (int n = 128; n > 0; n /= 2) {
    if (i < n) values[i] += values[i + n];
    if (has_barrier) __syncthreads();
  }
  if (i == 0) *out = values[0];
}

TEST(SimtBlockTest, AMissingBarrierGivesWrongResults) {
  const auto is_right = [](bool has_barrier) {
    int sum = -1;
    simt::Launch(dim3(1), dim3(256), 0, [&] { TreeSum(&sum, has_barrier); });
    return sum == 255 * 128;
  };
  EXPECT_EQ(CountSeeds([&] { return is_right(true); }), kNumSeeds);
  EXPECT_LT(CountSeeds([&] { return is_right(false); }), kNumSeeds);
}

TEST(SimtBlockTest, AMissingBarrierBeforeTheNextWriteGivesWrongResults) {
  const auto is_right = [](bool has_barrier) {
    bool all_right = true;
    simt::Launch(dim3(1), dim3(64), 0, [&] {
      __shared__ int value;
      for (int round = 0; round < 4; ++round) {
        if (threadIdx.x == 0) value = round;
        __syncthreads();
        if (value != round) all_right = false;
        if (has_barrier) __syncthreads();
      }
    });
    return all_right;
  };
  EXPECT_EQ(CountSeeds([&] { return is_right(true); }), kNumSeeds);
  EXPECT_LT(CountSeeds([&] { return is_right(false); }), kNumSeeds);
}

TEST(SimtBlockTest, AMissingSyncwarpGivesWrongResults) {
  const auto is_right = [](bool has_barrier) {
    bool all_right = true;
    simt::Launch(dim3(1), dim3(32), 0, [&] {
      CADRE_SHARED(unsigned, values, [32]);
      values[threadIdx.x] = threadIdx.x;
      if (has_barrier) __syncwarp();
      if (values[31 - threadIdx.x] != 31 - threadIdx.x) all_right = false;
    });
    return all_right;
  };
  EXPECT_EQ(CountSeeds([&] { return is_right(true); }), kNumSeeds);
  EXPECT_EQ(CountSeeds([&] { return is_right(false); }), 0);
}

TEST(SimtBlockTest, SumsOfFloatsByAtomicsDependOnTheOrder) {
  std::set<float> sums;
  CountSeeds([&] {
    float sum = 0.0f;
    simt::Launch(dim3(8), dim3(32), 0,
                 [&] { atomicAdd(&sum, 1.0f / static_cast<float>(1 + blockIdx.x * 32 + threadIdx.x)); });
    return sums.insert(sum).second;
  });
  EXPECT_GT(sums.size(), 1u);
}

TEST(SimtBlockTest, BarriersReduce) {
  simt::Launch(dim3(1), dim3(100), 0, [] {
    const int i = static_cast<int>(threadIdx.x);
    EXPECT_EQ(__syncthreads_count(i % 3 == 0), 34);
    EXPECT_EQ(__syncthreads_or(i == 99), 1);
    EXPECT_EQ(__syncthreads_or(0), 0);
    EXPECT_EQ(__syncthreads_and(i < 100), 1);
    EXPECT_EQ(__syncthreads_and(i != 50), 0);
  });
}

TEST(SimtBlockTest, ExitedThreadsCountAsArrived) {
  const auto is_right = [] {
    int num_after = 0;
    simt::Launch(dim3(1), dim3(96), 0, [&] {
      if (threadIdx.x % 3 == 0) return;
      __syncthreads();
      ++num_after;
    });
    return num_after == 64;
  };
  EXPECT_EQ(CountSeeds(is_right), kNumSeeds);
}

TEST(SimtBlockTest, DynamicSharedMemoryBeginsAsNansAlignedTo16) {
  simt::Launch(dim3(2), dim3(1), 64, [] {
    CADRE_DYNAMIC_SHARED(float, values);
    CADRE_SHARED(float, fixed, [4]);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(values) % 32, 16u);
    for (int i = 0; i < 16; ++i) {
      EXPECT_NE(values[i], values[i]);
      values[i] = 1.0f;
    }
    for (float& value : fixed) {
      EXPECT_NE(value, value);
      value = 1.0f;
    }
  });
}

TEST(SimtBlockTest, TheLastBlockToArriveIsOne) {
  unsigned num_arrived = 0;
  int num_last = 0;
  simt::Launch(dim3(50), dim3(64), 0, [&] {
    CADRE_SHARED(bool, is_last, );
    if (threadIdx.x == 0) is_last = atomicInc(&num_arrived, 49) == 49;
    __syncthreads();
    if (is_last && threadIdx.x == 1) ++num_last;
  });
  EXPECT_EQ(num_last, 1);
  EXPECT_EQ(num_arrived, 0u);
}

TEST(SimtBlockTest, AWarpMayWaitForAnotherByAnAtomic) {
  unsigned flag = 0;
  simt::Launch(dim3(1), dim3(64), 0, [&] {
    if (threadIdx.x == 40) atomicExch(&flag, 1u);
    if (threadIdx.x == 3) {
      while (atomicAdd(&flag, 0u) == 0) __nanosleep(20);
    }
  });
  EXPECT_EQ(flag, 1u);
}

TEST(SimtBlockTest, ManyThreadsSwitchQuickly) {
  // Not a measurement: it fails where a switch costs a call of the kernel of the system, or a stack is made each time.
  const auto start = std::chrono::steady_clock::now();
  simt::Launch(dim3(1000), dim3(256), 0, [] {
    for (int i = 0; i < 4; ++i) __syncthreads();
  });
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

// ---- what ends the process ----

using SimtDeathTest = ::testing::Test;

TEST(SimtDeathTest, ABarrierThatAWarpNeverReachesIsReported) {
  EXPECT_DEATH(simt::Launch(dim3(1), dim3(64), 0,
                            [] {
                              if (threadIdx.x < 32) {
                                __syncthreads();
                              } else {
                                __shfl_sync(0x3u, 1, 0);
                              }
                            }),
               "the mask of the operation lacks the running thread's own lane");
  EXPECT_DEATH(
      simt::Launch(dim3(1), dim3(64), 0,
                   [] {
                     if (threadIdx.x != 7) {
                       __syncthreads();
                     } else {
                       __syncwarp();
                     }
                   }),
      "block \\(0, 0, 0\\).*no thread of the block can go on(.|\n)*63 threads, the first is \\(0, 0, 0\\): at a "
      "barrier(.|\n)*1 threads, the first is \\(7, 0, 0\\): at __syncwarp\\(mask 0xffffffff\\)");
}

__global__ void BarrierInBothBranches() {
  if (threadIdx.x < 16) {  // NOLINT(bugprone-branch-clone): that is the mistake
    __syncthreads();
  } else {
    __syncthreads();
  }
}

TEST(SimtDeathTest, ABarrierInBothBranchesOfAWarpIsReported) {
  EXPECT_DEATH(simt::Launch(dim3(1), dim3(32), 0, BarrierInBothBranches),
               "threads of one warp come to __syncthreads at different places");
}

TEST(SimtDeathTest, DifferentOperationsOfOneWarpAreReported) {
  EXPECT_DEATH(simt::Launch(dim3(1), dim3(32), 0,
                            [] {
                              if (threadIdx.x < 16) {
                                __shfl_xor_sync(kAllLanes, 1.0f, 1);
                              } else {
                                __shfl_xor_sync(kAllLanes, 1, 1);
                              }
                            }),
               "no thread of the block can go on");
  EXPECT_DEATH(simt::Launch(dim3(1), dim3(32), 0, [] { __syncwarp(threadIdx.x < 16 ? 0xFFFFu : kAllLanes); }),
               "no thread of the block can go on|exits though others of its warp wait for it|lanes that have exited");
}

TEST(SimtDeathTest, AMaskThatNamesAnExitedLaneIsReported) {
  EXPECT_DEATH(simt::Launch(dim3(1), dim3(32), 0,
                            [] {
                              if (threadIdx.x == 5) return;
                              __syncthreads();  // after it lane 5 has exited
                              __ballot_sync(kAllLanes, 1);
                            }),
               "names lanes that have exited");
  EXPECT_DEATH(simt::Launch(dim3(1), dim3(48), 0, [] { __syncwarp(); }), "names lanes that have exited");
}

TEST(SimtDeathTest, ALaneThatExitsThoughOthersWaitForItIsReported) {
  int num_on_their_way = 0;
  EXPECT_DEATH(simt::Launch(dim3(1), dim3(32), 0,
                            [&] {
                              if (threadIdx.x != 5) {
                                atomicAdd(&num_on_their_way, 1);
                                __ballot_sync(kAllLanes, 1);
                              }
                              while (atomicAdd(&num_on_their_way, 0) < 31) {
                              }
                              for (int i = 0; i < 10000; ++i) __nanosleep(1);
                            }),
               "thread \\(5, 0, 0\\).*exits though others of its warp wait for it");
}

TEST(SimtDeathTest, AWriteBeyondSharedMemoryIsReported) {
  EXPECT_DEATH(simt::Launch(dim3(1), dim3(32), 128,
                            [] {
                              CADRE_DYNAMIC_SHARED(unsigned char, bytes);
                              bytes[threadIdx.x * 4 + 4] = 0;
                            }),
               "wrote byte 128 of its dynamic shared memory, which has 128");
}

TEST(SimtDeathTest, ATrapNamesTheThread) {
  EXPECT_DEATH(simt::Launch(dim3(4), dim3(32), 0,
                            [] {
                              if (blockIdx.x == 2 && threadIdx.x == 9) __trap();
                            }),
               "kernel .*ATrapNamesTheThread.*, block \\(2, 0, 0\\), thread \\(9, 0, 0\\), launch .*__trap\\(\\)");
}

TEST(SimtDeathTest, ABlockThatWaitsForAnotherIsReported) {
  unsigned flag = 0;
  EXPECT_DEATH(simt::Launch(dim3(2), dim3(1), 0,
                            [&] {
                              atomicAdd(&flag, 1u);
                              while (atomicAdd(&flag, 0u) < 2) {
                              }
                            }),
               "the block spins");
}

}  // namespace
