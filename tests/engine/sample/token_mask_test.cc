#include "engine/sample/token_mask.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace cadre {
namespace {

using ::testing::ElementsAre;

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(TokenMaskTest, HoldsTheIdsItWasMadeOf) {
  const std::vector<uint64_t> mask = MakeTokenMask(std::vector<int32_t>{0, 63, 64, 129}, 130);
  EXPECT_THAT(mask, ElementsAre(uint64_t{1} | uint64_t{1} << 63, uint64_t{1}, uint64_t{2}));
  for (int32_t id = 0; id < 130; ++id) EXPECT_EQ(HasToken(mask, id), id == 0 || id == 63 || id == 64 || id == 129);
}

TEST(TokenMaskTest, KeepOnlyKeepsTheMaskedTokensOfEverySizeOfRow) {
  std::mt19937 random(1);
  for (const size_t size : {1u, 63u, 64u, 65u, 127u, 128u, 200u}) {
    std::vector<int32_t> ids;
    for (size_t id = 0; id < size; ++id) {
      if (random() % 3 == 0) ids.push_back(static_cast<int32_t>(id));
    }
    const std::vector<uint64_t> mask = MakeTokenMask(ids, size);
    std::vector<float> row(size);
    for (float& logit : row) logit = static_cast<float>(random() % 100);
    const std::vector<float> before = row;
    KeepOnly(mask, row);
    for (size_t i = 0; i < size; ++i) {
      EXPECT_EQ(row[i], HasToken(mask, static_cast<int32_t>(i)) ? before[i] : -kInf) << i << " of " << size;
    }
  }
}

TEST(TokenMaskTest, ABrokenLogitIsNotHidden) {
  std::vector<float> row{1.0f, std::nanf(""), 2.0f};
  KeepOnly(MakeTokenMask(std::vector<int32_t>{0}, 3), row);
  EXPECT_TRUE(std::isnan(row[1]));
  Forbid(std::vector<int32_t>{1, 0}, row);
  EXPECT_TRUE(std::isnan(row[1]));
  EXPECT_EQ(row[0], -kInf);
}

TEST(TokenMaskTest, KnowsWhetherThereIsAnythingElse) {
  const std::vector<uint64_t> mask = MakeTokenMask(std::vector<int32_t>{5, 70}, 100);
  EXPECT_TRUE(HasOtherThan(mask, {}));
  EXPECT_TRUE(HasOtherThan(mask, std::vector<int32_t>{5}));
  EXPECT_TRUE(HasOtherThan(mask, std::vector<int32_t>{4, 70}));
  EXPECT_FALSE(HasOtherThan(mask, std::vector<int32_t>{5, 70}));
  EXPECT_FALSE(HasOtherThan(mask, std::vector<int32_t>{5, 6, 70}));
  EXPECT_FALSE(HasOtherThan(std::vector<uint64_t>{0, 0}, {}));
}

}  // namespace
}  // namespace cadre
