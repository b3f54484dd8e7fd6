// Rotary frequencies against numbers printed by transformers 5 (modeling_rope_utils.py, float32).
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/model_config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/checkpoint_writer.h"

namespace cadre {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json ConfigWith(int64_t head_dim, int64_t max_positions, const json& rope) {
  CheckpointSpec spec{.family = ModelFamily::kQwen3Moe};
  spec.head_dim = head_dim;
  spec.max_position_embeddings = max_positions;
  json config = MakeConfigJson(spec);
  config.erase("rope_theta");
  config.update(rope);
  return config;
}

struct RopeCase {
  std::string name;
  int64_t head_dim;
  int64_t max_positions;
  std::string rope;  // keys of config.json
  float amplitude;
  std::vector<float> frequencies;
};

class RopeConfigTest : public testing::TestWithParam<RopeCase> {};

TEST_P(RopeConfigTest, AgreesWithTransformers) {
  const RopeCase& param = GetParam();
  const json config = ConfigWith(param.head_dim, param.max_positions, json::parse(param.rope));
  const absl::StatusOr<ModelConfig> parsed = ParseModelConfig(config.dump());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_FLOAT_EQ(parsed->rope.amplitude, param.amplitude);
  ASSERT_EQ(parsed->rope.inverse_frequencies.size(), param.frequencies.size());
  for (size_t i = 0; i < param.frequencies.size(); ++i) {
    // EXPECT_FLOAT_EQ allows 4 units in the last place: libraries differ in the last bit of a power.
    EXPECT_FLOAT_EQ(parsed->rope.inverse_frequencies[i], param.frequencies[i]) << i;
  }
}

const std::vector<float> kDefault = {1.0f,           0.316227764f,   0.100000001f,   0.0316227786f,
                                     0.00999999978f, 0.00316227786f, 0.00100000005f, 0.000316227786f};
const std::vector<float> kLinear = {0.333333343f,   0.105409257f,   0.0333333351f,   0.0105409259f,
                                    0.00333333318f, 0.00105409266f, 0.000333333359f, 0.000105409265f};
const std::vector<float> kYarn = {
    1.0f,           0.133370951f, 0.0158113893f, 0.00140585331f, 0.000250000012f, 4.44569851e-05f, 7.90569356e-06f,
    1.40585337e-06f};

INSTANTIATE_TEST_SUITE_P(
    Variants, RopeConfigTest,
    testing::ValuesIn(std::vector<RopeCase>{
        {"theta", 16, 4096, R"({"rope_theta": 10000})", 1.0f, kDefault},
        {"nothing", 16, 4096, R"({})", 1.0f, kDefault},
        {"nulls", 16, 4096, R"({"rope_theta": 10000.0, "rope_scaling": null, "rope_parameters": null})", 1.0f,
         kDefault},
        {"parameters", 16, 4096, R"({"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}})", 1.0f,
         kDefault},
        {"nested_by_layer_type", 16, 4096,
         R"({"rope_parameters": {"full_attention": {"rope_theta": 10000.0, "rope_type": "default"}}})", 1.0f, kDefault},
        {"inner_theta_wins", 16, 4096, R"({"rope_theta": 5.0, "rope_parameters": {"rope_theta": 10000.0}})", 1.0f,
         kDefault},
        {"odd_width",
         24,
         4096,
         R"({"rope_theta": 1000000.0})",
         1.0f,
         {1.0f, 0.316227764f, 0.099999994f, 0.0316227786f, 0.00999999885f, 0.0031622781f, 0.00100000005f,
          0.000316227844f, 9.99999684e-05f, 3.16227743e-05f, 1.00000034e-05f, 3.16227693e-06f}},
        {"odd_theta",
         16,
         4096,
         R"({"rope_theta": 1234567.89})",
         1.0f,
         {1.0f, 0.173205078f, 0.0300000012f, 0.00519615225f, 0.000900000043f, 0.000155884569f, 2.70000019e-05f,
          4.67653763e-06f}},
        {"linear", 16, 4096, R"({"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 3}})", 1.0f,
         kLinear},
        {"linear_parameters", 16, 4096,
         R"({"rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 3.0}})", 1.0f, kLinear},
        {"llama3",
         16,
         4096,
         R"({"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
             "high_freq_factor": 4.0, "original_max_position_embeddings": 1024}})",
         1.0f,
         {1.0f, 0.193922758f, 0.0376060307f, 0.00131256948f, 0.000176776681f, 3.42810235e-05f, 6.64786967e-06f,
          1.28917316e-06f}},
        {"yarn", 16, 4096,
         R"({"rope_theta": 1e6, "rope_scaling": {"rope_type": "yarn", "factor": 4.0,
             "original_max_position_embeddings": 1024}})",
         1.13862944f, kYarn},
        {"yarn_old_spelling", 16, 4096,
         R"({"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0,
             "original_max_position_embeddings": 1024, "beta_fast": null, "beta_slow": 1}})",
         1.13862944f, kYarn},
        {"yarn_mscale",
         32,
         163840,
         R"({"rope_theta": 10000, "rope_scaling": {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0,
             "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1, "mscale_all_dim": 0.707}})",
         1.0857264f,
         {1.0f, 0.562341332f, 0.316227764f, 0.177827939f, 0.100000001f, 0.0562341288f, 0.0272181761f, 0.0128290169f,
          0.00582142826f, 0.00249036867f, 0.000959977158f, 0.000292145909f, 2.49999994e-05f, 1.40585325e-05f,
          7.90569447e-06f, 4.44569832e-06f}},
        {"yarn_without_truncation",
         16,
         131072,
         R"({"rope_parameters": {"rope_theta": 150000.0, "rope_type": "yarn", "factor": 32.0, "truncate": false,
             "original_max_position_embeddings": 4096, "beta_fast": 32.0, "beta_slow": 1.0}})",
         1.34657359f,
         {1.0f, 0.225418001f, 0.0508132726f, 0.00679495931f, 0.000456483918f, 1.8188337e-05f, 4.09997847e-06f,
          9.24208962e-07f}},
        {"yarn_attention_factor",
         16,
         4096,
         R"({"rope_theta": 1e4, "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "attention_factor": 0.75,
             "original_max_position_embeddings": 2048}})",
         0.75f,
         {1.0f, 0.316227764f, 0.100000001f, 0.0276699308f, 0.00749999983f, 0.00197642366f, 0.000500000024f,
          0.000158113893f}},
        {"yarn_factor_from_lengths",
         16,
         4096,
         R"({"rope_theta": 1e4, "rope_scaling": {"rope_type": "yarn", "factor": null,
             "original_max_position_embeddings": 1024}})",
         1.13862944f,
         {1.0f, 0.316227764f, 0.0812500045f, 0.0197642371f, 0.00437500002f, 0.000790569466f, 0.000250000012f,
          7.90569466e-05f}},
        {"yarn_original_length_absent",
         16,
         4096,
         R"({"rope_theta": 1e4, "rope_scaling": {"rope_type": "yarn", "factor": 8.0}})",
         1.20794415f,
         {1.0f, 0.316227764f, 0.100000001f, 0.0247052945f, 0.00562499976f, 0.00108703296f, 0.000125000006f,
          3.95284733e-05f}},
    }),
    [](const testing::TestParamInfo<RopeCase>& rope_case) { return rope_case.param.name; });

