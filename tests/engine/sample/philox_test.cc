#include "engine/sample/philox.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <vector>

namespace cadre {
namespace {

// The known answers that the authors of Philox publish with their reference implementation (Random123, kat_vectors).
TEST(PhiloxTest, GivesTheKnownAnswers) {
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}), (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, AllBitsOfSeedStreamAndIndexCount) {
  const double draw = UniformDraw(1, 0, 1);
  for (int bit = 0; bit < 64; ++bit) {
    const uint64_t flip = uint64_t{1} << bit;
    EXPECT_NE(UniformDraw(1 ^ flip, 0, 1), draw) << "seed bit " << bit;
    EXPECT_NE(UniformDraw(1, 0, 1 ^ flip), draw) << "index bit " << bit;
  }
  for (int bit = 0; bit < 32; ++bit) EXPECT_NE(UniformDraw(1, uint32_t{1} << bit, 1), draw) << "stream bit " << bit;
}

TEST(PhiloxTest, DrawsFillTheUnitIntervalEvenly) {
  constexpr int kCells = 64;
  constexpr int kDraws = 64 * 1000;
  std::array<int, kCells> counts{};
  for (uint64_t index = 0; index < kDraws; ++index) {
    const double u = UniformDraw(42, 0, index);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++counts[static_cast<size_t>(u * kCells)];
  }
  double chi_square = 0.0;
  for (int count : counts) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_square, 103.4);  // 63 degrees of freedom, p = 0.001
}

}  // namespace
}  // namespace cadre
