// Operations of warps, tensor cores and asynchronous copies, each against its definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda/ptx.h"
#include "kernels/cuda/simt.h"
#include "kernels/dtype.h"

namespace {

using cadre::cuda::kAllLanes;

unsigned Lane() { return threadIdx.x % 32; }

template <typename Body>
void OneWarp(const Body& body) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    simt::SetSeed(seed);
    simt::Launch(dim3(1), dim3(32), 0, body);
  }
}

template <typename T>
class SimtShuffleTest : public ::testing::Test {};
using ShuffledTypes = ::testing::Types<int, unsigned, float, double, int64_t, uint64_t, long long, unsigned long long>;
TYPED_TEST_SUITE(SimtShuffleTest, ShuffledTypes);

TYPED_TEST(SimtShuffleTest, ReadsTheLaneOfTheDefinition) {
  OneWarp([] {
    const int lane = static_cast<int>(Lane());
    // Both halves of a value of 64 bits matter.
    const auto value_of = [](int l) {
      return static_cast<TypeParam>(l) * static_cast<TypeParam>(sizeof(TypeParam) == 8 ? 3'000'000'001LL : 3LL);
    };
    const TypeParam own = value_of(lane);
    for (int width = 1; width <= 32; width *= 2) {
      const int begin = lane / width * width;
      for (int offset = 0; offset < 32; ++offset) {
        const auto expect = [&](TypeParam actual, int source) {
          ASSERT_EQ(actual, value_of(source)) << lane << " " << width << " " << offset;
        };
        expect(__shfl_sync(kAllLanes, own, offset, width), begin + offset % width);
        expect(__shfl_up_sync(kAllLanes, own, offset, width), lane - offset < begin ? lane : lane - offset);
        expect(__shfl_down_sync(kAllLanes, own, offset, width), lane + offset >= begin + width ? lane : lane + offset);
        expect(__shfl_xor_sync(kAllLanes, own, offset, width), (lane ^ offset) >= begin + width ? lane : lane ^ offset);
      }
    }
  });
}

TEST(SimtWarpTest, LanesReadFromADifferentSourceEach) {
  OneWarp([] { EXPECT_EQ(__shfl_sync(kAllLanes, Lane() * 7, static_cast<int>(31 - Lane())), (31 - Lane()) * 7); });
}

TEST(SimtWarpTest, ALaneOutsideOfTheMaskGivesNan) {
  OneWarp([] {
    if (Lane() >= 16) return;
    const float value = __shfl_sync(0xFFFFu, 1.0f, 20);
    EXPECT_NE(value, value);
  });
}

TEST(SimtWarpTest, PartsOfAWarpGoTheirOwnWays) {
  OneWarp([] {
    const unsigned half = Lane() < 16 ? 0x0000FFFFu : 0xFFFF0000u;
    unsigned sum = Lane();
    for (int round = 0; round < (Lane() < 16 ? 1 : 3); ++round) {
      sum = Lane();
      for (int offset = 8; offset > 0; offset /= 2) sum += __shfl_xor_sync(half, sum, offset);
    }
    EXPECT_EQ(sum, Lane() < 16 ? 120u : 376u);
    __syncwarp();
  });
}

TEST(SimtWarpTest, Votes) {
  OneWarp([] {
    EXPECT_EQ(__ballot_sync(kAllLanes, Lane() % 4 == 1), 0x22222222u);
    EXPECT_EQ(__any_sync(kAllLanes, Lane() == 31), 1);
    EXPECT_EQ(__any_sync(kAllLanes, 0), 0);
    EXPECT_EQ(__all_sync(kAllLanes, 5), 1);
    EXPECT_EQ(__all_sync(kAllLanes, static_cast<int>(Lane())), 0);
    if (Lane() < 8) {
      EXPECT_EQ(__all_sync(0xFFu, Lane() < 8), 1);
    }
    EXPECT_EQ(__activemask() & (1u << Lane()), 1u << Lane());
  });
}

TEST(SimtWarpTest, MatchesAndReductions) {
  OneWarp([] {
    EXPECT_EQ(__match_any_sync(kAllLanes, static_cast<int>(Lane() / 8)), 0xFFu << (Lane() / 8 * 8));
    EXPECT_EQ(__match_any_sync(kAllLanes, uint64_t{Lane() % 2} << 40), Lane() % 2 == 0 ? 0x55555555u : 0xAAAAAAAAu);
    const int i = static_cast<int>(Lane());
    EXPECT_EQ(__reduce_add_sync(kAllLanes, i - 16), -16);
    EXPECT_EQ(__reduce_min_sync(kAllLanes, i - 16), -16);
    EXPECT_EQ(__reduce_max_sync(kAllLanes, i - 16), 15);
    EXPECT_EQ(__reduce_min_sync(kAllLanes, Lane() + 3), 3u);
    EXPECT_EQ(__reduce_max_sync(kAllLanes, static_cast<unsigned>(i - 16)), 0xFFFFFFFFu);
    EXPECT_EQ(__reduce_add_sync(kAllLanes, 0xFFFFFFFFu), 0xFFFFFFE0u);
  });
}

TEST(SimtArithmeticTest, Intrinsics) {
  EXPECT_EQ(__popc(0xF0F0u), 8);
  EXPECT_EQ(__popcll(~0ull), 64);
  EXPECT_EQ(__ffs(0), 0);
  EXPECT_EQ(__ffs(8), 4);
  EXPECT_EQ(__clz(1), 31);
  EXPECT_EQ(__clz(0), 32);
  EXPECT_EQ(__uint_as_float(0x3F800000u), 1.0f);
  EXPECT_EQ(__float_as_int(-0.0f), INT32_MIN);
  EXPECT_EQ(__fmaf_rn(1.0f + 0x1p-23f, 1.0f + 0x1p-23f, -1.0f), 0x1p-22f + 0x1p-46f);
  EXPECT_EQ(min(NAN, 1.0f), 1.0f);
  EXPECT_EQ(max(-1, 2), 2);
  EXPECT_EQ(min(-1, 2u), 2u);  // as in CUDA: compared as unsigned
  EXPECT_EQ(alignof(float4), 16u);
  EXPECT_EQ(make_uint4(1, 2, 3, 4).z, 3u);
}

TEST(SimtArithmeticTest, AtomicsReturnTheOldValue) {
  OneWarp([] {
    if (Lane() != 0) return;
    unsigned u = 5;
    EXPECT_EQ(atomicInc(&u, 5), 5u);
    EXPECT_EQ(u, 0u);
    EXPECT_EQ(atomicDec(&u, 9), 0u);
    EXPECT_EQ(atomicOr(&u, 16u), 9u);
    EXPECT_EQ(atomicCAS(&u, 25u, 1u), 25u);
    EXPECT_EQ(atomicCAS(&u, 25u, 2u), 1u);
    EXPECT_EQ(atomicExch(&u, 7u), 1u);
    EXPECT_EQ(atomicMax(&u, 3u), 7u);
    EXPECT_EQ(atomicMin(&u, 3u), 7u);
    EXPECT_EQ(u, 3u);
    double d = 0.5;
    EXPECT_EQ(atomicAdd(&d, 0.25), 0.5);
    EXPECT_EQ(d, 0.75);
  });
}

// ---- tensor cores: PTX ISA, "Matrix Fragments for mma.m16n8k16" ----

uint32_t Pair(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

TEST(SimtTensorCoreTest, ProductsAreThoseOfDoublePrecision) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  uint16_t a[16][16];
  uint16_t b[16][8];
  float c[16][8];
  for (auto& row : a) {
    for (auto& x : row) x = cadre::ToBFloat16(normal(random)).bits;
  }
  for (auto& row : b) {
    for (auto& x : row) x = cadre::ToBFloat16(normal(random)).bits;
  }
  for (auto& row : c) {
    for (auto& x : row) x = normal(random);
  }
  const auto value = [](uint16_t bits) {
    return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(bits) << 16));
  };
  float actual[16][8] = {};
  OneWarp([&] {
    const unsigned g = Lane() / 4;
    const unsigned t = Lane() % 4;
    const uint32_t fragment_a[4] = {Pair(a[g][2 * t], a[g][2 * t + 1]), Pair(a[g + 8][2 * t], a[g + 8][2 * t + 1]),
                                    Pair(a[g][2 * t + 8], a[g][2 * t + 9]),
                                    Pair(a[g + 8][2 * t + 8], a[g + 8][2 * t + 9])};
    const uint32_t fragment_b[2] = {Pair(b[2 * t][g], b[2 * t + 1][g]), Pair(b[2 * t + 8][g], b[2 * t + 9][g])};
    float d[4] = {c[g][2 * t], c[g][2 * t + 1], c[g + 8][2 * t], c[g + 8][2 * t + 1]};
    cadre::cuda::MmaM16N8K16Bf16(d, fragment_a, fragment_b);
    actual[g][2 * t] = d[0];
    actual[g][2 * t + 1] = d[1];
    actual[g + 8][2 * t] = d[2];
    actual[g + 8][2 * t + 1] = d[3];
  });
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      double expected = static_cast<double>(c[i][j]);
      for (int k = 0; k < 16; ++k) expected += value(a[i][k]) * value(b[k][j]);
      ASSERT_NEAR(static_cast<double>(actual[i][j]), expected, 1e-5) << i << ", " << j;
    }
  }
}