TEST(RopeConfigPositionsTest, YarnReachesItsFactorTimesTheOriginalLength) {
  const auto scaled_positions = [](const std::string& rope) {
    return ParseModelConfig(ConfigWith(16, 4096, json::parse(rope)).dump())->rope.scaled_positions;
  };
  EXPECT_EQ(scaled_positions(R"({"rope_scaling": {"type": "yarn", "factor": 4.0,
                                 "original_max_position_embeddings": 4096}})"),
            16384);
  EXPECT_EQ(scaled_positions(R"({"rope_scaling": {"type": "yarn", "factor": 2.5}})"), 10240);
  EXPECT_EQ(scaled_positions(R"({"rope_scaling": {"type": "yarn", "factor": 1e6}})"), kMaxPositionEmbeddings);
  EXPECT_EQ(scaled_positions(R"({"rope_scaling": {"type": "linear", "factor": 4.0}})"), 0);
  EXPECT_EQ(scaled_positions("{}"), 0);
}

TEST(RopeConfigDefaultsTest, MixtralHasALargerTheta) {
  json config = MakeConfigJson({.family = ModelFamily::kMixtral});
  config.erase("rope_theta");
  const absl::StatusOr<ModelConfig> parsed = ParseModelConfig(config.dump());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_FLOAT_EQ(parsed->rope.inverse_frequencies[1], 0.0316227786f);  // 1e6^(-2/8)
}

