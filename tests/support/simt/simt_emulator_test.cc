// The emulator of blocks: barriers, orders, and what it must find.
#include "kernels/cuda/simt.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>
#include <vector>

#include "kernels/cuda/ptx.h"

namespace {

constexpr unsigned kAll = 0xFFFFFFFFu;

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
    EXPECT_TRUE(
        seen.insert({blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z}).second);
  });
  EXPECT_EQ(seen.size(), 12u * 24u);
  EXPECT_EQ(*seen.rbegin(), (std::vector<unsigned>{2, 1, 1, 3, 2, 1}));
}

// A tree of sums whose last steps may lack their barrier.
__global__ void SumWithoutBarrier(int* out, bool has_barrier) {
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

int CountRightSums(bool has_barrier) {
  int num_right = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    simt::SetSeed(seed);
    int sum = -1;
    simt::Launch(dim3(1), dim3(256), 0, [&] { SumWithoutBarrier(&sum, has_barrier); });
    num_right += sum == 255 * 128 ? 1 : 0;
  }
  return num_right;
}

TEST(SimtBlockTest, AMissingBarrierGivesWrongResults) {
  EXPECT_EQ(CountRightSums(true), 20);
  EXPECT_LT(CountRightSums(false), 20);
}

}  // namespace
