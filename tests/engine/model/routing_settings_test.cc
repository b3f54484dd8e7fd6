// What is read of a routing scheme, and what is refused.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/routing_scheme.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/routed_config.h"

namespace cadre {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::string ErrorOf(const json& scheme, int64_t num_experts = 8) {
  const absl::Status status = ParseModelConfig(ConfigWith(num_experts, scheme).dump()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << scheme;
  return std::string(status.message());
}

TEST(RoutingSettingsTest, SayFieldValueAndLimit) {
  const std::vector<std::pair<json, std::string>> bad = {
      {{{"scheme", "softmax-top-k"}, {"top_k", 9}}, "top_k is 9, must be a whole number from 1 to 8"},
      {{{"scheme", "softmax-top-k"}, {"top_k", 0}}, "top_k is 0, must be a whole number from 1 to 8"},
      {{{"scheme", "softmax-top-k"}, {"normalize", "both"}}, "normalize is \"both\", must be \"before\" or \"after\""},
      {{{"scheme", "softmax-top-k"}, {"scaling_factor", 0}},
       "scaling_factor is 0, must be a number from 1e-06 to 1e+06"},
      {{{"scheme", "switch"}, {"top_k", 1}}, "\"top_k\" is no setting of the scheme switch (it has none)"},
      {{{"scheme", "dense"}, {"temperature", 1}}, "\"temperature\" is no setting of the scheme dense"},
      {{{"scheme", "sigmoid-bias"}, {"topk", 1}},
       "\"topk\" is no setting of the scheme sigmoid-bias (it has top_k, renormalize, scaling_factor, selection_bias)"},
      {{{"scheme", "sigmoid-bias"}, {"renormalize", 1}}, "renormalize is 1, must be true or false"},
      {{{"scheme", "sigmoid-bias"}, {"selection_bias", {1, 2}}},
       "selection_bias is [1,2], must be 8 numbers from -1e+06 to 1e+06"},
      {{{"scheme", "sigmoid-bias"}, {"selection_bias", {{1, 2}}}}, "must be a list for each of 2 MoE layers"},
      {{{"scheme", "sigmoid-bias"}, {"selection_bias", {{1, 2}, {1, 2}}}}, "must be 8 numbers"},
      {{{"scheme", "sigmoid-bias"}, {"selection_bias", {0, 0, 0, 0, 0, 0, 0, 1e7}}}, "must be 8 numbers"},
      {{{"scheme", "group-limited"}, {"kept_groups", 1}}, "num_groups is missing"},
      {{{"scheme", "group-limited"}, {"num_groups", 2}}, "kept_groups is missing"},
      {{{"scheme", "group-limited"}, {"num_groups", 3}, {"kept_groups", 1}},
       "num_groups is 3, must divide the number of experts, 8"},
      {{{"scheme", "group-limited"}, {"num_groups", 4}, {"kept_groups", 5}},
       "kept_groups is 5, must be a whole number from 1 to 4"},
      {{{"scheme", "group-limited"}, {"num_groups", 4}, {"kept_groups", 2}, {"top_k", 5}},
       "top_k is 5, must be a whole number from 1 to 4"},
      {{{"scheme", "group-limited"}, {"num_groups", 8}, {"kept_groups", 1}},
       "top_k is absent, and the model's own, 3, is above the limit of 1"},
      {{{"scheme", "noisy-top-k"}, {"noise", -1}}, "noise is -1, must be a number from 0 to 1000"},
      {{{"scheme", "hash"}, {"hash_seed", -1}}, "hash_seed is -1, must be a whole number from 0 to"},
      {{{"scheme", "hash"}, {"top_k", 9}}, "top_k is 9, must be a whole number from 1 to 8"},
      {{{"scheme", "top-p"}}, "p is missing"},
      {{{"scheme", "top-p"}, {"p", 0}}, "p is 0, must be a number from 1e-06 to 1"},
      {{{"scheme", "top-p"}, {"p", 1.5}}, "p is 1.5, must be a number from 1e-06 to 1"},
      {{{"scheme", "top-p"}, {"p", 0.5}, {"k_max", 9}}, "k_max is 9, must be a whole number from 1 to 8"},
      {{{"scheme", "top-p"}, {"p", 0.5}, {"k_min", 4}, {"k_max", 3}}, "k_min is 4, must be a whole number from 1 to 3"},
      {{{"scheme", "threshold"}}, "tau is missing"},
      {{{"scheme", "threshold"}, {"tau", 0}}, "tau is 0, must be a number from 1e-06 to 1"},
      {{{"scheme", "threshold"}, {"tau", 1.5}}, "tau is 1.5, must be a number from 1e-06 to 1"},
      {{{"scheme", "threshold"}, {"tau", 0.5}, {"p", 0.5}}, "\"p\" is no setting of the scheme threshold"},
      {{{"scheme", "threshold"}, {"tau", 0.5}, {"k_max", 9}}, "k_max is 9, must be a whole number from 1 to 8"},
      {{{"scheme", "threshold"}, {"tau", 0.5}, {"k_min", 4}, {"k_max", 3}},
       "k_min is 4, must be a whole number from 1"},
      {{{"scheme", "expert-choice"}, {"group", 0}}, "group is 0, must be a whole number from 1 to 4096"},
      {{{"scheme", "expert-choice"}, {"capacity_factor", 0}},
       "capacity_factor is 0, must be a number from 0.001 to 1000"},
      {{{"scheme", "expert-choice"}, {"k_max", 2}}, "k_max is 2, must be a whole number from 3 to 8"},
      {{{"scheme", "gshard"}, {"second", "random"}}, "\"second\" is no setting of the scheme gshard"},
      {{{"scheme", "round-robin"}}, "scheme is \"round-robin\", must be one of family, softmax-top-k,"},
      {{{"scheme", 7}}, "scheme is 7, must be a string"},
      {json::object(), "scheme is missing, must be one of family,"},
      {"switch", "must be a JSON object, is \"switch\""},
  };
  for (const auto& [scheme, message] : bad) {
    EXPECT_THAT(ErrorOf(scheme), HasSubstr(message)) << scheme;
    EXPECT_THAT(ErrorOf(scheme), ::testing::StartsWith("config.json: cadre.routing: ")) << scheme;
  }
}

TEST(RoutingSettingsTest, GshardWantsTwoExperts) {
  EXPECT_THAT(ErrorOf({{"scheme", "gshard"}}, /*num_experts=*/1),
              HasSubstr("gshard chooses 2 experts, and the model has 1"));
}

TEST(RoutingSettingsTest, UnknownKeysOfTheBlockAreNamed) {
  json config = ConfigWith(8, nullptr);
  config["cadre"] = {{"router", {{"scheme", "switch"}}}};
  EXPECT_EQ(ParseModelConfig(config.dump()).status().message(),
            "config.json: cadre: unknown key \"router\" (routing is known)");
  config["cadre"] = 3;
  EXPECT_EQ(ParseModelConfig(config.dump()).status().message(), "config.json: cadre: must be a JSON object, is 3");
}

TEST(RoutingSettingsTest, TheFamilysOwnWithoutABlock) {
  const auto config = ParseModelConfig(ConfigWith(8, nullptr).dump());
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->routing.scheme, RoutingScheme::kFamily);
  EXPECT_EQ(config->routing.origin, "");
  EXPECT_EQ(DescribeRouter(*config), "family: softmax over 8 experts, top 3, weights as they are");
}

TEST(RoutingOverrideTest, TakesThePlaceOfTheBlock) {
  const std::string text = ConfigWith(8, {{"scheme", "dense"}}).dump();
  EXPECT_EQ(ParseModelConfig(text)->router.top_k, 8);
  EXPECT_EQ(ParseModelConfig(text)->routing.origin, "config.json: cadre.routing");
  const auto config = ParseModelConfig(text, "softmax-top-k,top_k=2,normalize=before,scaling_factor=1.5");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->router.top_k, 2);
  EXPECT_EQ(config->router.score, RouterScore::kSoftmax);
  EXPECT_EQ(config->router.norm, WeightNorm::kNone);
  EXPECT_FLOAT_EQ(config->router.scaling_factor, 1.5f);
  EXPECT_EQ(config->routing.origin, "--routing-override");
  EXPECT_EQ(DescribeRouter(*config), "softmax-top-k: softmax over 8 experts, top 2, weights as they are, times 1.5");
  const auto family = ParseModelConfig(text, "family");
  ASSERT_TRUE(family.ok());
  EXPECT_EQ(family->router.top_k, kFamilyTopK);
  const auto as_json = ParseModelConfig(text, R"({"scheme": "sigmoid-bias", "selection_bias": [0,1,2,3,4,5,6,7]})");
  ASSERT_TRUE(as_json.ok()) << as_json.status();
  EXPECT_EQ(as_json->routing.selection_bias.size(), 16u);
  EXPECT_EQ(as_json->routing.selection_bias[15], 7.0f);
  const auto flags = ParseModelConfig(text, "sigmoid-bias,renormalize=false");
  ASSERT_TRUE(flags.ok());
  EXPECT_EQ(flags->router.norm, WeightNorm::kNone);
}

