#include "engine/model/element_conversion.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace cadre {
namespace {

template <typename To, typename From>
To ConvertOne(From x) {
  To out{};
  ConvertElements(DTypeOf<From>::value, reinterpret_cast<const std::byte*>(&x), DTypeOf<To>::value,
                  reinterpret_cast<std::byte*>(&out), 1);
  return out;
}

uint16_t ToHalfBits(float x) { return ConvertOne<Float16>(x).bits; }
uint16_t ToBrainBits(float x) { return ConvertOne<BFloat16>(x).bits; }

TEST(ElementConversionTest, EveryHalfSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const Float16 half{static_cast<uint16_t>(bits)};
    const float wide = ConvertOne<float>(half);
    const uint16_t back = ToHalfBits(wide);
    if (std::isnan(wide)) {
      EXPECT_EQ(back & 0x7FFF, 0x7E00) << bits;
    } else {
      EXPECT_EQ(back, bits);
    }
  }
}

TEST(ElementConversionTest, EveryBrainFloatSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float wide = ConvertOne<float>(BFloat16{static_cast<uint16_t>(bits)});
    EXPECT_EQ(std::bit_cast<uint32_t>(wide), bits << 16);
    if (std::isnan(wide)) continue;
    EXPECT_EQ(ToBrainBits(wide), bits);
  }
}

TEST(ElementConversionTest, RoundsToNearestTiesToEven) {
  EXPECT_EQ(ToHalfBits(1.0f + 0x1p-11f), 0x3C00);  // half way between 1 and the next: even is 1
  EXPECT_EQ(ToHalfBits(1.0f + 0x1p-11f + 0x1p-20f), 0x3C01);
  EXPECT_EQ(ToHalfBits(1.0f + 3 * 0x1p-11f), 0x3C02);
  EXPECT_EQ(ToBrainBits(1.0f + 0x1p-8f), 0x3F80);
  EXPECT_EQ(ToBrainBits(1.0f + 0x1p-8f + 0x1p-20f), 0x3F81);
  EXPECT_EQ(ToBrainBits(1.0f + 3 * 0x1p-8f), 0x3F82);
}

TEST(ElementConversionTest, HalfHasAnEnd) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(ToHalfBits(65504.0f), 0x7BFF);
  EXPECT_EQ(ToHalfBits(65519.0f), 0x7BFF);
  EXPECT_EQ(ToHalfBits(65520.0f), 0x7C00);
  EXPECT_EQ(ToHalfBits(-1e9f), 0xFC00);
  EXPECT_EQ(ToHalfBits(kInfinity), 0x7C00);
  EXPECT_EQ(ToHalfBits(0x1p-24f), 0x0001);
  EXPECT_EQ(ToHalfBits(0x1p-25f), 0x0000);  // a tie, to even
  EXPECT_EQ(ToHalfBits(0x1.8p-25f), 0x0001);
  EXPECT_EQ(ToHalfBits(-0x1p-15f), 0x8200);
  EXPECT_EQ(ToHalfBits(0x1.ff8p-15f), 0x03FF);  // the largest subnormal
  EXPECT_EQ(ToHalfBits(0x1.ffcp-15f), 0x0400);  // a tie, to the smallest normal
  EXPECT_EQ(ToHalfBits(-0.0f), 0x8000);
}

TEST(ElementConversionTest, DoublesBecomeFloats) {
  EXPECT_EQ(ConvertOne<float>(1.0 / 3.0), 1.0f / 3.0f);
  EXPECT_TRUE(std::isinf(ConvertOne<float>(1e300)));
  EXPECT_TRUE(std::isnan(ConvertOne<float>(std::nan(""))));
  EXPECT_EQ(ConvertOne<BFloat16>(1.0).bits, 0x3F80);
}

TEST(ElementConversionTest, ConvertsRunsOfAnyLength) {
  for (size_t count = 0; count < 70; ++count) {
    std::vector<float> in(count);
    for (size_t i = 0; i < count; ++i) in[i] = static_cast<float>(i) - 20.5f;
    std::vector<Float16> out(count + 1, Float16{0x1234});
    ConvertElements(DType::kF32, reinterpret_cast<const std::byte*>(in.data()), DType::kF16,
                    reinterpret_cast<std::byte*>(out.data()), count);
    for (size_t i = 0; i < count; ++i) EXPECT_EQ(ToFloat(out[i]), in[i]);
    EXPECT_EQ(out[count].bits, 0x1234);
  }
}

}  // namespace
}  // namespace cadre
