#include "engine/experts/eviction_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <tuple>
#include <vector>

namespace cadre {
namespace {

using Candidates = std::vector<ExpertId>;

// Two layers of four experts: 0 to 3 and 4 to 7.
std::unique_ptr<EvictionPolicy> Make(EvictionPolicyKind kind, int64_t half_life_steps = 256) {
  return CreateEvictionPolicy(kind, {.num_experts = 4, .num_layers = 2, .half_life_steps = half_life_steps});
}

TEST(EvictionPolicy, LruGoesByTheLastUse) {
  const auto policy = Make(EvictionPolicyKind::kLru);
  policy->OnUse(1, {0, 0});
  policy->OnUse(5, {0, 1});
  policy->OnUse(0, {1, 0});
  policy->OnUse(1, {2, 0});
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1, 5}, {2, 0}), 5);
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1}, {2, 0}), 0);
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1, 5, 7}, {2, 0}), 7) << "never used";
  policy->OnUse(0, {2, 0});
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1}, {2, 0}), 0) << "of equals the lowest id";
}

TEST(EvictionPolicy, LfuGoesByCountsThatHalve) {
  const auto policy = Make(EvictionPolicyKind::kLfu, 10);
  for (int64_t step = 0; step < 3; ++step) policy->OnUse(0, {step, 0});
  for (int64_t step = 3; step < 5; ++step) policy->OnUse(1, {step, 0});
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1}, {5, 0}), 1);
  for (int64_t step = 10; step < 12; ++step) policy->OnUse(2, {step, 0});  // a half-life has ended: 1.5, 1, 2
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 2}, {12, 0}), 0);
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1, 2}, {12, 0}), 1);
  policy->OnUse(1, {12, 0});  // 1.5, 2, 2
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1, 2}, {12, 0}), 0);
  EXPECT_EQ(policy->ChooseVictim(Candidates{1, 2}, {12, 0}), 2) << "of equals the last use";
}

TEST(EvictionPolicy, LfruGoesByCountAndAge) {
  const auto policy = Make(EvictionPolicyKind::kLfru);
  for (int64_t step = 0; step < 6; ++step) policy->OnUse(0, {step, 0});
  policy->OnUse(1, {6, 0});
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1}, {6, 0}), 1);   // 6 / 2, 1 / 1
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1}, {13, 0}), 1);  // 6 / 9, 1 / 8
  policy->OnUse(1, {23, 0});
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1}, {23, 0}), 0);  // 6 / 19, 2 / 1
}

TEST(EvictionPolicy, LeastStaleTakesThoseWhoseTurnWentBy) {
  const auto policy = Make(EvictionPolicyKind::kLeastStale);
  policy->OnUse(0, {0, 0});
  policy->OnUse(4, {0, 1});
  policy->OnUse(1, {1, 0});
  policy->OnUse(5, {1, 1});
  policy->OnUse(2, {2, 0});
  // Of layer 0, which has had its turn: 0 and 1 were not used in this step. 4 and 5 may be wanted in it.
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1, 2, 4, 5}, {2, 0}), 0);
  EXPECT_EQ(policy->ChooseVictim(Candidates{1, 2, 4, 5}, {2, 0}), 1);
  EXPECT_EQ(policy->ChooseVictim(Candidates{2, 4, 5}, {2, 0}), 4) << "missed the turn of step 1";
  EXPECT_EQ(policy->ChooseVictim(Candidates{2, 5}, {2, 0}), 2) << "its turn comes after that of 5";
  policy->OnUse(6, {2, 1});
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 4, 6}, {2, 1}), 4) << "as stale as 0, and its turn comes last";
}

TEST(EvictionPolicy, NextUseWeighsTurnsAgainstProbability) {
  const auto policy = Make(EvictionPolicyKind::kNextUse);
  // Two layers: 0 was needed in all eight steps, 1 in four of them, 4 in six.
  for (int64_t step = 0; step < 8; ++step) {
    policy->OnUse(0, {step, 0});
    if (step % 2 == 0) policy->OnUse(1, {step, 0});
    if (step < 6) policy->OnUse(4, {step, 1});
  }
  const LayerTime now{7, 0};
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1}, now), 1);  // in 2 turns, and in 2 + 2 (8 / 4 - 1)
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 4}, now), 0);  // 4 in 1 + 2 (8 / 6 - 1)
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1, 4}, now), 1);
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1, 2}, now), 2) << "was never used";
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 4}, {7, 1}), 4) << "its turn has just been";
}