TEST(RoutingSettingsTest, EachLayerMayHaveABiasOfItsOwn) {
  const json first = {0, 1, 2, 3, 4, 5, 6, 7}, second = {9, 8, 7, 6, 5, 4, 3, 2};
  const auto config =
      ParseModelConfig(ConfigWith(8, {{"scheme", "sigmoid-bias"}, {"selection_bias", {first, second}}}).dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->routing.selection_bias, (std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7, 9, 8, 7, 6, 5, 4, 3, 2}));
}

// What the kernels are told, setting by setting.
TEST(RoutingSettingsTest, ReachTheRouter) {
  const auto router = [](const std::string& scheme) {
    const auto config = ParseModelConfig(ConfigWith(8, nullptr).dump(), scheme);
    EXPECT_TRUE(config.ok()) << config.status();
    return *config;
  };
  EXPECT_EQ(router("gshard").router.spill_over, 1);
  EXPECT_EQ(router("switch").router.spill_over, 0);
  EXPECT_EQ(router("sigmoid-bias").router.norm_epsilon, 1e-20f);
  EXPECT_EQ(router("noisy-top-k").routing.noise, 1.0f);
  EXPECT_EQ(router("hash,hash_seed=77").routing.hash_seed, 77u);
  const ModelConfig choice = router("expert-choice,k_max=5");
  EXPECT_EQ(choice.routing.expert_choice.group, 64);
  EXPECT_EQ(choice.routing.expert_choice.factor, 2.0);
  EXPECT_EQ(choice.router.top_k, 5);
  EXPECT_EQ(choice.router.max_choice, kFamilyTopK);
  EXPECT_EQ(FewestExperts(choice), 0);
  for (const char* scheme : {"top-p,p=0.5,k_min=2,k_max=5", "threshold,tau=0.5,k_min=2,k_max=5"}) {
    EXPECT_EQ(router(scheme).router.top_k, 5) << scheme;
    EXPECT_EQ(FewestExperts(router(scheme)), 2) << scheme;
  }
  EXPECT_EQ(FewestExperts(router("switch")), kAlwaysTopK);
}

