#include "engine/experts/routing_profile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace cadre {
namespace {

constexpr ProfileOptions kAll = {.sample_steps = 1};

// Choices of `num_tokens` tokens, [layers, T, K]: different experts for a token in a layer, and some places lost.
std::vector<int32_t> RandomChoices(const ProfileShape& shape, size_t num_tokens, size_t top_k, std::mt19937& rng) {
  std::vector<int32_t> ids;
  std::vector<int32_t> experts(static_cast<size_t>(shape.num_experts));
  std::iota(experts.begin(), experts.end(), 0);
  for (size_t i = 0; i < static_cast<size_t>(shape.num_layers) * num_tokens; ++i) {
    std::shuffle(experts.begin(), experts.end(), rng);
    for (size_t k = 0; k < top_k; ++k) ids.push_back(rng() % 10 == 0 ? -1 : experts[k]);
  }
  return ids;
}

using PairCounts = std::map<std::tuple<size_t, int32_t, int32_t>, int64_t>;  // (layer, first, second)

PairCounts AllPairs(const std::vector<std::vector<ExpertPair>>& layers) {
  PairCounts counts;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    for (const ExpertPair& pair : layers[layer]) counts[{layer, pair.first, pair.second}] = pair.count;
  }
  return counts;
}

// Everything counted once more, by maps.
TEST(RoutingProfile, CountsAsAPlainCountDoes) {
  std::mt19937 rng(11);
  for (const auto& [layers, experts, top_k] : {std::tuple(1, 4, 2), std::tuple(3, 8, 2), std::tuple(4, 16, 5)}) {
    const ProfileShape shape = {.num_layers = layers, .num_experts = experts, .num_classes = 3};
    RoutingProfile profile(shape, kAll);
    ASSERT_TRUE(profile.counts_pairs());
    const auto cells = static_cast<size_t>(layers * experts);
    std::vector<int64_t> assignments(cells);
    std::vector<int64_t> class_assignments(3 * cells);
    std::vector<int64_t> class_tokens(3);
    PairCounts together;
    PairCounts following;
    int64_t tokens = 0;
    for (const size_t num_tokens : {1u, 7u, 40u}) {
      EXPECT_TRUE(profile.WantsStep());
      const std::vector<int32_t> ids = RandomChoices(shape, num_tokens, static_cast<size_t>(top_k), rng);
      std::vector<uint8_t> classes(num_tokens);
      for (uint8_t& token_class : classes) token_class = static_cast<uint8_t>(rng() % 3);
      profile.Observe(ids, classes);
      tokens += static_cast<int64_t>(num_tokens);
      const auto id = [&](size_t layer, size_t token, int k) {
        return ids[(layer * num_tokens + token) * static_cast<size_t>(top_k) + static_cast<size_t>(k)];
      };
      for (size_t token = 0; token < num_tokens; ++token) {
        ++class_tokens[classes[token]];
        for (size_t layer = 0; layer < static_cast<size_t>(layers); ++layer) {
          for (int k = 0; k < top_k; ++k) {
            const int32_t a = id(layer, token, k);
            if (a < 0) continue;
            const size_t cell = layer * static_cast<size_t>(experts) + static_cast<size_t>(a);
            ++assignments[cell];
            ++class_assignments[classes[token] * cells + cell];
            for (int j = 0; j < top_k; ++j) {
              if (const int32_t b = id(layer, token, j); b > a) ++together[{layer, a, b}];
              if (layer == 0) continue;
              if (const int32_t b = id(layer - 1, token, j); b >= 0) ++following[{layer - 1, b, a}];
            }
          }
        }
      }
    }
    const ProfileCounts counts = profile.Counts(1 << 20);
    EXPECT_EQ(counts.tokens, tokens);
    EXPECT_EQ(counts.assignments, assignments);
    EXPECT_EQ(counts.class_tokens, class_tokens);
    EXPECT_EQ(counts.class_assignments, class_assignments);
    EXPECT_EQ(AllPairs(counts.co_activation), together);
    EXPECT_EQ(AllPairs(counts.transitions), following);
  }
}