// Element (row, column) of matrix m is 256 m + 16 row + column.
void FillMatrices(uint16_t* matrices, int num_matrices) {
  for (int i = 0; i < num_matrices * 64; ++i) {
    matrices[i] = static_cast<uint16_t>(i / 64 * 256 + i / 8 % 8 * 16 + i % 8);
  }
}

TEST(SimtTensorCoreTest, MatrixLoadsFollowTheDefinition) {
  alignas(16) uint16_t matrices[4 * 64];
  FillMatrices(matrices, 4);
  OneWarp([&] {
    const unsigned g = Lane() / 4;
    const unsigned t = Lane() % 4;
    const auto element = [](unsigned m, unsigned row, unsigned column) {
      return static_cast<uint16_t>(m * 256 + row * 16 + column);
    };
    uint32_t four[4];
    uint32_t two[2];
    cadre::cuda::LdMatrixX4(four, matrices + Lane() * 8);
    for (unsigned m = 0; m < 4; ++m) ASSERT_EQ(four[m], Pair(element(m, g, 2 * t), element(m, g, 2 * t + 1)));
    cadre::cuda::LdMatrixX4Trans(four, matrices + Lane() * 8);
    for (unsigned m = 0; m < 4; ++m) ASSERT_EQ(four[m], Pair(element(m, 2 * t, g), element(m, 2 * t + 1, g)));
    cadre::cuda::LdMatrixX2(two, matrices + Lane() % 16 * 8);
    for (unsigned m = 0; m < 2; ++m) ASSERT_EQ(two[m], Pair(element(m, g, 2 * t), element(m, g, 2 * t + 1)));
    cadre::cuda::LdMatrixX2Trans(two, matrices + Lane() % 16 * 8);
    for (unsigned m = 0; m < 2; ++m) ASSERT_EQ(two[m], Pair(element(m, 2 * t, g), element(m, 2 * t + 1, g)));
  });
}