TEST(RoutingSettingsTest, DescriptionsNameEverySetting) {
  for (const auto& [scheme, text] : std::vector<std::pair<std::string, std::string>>{
           {"group-limited,num_groups=4,kept_groups=2,score=sigmoid",
            "group-limited: sigmoid over 8 experts, best 2 of 4 groups by their best two, top 3, weights over their "
            "sum"},
           {"noisy-top-k,noise=0.5",
            "noisy-top-k: logits over 8 experts, noise of deviation 0.5, top 3, softmax of the "
            "chosen"},
           {"gshard", "gshard: softmax over 8 experts, top 2, weights over their sum, overflow to the next best 1"},
           {"hash", "hash: hash of the token over 8 experts, top 1, equal weights"},
           {"top-p,p=0.7",
            "top-p: softmax over 8 experts, as many as make 0.7, at least 1, top 8, weights as they are"},
           {"threshold,tau=0.2,k_min=2,scaling_factor=3",
            "threshold: softmax over 8 experts, all of at least 0.2, at least 2, top 8, weights as they are, times 3"},
           {"expert-choice,group=16,k_max=4",
            "expert-choice: softmax over 8 experts, experts choose from 16 tokens of a prompt, 2 times their share, at "
            "most 4 of a token, then top 3, weights as they are"}}) {
    const auto config = ParseModelConfig(ConfigWith(8, nullptr).dump(), scheme);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(DescribeRouter(*config), text);
  }
}

TEST(RoutingOverrideTest, IsOfABoundedSizeAndDepth) {
  const std::string text = ConfigWith(8, nullptr).dump();
  const absl::Status large = ParseModelConfig(text, "switch," + std::string(1 << 20, 'x')).status();
  EXPECT_EQ(large.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(large.message()), HasSubstr("it has 1048583 bytes, limit is 1048576"));
  const absl::Status deep =
      ParseModelConfig(text, R"({"scheme": )" + std::string(20, '[') + std::string(20, ']') + "}").status();
  EXPECT_EQ(deep.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(deep.message()), HasSubstr("--routing-override"));
  EXPECT_THAT(std::string(deep.message()), HasSubstr("8"));
}

TEST(RoutingOverrideTest, IsAtFaultItself) {
  const std::string text = ConfigWith(8, nullptr).dump();
  for (const auto& [override_text, message] : std::vector<std::pair<std::string, std::string>>{
           {"switch,top_k", "--routing-override: \"top_k\" is not a setting of the form key=value, each key once"},
           {"softmax-top-k,top_k=1,top_k=2", "\"top_k=2\" is not a setting"},
           {"switch,=3", "\"=3\" is not a setting"},
           {"switch,scheme=dense", "\"scheme=dense\" is not a setting"},
           {"softmax-top-k,top_k=many", "--routing-override: top_k is \"many\", must be a whole number from 1 to 8"},
           {"\xff\xfe", "--routing-override: scheme is "},
           {"{", "--routing-override"},
           {R"({"scheme": "switch", "scheme": "dense"})", "--routing-override"}}) {
    const absl::Status status = ParseModelConfig(text, override_text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange) << override_text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << override_text;
  }
}

}  // namespace
}  // namespace cadre
