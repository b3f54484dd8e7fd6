#include "server/translate_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "server/errors.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelCard Card() {
  ModelCard card;
  card.family = "qwen3_moe";
  card.num_layers = 4;
  card.hidden_size = 64;
  card.moe_layers = {1, 3};
  card.limits.num_experts = 3;
  card.limits.top_k = 2;
  return card;
}

v1::ExpertProfile Profile() {
  std::vector<LayerCounters> counters(2);
  for (LayerCounters& layer : counters) {
    layer.tokens = 10;
    layer.assignments = 20;
    layer.chosen = {4, 9, 7};
    layer.processed = {4, 6, 7};  // limits do not change what the router wanted
    layer.rerouted = {2, 0, 1};
  }
  ProfileCounts counts;
  counts.shape = {.num_layers = 2, .num_experts = 3, .num_classes = 16};
  counts.tokens = 5;
  counts.assignments.assign(6, 2);
  counts.class_tokens.assign(16, 0);
  counts.class_tokens[6] = 5;  // latin
  counts.class_assignments.assign(16 * 6, 0);
  counts.class_assignments[6 * 6 + 4] = 9;
  counts.has_pairs = true;
  counts.co_activation = {{{0, 1, 4}, {1, 2, 1}}, {}};
  counts.transitions = {{{2, 0, 3}}};
  v1::ExpertProfile profile;
  FillProfile(counters, counts, Card(), &profile);
  return profile;
}

TEST(TranslateProfile, TellsAll) {
  const v1::ExpertProfile profile = Profile();
  EXPECT_EQ(profile.format_version(), 1);
  EXPECT_EQ(profile.model_fingerprint(), "qwen3_moe/4x64/2x3/2");
  EXPECT_EQ(profile.tokens(), 10);
  EXPECT_THAT(profile.layers(), ElementsAre(1, 3));
  EXPECT_THAT(profile.assignments(), ElementsAre(4, 9, 7, 4, 9, 7));
  EXPECT_THAT(profile.frequency(), ElementsAre(0.4, 0.9, 0.7, 0.4, 0.9, 0.7));
  EXPECT_EQ(profile.sampled_tokens(), 5);
  ASSERT_EQ(profile.co_activation_size(), 2);
  EXPECT_EQ(profile.co_activation(0).layer(), 1);
  EXPECT_THAT(profile.co_activation(0).first(), ElementsAre(0, 1));
  EXPECT_THAT(profile.co_activation(0).second(), ElementsAre(1, 2));
  EXPECT_THAT(profile.co_activation(0).count(), ElementsAre(4, 1));
  ASSERT_EQ(profile.transitions_size(), 1);
  EXPECT_THAT(profile.transitions(0).count(), ElementsAre(3));
  ASSERT_EQ(profile.token_classes_size(), 1);
  EXPECT_EQ(profile.token_classes(0).token_class(), "latin");
  EXPECT_THAT(profile.token_classes(0).assignments(), ElementsAre(0, 0, 0, 0, 9, 0));
}

TEST(TranslateProfile, ItsLoadsComeBack) {
  const auto loads = ReadProfile(Profile(), Card());
  ASSERT_TRUE(loads.ok()) << loads.status();
  EXPECT_THAT(*loads, ElementsAre(4, 9, 7, 4, 9, 7));
}

// Each with its field, its value and what would have been right.
TEST(TranslateProfile, RefusesOtherModelsByName) {
  const auto refused = [](const std::function<void(v1::ExpertProfile&)>& change) {
    v1::ExpertProfile profile = Profile();
    change(profile);
    const auto loads = ReadProfile(profile, Card());
    EXPECT_EQ(loads.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(loads.status().message());
  };
  EXPECT_THAT(refused([](auto& p) { p.set_format_version(2); }), HasSubstr("profile.format_version: 2 is not 1"));
  EXPECT_THAT(refused([](auto& p) { p.set_num_experts(64); }), HasSubstr("profile.num_experts: 64 is not 3"));
  EXPECT_THAT(refused([](auto& p) { p.set_top_k(8); }), HasSubstr("profile.top_k: 8 is not 2"));
  EXPECT_THAT(refused([](auto& p) { p.add_layers(5); }), HasSubstr("profile.layers: 3 layers is not 2"));
  EXPECT_THAT(refused([](auto& p) { p.set_layers(1, 2); }), HasSubstr("profile.layers[1]: 2 is not 3"));
  EXPECT_THAT(refused([](auto& p) { p.set_model_fingerprint("other"); }),
              HasSubstr("profile.model_fingerprint: \"other\" is not qwen3_moe/4x64/2x3/2"));
  EXPECT_THAT(refused([](auto& p) { p.add_assignments(1); }), HasSubstr("profile.assignments: 7 counts is not 6"));
  EXPECT_THAT(refused([](auto& p) { p.set_assignments(2, -1); }), HasSubstr("profile.assignments[2]: -1 is less"));
  EXPECT_THAT(refused([](auto& p) {
                p.set_assignments(0, int64_t{1} << 53);
                p.set_assignments(3, int64_t{1} << 53);
              }),
              HasSubstr("profile.assignments[1]: 9 is less than 0, or makes more than 2^53"));
  EXPECT_THAT(refused([](auto& p) {
                for (int i = 0; i < 6; ++i) p.set_assignments(i, 0);
              }),
              HasSubstr("profile.layers[0]: has 0 assignments, which is not in [1, 20]"));
  EXPECT_THAT(refused([](auto& p) {
                for (int i = 3; i < 6; ++i) p.set_assignments(i, 0);
              }),
              HasSubstr("profile.layers[1]: has 0 assignments"));
  EXPECT_THAT(refused([](auto& p) { p.set_assignments(5, 8); }),
              HasSubstr("profile.layers[1]: has 21 assignments, which is not in [1, 20]: 10 tokens choose at most 2"));
  for (const int64_t tokens : {int64_t{0}, int64_t{-1}, (int64_t{1} << 52) + 1}) {
    EXPECT_THAT(refused([tokens](auto& p) { p.set_tokens(tokens); }), HasSubstr("profile.tokens: "));
  }
  EXPECT_THAT(refused([](auto& p) { p.Clear(); }), HasSubstr("profile.format_version: 0 is not 1"));
}

}  // namespace
}  // namespace cadre