struct BadRope {
  std::string rope;
  absl::StatusCode code;
  std::string message;
};

TEST(RopeConfigErrorsTest, NameTheFieldAndTheValue) {
  const absl::StatusCode invalid = absl::StatusCode::kInvalidArgument;
  const absl::StatusCode unimplemented = absl::StatusCode::kUnimplemented;
  const std::vector<BadRope> cases = {
      {R"({"rope_theta": 0})", invalid, "rope_theta is 0, must be a number from 1.001 to 1e+15"},
      {R"({"rope_theta": 1.0})", invalid, "rope_theta is 1.0"},
      {R"({"rope_theta": -10000.0})", invalid, "rope_theta is -10000.0"},
      {R"({"rope_theta": 1e30})", invalid, "rope_theta is 1e+30"},
      {R"({"rope_theta": "10000"})", invalid, "rope_theta is \"10000\""},
      {R"({"rope_parameters": {"rope_theta": 0.0}})", invalid, "rope_parameters: rope_theta is 0.0"},
      {R"({"rope_scaling": 7})", invalid, "rope_scaling is 7, must be an object"},
      {R"({"rope_scaling": "yarn"})", invalid, "rope_scaling is \"yarn\", must be an object"},
      {R"({"rope_scaling": {"type": 7}})", invalid, "type is 7, must be a string"},
      {R"({"rope_scaling": {"type": "linear"}})", invalid, "rope_scaling: factor is missing"},
      {R"({"rope_scaling": {"type": "linear", "factor": 0.0}})", invalid, "factor is 0.0"},
      {R"({"rope_scaling": {"type": "linear", "factor": -2.0}})", invalid, "factor is -2.0"},
      {R"({"rope_scaling": {"type": "linear", "factor": [2]}})", invalid, "factor is [2]"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 1e9}})", invalid, "factor is 1000000000.0"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 2, "original_max_position_embeddings": 0}})", invalid,
       "original_max_position_embeddings is 0"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 2, "attention_factor": 0.0}})", invalid, "attention_factor is 0"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": -1}})", invalid, "beta_fast is -1"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 2, "truncate": 1}})", invalid, "truncate is 1"},
      {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}})", invalid,
       "high_freq_factor is missing"},
      {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4, "high_freq_factor": 4}})",
       invalid, "high_freq_factor is 4, must be above low_freq_factor 4"},
      {R"({"rope_scaling": {"type": "dynamic", "factor": 2.0}})", unimplemented,
       "rope_type \"dynamic\" is not supported"},
      {R"({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}})", unimplemented, "\"longrope\""},
      {R"({"rope_parameters": {"rope_type": "proportional"}})", unimplemented, "\"proportional\""},
      {R"({"rope_scaling": {"rope_type": "yarn\n"}})", unimplemented, "\"yarn\\n\""},
      {R"({"partial_rotary_factor": 0.5})", unimplemented, "partial_rotary_factor other than 1"},
      {R"({"rope_parameters": {"partial_rotary_factor": 0.25}})", unimplemented, "partial_rotary_factor"},
  };
  for (const BadRope& bad : cases) {
    const absl::Status status = ParseModelConfig(ConfigWith(16, 4096, json::parse(bad.rope)).dump()).status();
    EXPECT_EQ(status.code(), bad.code) << bad.rope << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message)) << bad.rope;
    EXPECT_THAT(std::string(status.message()), HasSubstr("config.json: ")) << bad.rope;
  }
}

}  // namespace
}  // namespace cadre