TEST(RoutingProfile, TellsTheMostFrequentPairsFirst) {
  RoutingProfile profile({.num_layers = 1, .num_experts = 4, .num_classes = 1}, kAll);
  const auto observe = [&](int32_t a, int32_t b, int times) {
    for (int i = 0; i < times; ++i) profile.Observe(std::vector<int32_t>{a, b}, std::vector<uint8_t>{0});
  };
  observe(3, 1, 5);
  observe(0, 2, 9);
  observe(2, 3, 5);
  observe(0, 1, 1);
  EXPECT_EQ(profile.Counts(3).co_activation, (std::vector<std::vector<ExpertPair>>{{{0, 2, 9}, {1, 3, 5}, {2, 3, 5}}}));
  EXPECT_TRUE(profile.Counts(0).co_activation[0].empty());
}

TEST(RoutingProfile, KeepsWithinItsMemory) {
  const ProfileShape shape = {.num_layers = 48, .num_experts = 512, .num_classes = 16};
  RoutingProfile without(shape, kAll);
  EXPECT_FALSE(without.counts_pairs());
  without.Observe(std::vector<int32_t>(48 * 2, 7), std::vector<uint8_t>{3});
  EXPECT_FALSE(without.Counts(10).has_pairs);
  EXPECT_EQ(without.Counts(10).assignments[7], 2);
  EXPECT_EQ(RoutingProfile::Bytes(shape, kAll), 48 * 512 * 17 * 8);
  const ProfileShape smaller = {.num_layers = 48, .num_experts = 128, .num_classes = 16};
  EXPECT_TRUE(RoutingProfile(smaller, kAll).counts_pairs());
  EXPECT_EQ(RoutingProfile::Bytes(smaller, kAll), 48 * 128 * 17 * 8 + 4 * (48 * 128 * 127 / 2 + 47 * 128 * 128));
}

TEST(RoutingProfile, LooksAtOneStepInSoMany) {
  RoutingProfile profile({.num_layers = 1, .num_experts = 2, .num_classes = 1}, {.sample_steps = 8});
  int wanted = 0;
  std::set<int> gaps;
  for (int step = 0, last = -1; step < 80'000; ++step) {
    if (!profile.WantsStep()) continue;
    ++wanted;
    gaps.insert(step - last);
    last = step;
  }
  EXPECT_NEAR(wanted, 10'000, 400);
  EXPECT_GT(gaps.size(), 20u);  // no rhythm
}

// All of 256 experts for each token: 98,816 additions for each, so that 21 tokens at most are looked at.
TEST(RoutingProfile, AStepTakesOnlySoMuchWork) {
  RoutingProfile profile({.num_layers = 1, .num_experts = 256, .num_classes = 1}, kAll);
  std::vector<int32_t> all(256 * 1000);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(i % 256);
  profile.Observe(all, std::vector<uint8_t>(1000, 0));
  const ProfileCounts counts = profile.Counts(1);
  EXPECT_EQ(counts.tokens, 21);  // every 48th
  EXPECT_EQ(counts.class_tokens[0], 21);
  EXPECT_EQ(counts.assignments, std::vector<int64_t>(256, 21));
  EXPECT_EQ(counts.co_activation[0], (std::vector<ExpertPair>{{0, 1, 21}}));
}

TEST(RoutingProfile, OffItTakesNothing) {
  RoutingProfile profile({.num_layers = 4, .num_experts = 8, .num_classes = 2}, {.sample_steps = 0});
  for (int step = 0; step < 100; ++step) EXPECT_FALSE(profile.WantsStep());
  EXPECT_EQ(profile.Counts(5).tokens, 0);
  EXPECT_EQ(RoutingProfile::Bytes({.num_layers = 4, .num_experts = 8}, {.sample_steps = 0}), 0);
}

// Under ThreadSanitizer this says that a reader and the writer need no lock.
TEST(RoutingProfile, MayBeReadWhileItCounts) {
  RoutingProfile profile({.num_layers = 2, .num_experts = 8, .num_classes = 1}, kAll);
  std::atomic<bool> is_over{false};
  std::thread reader([&] {
    int64_t before = 0;
    while (!is_over) {
      const int64_t tokens = profile.Counts(4).tokens;
      EXPECT_GE(tokens, before);
      before = tokens;
    }
  });
  std::mt19937 rng(1);
  for (int i = 0; i < 500; ++i) {
    profile.Observe(RandomChoices({.num_layers = 2, .num_experts = 8}, 4, 2, rng), std::vector<uint8_t>(4, 0));
  }
  is_over = true;
  reader.join();
  EXPECT_EQ(profile.Counts(4).tokens, 2000);
}

}  // namespace
}  // namespace cadre