// ---- asynchronous copies ----

// Copies two rounds of 16 bytes per lane, waits for all but `max_pending` groups, and counts the floats that arrived.
template <int max_pending>
int CountArrived(int num_valid) {
  alignas(16) float from[2][32][4];
  for (auto& round : from) {
    for (auto& row : round) std::fill(std::begin(row), std::end(row), 1.0f);
  }
  int num_arrived = 0;
  simt::Launch(dim3(1), dim3(32), 2 * 32 * 16, [&] {
    CADRE_DYNAMIC_SHARED(float4, to);
    for (int round = 0; round < 2; ++round) {
      cadre::cuda::CpAsync16(&to[round * 32 + Lane()], from[round][Lane()], static_cast<int>(Lane()) < num_valid);
      cadre::cuda::CpAsyncCommit();
    }
    cadre::cuda::CpAsyncWait<max_pending>();
    for (int round = 0; round < 2; ++round) num_arrived += to[round * 32 + Lane()].w == 1.0f ? 1 : 0;
    cadre::cuda::CpAsyncWait<0>();
    const float expected = static_cast<int>(Lane()) < num_valid ? 1.0f : 0.0f;
    for (int round = 0; round < 2; ++round) EXPECT_EQ(to[round * 32 + Lane()].x, expected);
  });
  return num_arrived;
}

TEST(SimtAsyncCopyTest, ACopyArrivesAtItsWaitAndNotBefore) {
  EXPECT_EQ(CountArrived<0>(32), 64);
  EXPECT_EQ(CountArrived<1>(32), 32);
  EXPECT_EQ(CountArrived<2>(32), 0);
}

TEST(SimtAsyncCopyTest, WhatIsNotValidIsZero) { EXPECT_EQ(CountArrived<0>(10), 20); }

TEST(SimtAsyncCopyTest, ACopyIntoWhatOthersStillReadIsSeen) {
  alignas(16) const float from[4] = {2.0f, 2.0f, 2.0f, 2.0f};
  int num_poisoned = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    simt::SetSeed(seed);
    simt::Launch(dim3(1), dim3(64), 16, [&] {
      CADRE_DYNAMIC_SHARED(float4, stage);
      if (threadIdx.x == 0) stage[0] = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
      __syncthreads();
      if (threadIdx.x == 0) cadre::cuda::CpAsync16(stage, from, true);
      cadre::cuda::CpAsyncCommit();
      if (stage[0].x != 1.0f) ++num_poisoned;  // a barrier should stand before the copy
      cadre::cuda::CpAsyncWait<0>();
    });
  }
  EXPECT_GT(num_poisoned, 0);
}

__global__ void LoadInBothBranches() {
  alignas(16) static char bytes[16];
  uint32_t r[2];
  if (threadIdx.x < 16) {  // NOLINT(bugprone-branch-clone): that is the mistake
    cadre::cuda::LdMatrixX2(r, bytes);
  } else {
    cadre::cuda::LdMatrixX2(r, bytes);
  }
}

TEST(SimtWarpDeathTest, CopiesAndLoadsThatPtxForbidsAreReported) {
  alignas(16) static char bytes[64];
  EXPECT_DEATH(simt::Launch(dim3(1), dim3(1), 0, [] { cadre::cuda::CpAsync16(bytes, bytes + 16, true); }),
               "ends with 1 copies of cp.async that it did not wait for");
  EXPECT_DEATH(simt::Launch(dim3(1), dim3(1), 0, [] { cadre::cuda::CpAsync16(bytes + 8, bytes + 16, true); }),
               "must be aligned to 16 bytes");
  EXPECT_DEATH(simt::Launch(dim3(1), dim3(32), 0,
                            [] {
                              uint32_t r[4];
                              cadre::cuda::LdMatrixX4(r, bytes + 2 * threadIdx.x);
                            }),
               "not aligned to 16 bytes");
  EXPECT_DEATH(simt::Launch(dim3(1), dim3(32), 0, LoadInBothBranches),
               "lanes of one warp come to an aligned operation at different places");
}

}  // namespace