// Four experts one after the other and three slots: what LRU puts out is always what comes next.
TEST(EvictionPolicy, WhatRepeatsIsKept) {
  for (const EvictionPolicyKind kind :
       {EvictionPolicyKind::kLru, EvictionPolicyKind::kLeastStale, EvictionPolicyKind::kNextUse}) {
    const auto policy = CreateEvictionPolicy(kind, {.num_experts = 1, .num_layers = 4});
    Candidates there;
    int hits = 0;
    for (int64_t turn = 0; turn < 400; ++turn) {
      const LayerTime now{turn / 4, static_cast<int32_t>(turn % 4)};
      const auto expert = static_cast<ExpertId>(now.layer);
      policy->OnUse(expert, now);
      if (std::ranges::count(there, expert) > 0) {
        ++hits;
        continue;
      }
      if (there.size() == 3) std::erase(there, policy->ChooseVictim(there, now));
      there.push_back(expert);
      std::ranges::sort(there);
    }
    EXPECT_EQ(hits > 200, kind != EvictionPolicyKind::kLru) << hits;
    EXPECT_EQ(hits == 0, kind == EvictionPolicyKind::kLru) << hits;
  }
}

class AnyPolicyTest : public ::testing::TestWithParam<EvictionPolicyKind> {};

TEST_P(AnyPolicyTest, WhoIsAwaitedGoesLast) {
  const auto policy = Make(GetParam());
  for (int64_t step = 0; step < 4; ++step) policy->OnUse(0, {step, 0});
  policy->OnPrefetch(6, {3, 0});
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 6}, {3, 0}), 0);
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 6}, {3, 1}), 6) << "its turn has come, and it was not used";
  policy->OnPrefetch(5, {3, 1});  // of the layer that is computed: for the next step
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 5}, {4, 0}), 0);
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 5}, {4, 1}), 5);
}

TEST_P(AnyPolicyTest, IsFoundByItsName) {
  EXPECT_EQ(FindEvictionPolicy(EvictionPolicyName(GetParam())), GetParam());
  EXPECT_EQ(FindEvictionPolicy("random"), std::nullopt);
}

// What the header says, from the whole history and in floating point.
struct History {
  std::vector<std::vector<LayerTime>> uses;  // by expert
  int64_t half_life = 1;
  int64_t num_layers = 1;
  int64_t num_experts = 1;

  double Count(size_t expert, int64_t step) const {
    double count = 0.0;
    for (const LayerTime& use : uses[expert]) count += std::exp2(use.step / half_life - step / half_life);
    return count;
  }

  int64_t TurnsUntil(int64_t layer, const LayerTime& now) const {
    int64_t until = 0;
    for (int64_t at = now.layer; until == 0 || at % num_layers != layer; ++at) ++until;
    return until;
  }

  // If it is used in each step with the same probability.
  double ExpectedTurns(size_t expert, int64_t layer, const LayerTime& now) const {
    const double count = Count(expert, now.step);
    double all = 0.0;
    for (int64_t step = 0; step <= now.step; ++step) all += std::exp2(step / half_life - now.step / half_life);
    return static_cast<double>(TurnsUntil(layer, now)) + static_cast<double>(num_layers) * (all - count) / count;
  }

  // The smallest one gives way.
  std::tuple<double, double, double> Rank(EvictionPolicyKind kind, size_t expert, const LayerTime& now) const {
    const bool was_used = !uses[expert].empty();
    const int64_t last_step = was_used ? uses[expert].back().step : -1;
    const double last_use = was_used ? static_cast<double>(last_step * num_layers + uses[expert].back().layer) : -1.0;
    const double age = static_cast<double>(now.step - last_step + 1);
    const int64_t layer = static_cast<int64_t>(expert) / num_experts;
    switch (kind) {
      case EvictionPolicyKind::kLru:
        return {last_use, 0, 0};
      case EvictionPolicyKind::kLfu:
        return {Count(expert, now.step), last_use, 0};
      case EvictionPolicyKind::kLfru:
        return {Count(expert, now.step) / age, last_use, 0};
      case EvictionPolicyKind::kNextUse:
        return {-ExpectedTurns(expert, layer, now), last_use, 0};
      case EvictionPolicyKind::kLeastStale:
        break;
    }
    int64_t missed = 0;  // turns of its layer, one after the other
    for (int64_t step = last_step + 1; step < now.step + (layer <= now.layer ? 1 : 0); ++step) ++missed;
    const int64_t until = TurnsUntil(layer, now);
    const bool is_passed = layer <= now.layer && last_step < now.step;
    return {is_passed ? 0.0 : 1.0, static_cast<double>(-missed), static_cast<double>(-until)};
  }
};

