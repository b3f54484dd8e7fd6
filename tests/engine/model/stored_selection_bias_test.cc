// The selection bias that a checkpoint stores: who takes it, who refuses it, and what it must be.
#include "engine/model/stored_selection_bias.h"

#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/temp_dir.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;
using Biases = std::vector<std::pair<std::string, std::vector<float>>>;  // by the module, "model.layers.0.mlp"

std::string BytesOf(const std::vector<float>& values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// A checkpoint with these tensors besides, opened with the scheme `block`; none where it is null.
absl::StatusOr<std::vector<float>> Open(CheckpointSpec spec, const nlohmann::json& block, const Biases& biases) {
  const TempDir dir;
  if (!block.is_null()) spec.extra_config["cadre"]["routing"] = block;
  std::vector<FileTensor> tensors = MakeTensors(spec);
  for (const auto& [module, values] : biases) {
    tensors.push_back({absl::StrCat(module, ".gate.e_score_correction_bias"),
                       "F32",
                       {static_cast<int64_t>(values.size())},
                       BytesOf(values)});
  }
  WriteFile(dir.path() / "config.json", MakeConfigJson(spec).dump());
  WriteTensors(dir.path(), tensors, /*num_shards=*/2);
  const auto config = LoadModelConfig(dir.path());
  EXPECT_TRUE(config.ok()) << config.status();
  const auto checkpoint = Checkpoint::Open(dir.path(), *config);
  if (!checkpoint.ok()) return checkpoint.status();
  return (*checkpoint)->selection_bias();
}

const std::vector<float> kFirst = {0, 0.5, -1, 2, 0, 0, 0.25, -3};
const std::vector<float> kSecond = {1, 2, 3, 4, 5, 6, 7, 8};
const Biases kBoth = {{"model.layers.0.mlp", kFirst}, {"model.layers.1.mlp", kSecond}};

TEST(StoredSelectionBiasTest, IsReadWhereTheSchemeTakesOne) {
  std::vector<float> both = kFirst;
  both.insert(both.end(), kSecond.begin(), kSecond.end());
  for (const nlohmann::json& block :
       {nlohmann::json{{"scheme", "sigmoid-bias"}},
        nlohmann::json{{"scheme", "group-limited"}, {"num_groups", 4}, {"kept_groups", 2}}}) {
    const auto bias = Open({}, block, kBoth);
    ASSERT_TRUE(bias.ok()) << bias.status();
    EXPECT_EQ(*bias, both);
    EXPECT_EQ(*Open({}, block, {}), std::vector<float>()) << "none is stored";
  }
}

// Whatever is wrong with what is stored: the setting is the way to do without it.
TEST(StoredSelectionBiasTest, IsNotLookedAtWhereTheSettingGivesAnother) {
  const nlohmann::json block = {{"scheme", "sigmoid-bias"}, {"selection_bias", {0, 0, 0, 0, 0, 0, 0, 1}}};
  for (const Biases& biases : {kBoth, Biases{{"model.layers.0.mlp", kFirst}},
                               Biases{{"model.layers.0.mlp", {1}}, {"model.layers.1.mlp", {NAN}}}}) {
    const auto bias = Open({}, block, biases);
    ASSERT_TRUE(bias.ok()) << bias.status();
    EXPECT_EQ(*bias, std::vector<float>());
  }
}

// Layers without experts have none; Mixtral's module has two names.
TEST(StoredSelectionBiasTest, IsFoundInEveryFamily) {
  const nlohmann::json block = {{"scheme", "sigmoid-bias"}};
  EXPECT_EQ(*Open({.family = ModelFamily::kQwen3Moe, .mlp_only_layers = {0}}, block, {{"model.layers.1.mlp", kSecond}}),
            kSecond);
  EXPECT_THAT(
      std::string(Open({.family = ModelFamily::kQwen3Moe, .mlp_only_layers = {0}}, block, kBoth).status().message()),
      HasSubstr("config.json has no place for it"));
  for (const char* module : {"block_sparse_moe", "mlp"}) {
    const Biases biases = {{absl::StrCat("model.layers.0.", module), kFirst},
                           {absl::StrCat("model.layers.1.", module), kSecond}};
    EXPECT_EQ(Open({.family = ModelFamily::kMixtral}, block, biases)->size(), 16u) << module;
    EXPECT_THAT(
        std::string(
            Open({.family = ModelFamily::kMixtral}, block, {biases.begin(), biases.end() - 1}).status().message()),
        HasSubstr(absl::StrCat("tensor \"model.layers.1.", module, ".gate.e_score_correction_bias\" is missing")));
    for (const ModelFamily family : {ModelFamily::kOlmoe, ModelFamily::kQwen3Moe}) {
      EXPECT_EQ(Open({.family = family}, block, biases).ok(), module == std::string("mlp"))
          << "no other family has two";
    }
  }
}

TEST(StoredSelectionBiasTest, OtherSchemesRefuseIt) {
  for (const auto& [block, scheme] : std::vector<std::pair<nlohmann::json, std::string>>{
           {nullptr, "family"}, {{{"scheme", "softmax-top-k"}}, "softmax-top-k"}, {{{"scheme", "hash"}}, "hash"}}) {
    const absl::Status status = Open({}, block, kBoth).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("mlp.gate.e_score_correction_bias\""));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("only the routing schemes sigmoid-bias and group-limited take a selection bias, and this "
                          "model's is " +
                          scheme));
  }
}

TEST(StoredSelectionBiasTest, WhatIsWrongIsNamed) {
  const auto expect = [](const Biases& biases, const std::string& message) {
    const absl::Status status = Open({}, {{"scheme", "sigmoid-bias"}}, biases).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  };
  expect({{"model.layers.0.mlp", kFirst}},
         "tensor \"model.layers.1.mlp.gate.e_score_correction_bias\" is missing, and other layers have one");
  expect({{"model.layers.1.mlp", kFirst}}, "tensor \"model.layers.0.mlp.gate.e_score_correction_bias\" is missing");
  expect({{"model.layers.0.mlp", kFirst}, {"model.layers.1.mlp", {1, 2}}}, "has shape [2], config.json asks for [8]");
  for (const float wrong : {std::nanf(""), INFINITY, -2e6f}) {
    std::vector<float> values = kSecond;
    values[6] = wrong;
    expect({{"model.layers.0.mlp", kFirst}, {"model.layers.1.mlp", values}}, "element 6 is ");
  }
  expect({{"model.layers.0.mlp", kFirst}, {"model.layers.1.mlp", kSecond}, {"model.layers.2.mlp", kSecond}},
         "config.json has no place for it");
}

}  // namespace
}  // namespace cadre