TEST_P(AnyPolicyTest, ChoosesAsItsDefinitionSays) {
  std::mt19937 random(5);
  constexpr int64_t kLayers = 3;
  constexpr int64_t kExperts = 6;
  History history{.uses = std::vector<std::vector<LayerTime>>(kLayers * kExperts),
                  .half_life = 7,
                  .num_layers = kLayers,
                  .num_experts = kExperts};
  const auto policy =
      CreateEvictionPolicy(GetParam(), {.num_experts = kExperts, .num_layers = kLayers, .half_life_steps = 7});
  for (int64_t step = 0; step < 120; ++step) {
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      const LayerTime now{step, layer};
      for (ExpertId e = 0; e < kExperts; ++e) {
        if (random() % static_cast<uint32_t>(2 + e) != 0) continue;
        const auto expert = static_cast<ExpertId>(layer * kExperts + e);
        policy->OnUse(expert, now);
        history.uses[static_cast<size_t>(expert)].push_back(now);
      }
      Candidates candidates;
      for (ExpertId expert = 0; expert < kLayers * kExperts; ++expert) {
        if (random() % 3 == 0) candidates.push_back(expert);
      }
      if (candidates.empty()) continue;
      const auto expected = *std::ranges::min_element(
          candidates, {}, [&](ExpertId expert) { return history.Rank(GetParam(), static_cast<size_t>(expert), now); });
      ASSERT_EQ(policy->ChooseVictim(candidates, now), expected) << "step " << step << ", layer " << layer;
    }
  }
}

TEST_P(AnyPolicyTest, SeveralVictimsAreThoseOfOneChoiceAfterTheOther) {
  std::mt19937 random(9);
  const auto policy = CreateEvictionPolicy(GetParam(), {.num_experts = 30, .num_layers = 3, .half_life_steps = 7});
  for (int64_t step = 0; step < 60; ++step) {
    const LayerTime now{step, static_cast<int32_t>(random() % 3)};
    Candidates candidates;
    for (ExpertId expert = 0; expert < 90; ++expert) {
      if (random() % 8 == 0) policy->OnUse(expert, now);
      if (random() % 16 == 0) policy->OnPrefetch(expert, now);
      if (random() % 2 == 0) candidates.push_back(expert);
    }
    Candidates victims(random() % (kMaxVictims + 1));
    const size_t num_victims = policy->ChooseVictims(candidates, now, victims);
    ASSERT_EQ(num_victims, std::min(victims.size(), candidates.size()));
    for (const ExpertId victim : victims) {
      ASSERT_EQ(victim, policy->ChooseVictim(candidates, now)) << "step " << step;
      std::erase(candidates, victim);
    }
  }
  Candidates two(2);
  EXPECT_EQ(policy->ChooseVictims(Candidates{7}, {60, 0}, two), 1U);
  EXPECT_EQ(two[0], 7);
}

TEST_P(AnyPolicyTest, LongTimesDoNotOverflow) {
  const auto policy =
      CreateEvictionPolicy(GetParam(), {.num_experts = 4, .num_layers = 2, .half_life_steps = kMaxHalfLifeSteps});
  constexpr int64_t kLate = int64_t{1} << 40;
  for (int64_t step = 0; step < 100; ++step) policy->OnUse(0, {step, 0});
  policy->OnUse(1, {kLate, 0});
  EXPECT_EQ(policy->ChooseVictim(Candidates{0, 1}, {kLate, 0}), 0);
}

TEST_P(AnyPolicyTest, WhatIsRequiredIsChecked) {
  const auto policy = Make(GetParam());
  EXPECT_DEATH(policy->ChooseVictim({}, {0, 0}), "candidates");
  EXPECT_DEATH(policy->ChooseVictim(Candidates{8}, {0, 0}), "expert");
  Candidates victims(kMaxVictims + 1);
  EXPECT_DEATH(policy->ChooseVictims(Candidates{1}, {0, 0}, victims), "victims");
  EXPECT_DEATH(policy->ChooseVictims({}, {0, 0}, std::span(victims).first(1)), "candidates");
  EXPECT_DEATH(policy->OnUse(-1, {0, 0}), "expert");
  EXPECT_DEATH(policy->OnUse(8, {0, 0}), "expert");
  EXPECT_DEATH(policy->OnPrefetch(8, {0, 0}), "expert");
  EXPECT_DEATH(policy->OnUse(0, {0, 2}), "layer");
  EXPECT_DEATH(policy->OnUse(0, {-1, 0}), "step");
  policy->OnUse(0, {1, 1});
  EXPECT_DEATH(policy->OnUse(0, {1, 0}), "turn");
  EXPECT_DEATH(CreateEvictionPolicy(GetParam(), {.num_experts = 0, .num_layers = 1}), "num_experts");
  EXPECT_DEATH(CreateEvictionPolicy(GetParam(), {.num_experts = 1, .num_layers = 0}), "num_layers");
  for (const int64_t wrong : {int64_t{0}, kMaxHalfLifeSteps + 1}) {
    EXPECT_DEATH(Make(GetParam(), wrong), "half_life");
  }
}

INSTANTIATE_TEST_SUITE_P(All, AnyPolicyTest, ::testing::ValuesIn(kEvictionPolicies), [](const auto& param_info) {
  std::string name(EvictionPolicyName(param_info.param));
  std::ranges::replace(name, '-', '_');
  return name;
});

}  // namespace
}  // namespace cadre
