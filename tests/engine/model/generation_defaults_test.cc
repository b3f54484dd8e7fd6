#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/model_config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_dir.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

GenerationDefaults MustParse(const std::string& generation, const std::string& config = "{}") {
  const absl::StatusOr<GenerationDefaults> defaults = ParseGenerationDefaults(generation, config);
  EXPECT_TRUE(defaults.ok()) << defaults.status();
  return defaults.ok() ? *defaults : GenerationDefaults();
}

TEST(GenerationDefaultsTest, ReadsAPublishedFile) {
  const GenerationDefaults defaults = MustParse(R"({
    "bos_token_id": 151643, "do_sample": true, "eos_token_id": [151645, 151643], "pad_token_id": 151643,
    "repetition_penalty": 1.05, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "transformers_version": "4.51.0"})");
  EXPECT_THAT(defaults.eos_token_ids, ElementsAre(151645, 151643));
  EXPECT_FLOAT_EQ(defaults.temperature, 0.6f);
  EXPECT_EQ(defaults.top_k, 20);
  EXPECT_FLOAT_EQ(defaults.top_p, 0.95f);
  EXPECT_FLOAT_EQ(defaults.min_p, 0.0f);
  EXPECT_FALSE(defaults.max_new_tokens.has_value());
}

TEST(GenerationDefaultsTest, WithoutAFileNothingIsCutOff) {
  const GenerationDefaults defaults = MustParse("", R"({"eos_token_id": 2})");
  EXPECT_THAT(defaults.eos_token_ids, ElementsAre(2));
  EXPECT_FLOAT_EQ(defaults.temperature, 1.0f);
  EXPECT_EQ(defaults.top_k, 0);
  EXPECT_FLOAT_EQ(defaults.top_p, 1.0f);
}

TEST(GenerationDefaultsTest, EndTokensComeFromTheFirstFileThatHasAny) {
  EXPECT_THAT(MustParse(R"({"eos_token_id": 7})", R"({"eos_token_id": 2})").eos_token_ids, ElementsAre(7));
  EXPECT_THAT(MustParse(R"({"eos_token_id": null})", R"({"eos_token_id": [2, 3]})").eos_token_ids, ElementsAre(2, 3));
  EXPECT_THAT(MustParse(R"({"eos_token_id": []})", R"({"eos_token_id": 2})").eos_token_ids, ElementsAre(2));
  EXPECT_THAT(MustParse(R"({"eos_token_id": [5, 5, 6]})").eos_token_ids, ElementsAre(5, 6));
  EXPECT_THAT(MustParse("{}", R"({"eos_token_id": null})").eos_token_ids, IsEmpty());
}

TEST(GenerationDefaultsTest, GreedyOnlyWhenTheFileSaysSo) {
  EXPECT_EQ(MustParse(R"({"do_sample": false})").temperature, 0.0f);
  EXPECT_EQ(MustParse(R"({"do_sample": false, "temperature": 0.7})").temperature, 0.0f);
  EXPECT_FLOAT_EQ(MustParse(R"({"temperature": 0.7})").temperature, 0.7f);
  EXPECT_EQ(MustParse(R"({"do_sample": true})").temperature, 1.0f);
  EXPECT_EQ(MustParse(R"({"do_sample": null})").temperature, 1.0f);
}

TEST(GenerationDefaultsTest, ReadsTheOtherFields) {
  const GenerationDefaults defaults = MustParse(R"({"top_k": -1, "min_p": 0.05, "max_new_tokens": 300, "top_p": 1})");
  EXPECT_EQ(defaults.top_k, 0);
  EXPECT_FLOAT_EQ(defaults.min_p, 0.05f);
  EXPECT_EQ(defaults.max_new_tokens, 300);
}

TEST(GenerationDefaultsTest, BadValuesAreNamed) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"temperature": -1})", "temperature is -1"},
      {R"({"temperature": "hot"})", "temperature is \"hot\""},
      {R"({"temperature": 1e9})", "temperature is 1000000000.0"},
      {R"({"top_k": -2})", "top_k is -2"},
      {R"({"top_k": 1.5})", "top_k is 1.5"},
      {R"({"top_k": 4294967296})", "top_k is 4294967296"},
      {R"({"top_p": 0})", "top_p is 0"},
      {R"({"top_p": 1.5})", "top_p is 1.5"},
      {R"({"min_p": -0.1})", "min_p is -0.1"},
      {R"({"max_new_tokens": 0})", "max_new_tokens is 0"},
      {R"({"do_sample": "false"})", "do_sample is \"false\""},
      {R"({"eos_token_id": -1})", "eos_token_id is -1"},
      {R"({"eos_token_id": [1, -1]})", "eos_token_id is -1"},
      {R"({"eos_token_id": "2"})", "eos_token_id is \"2\""},
      {R"({"eos_token_id": 2.5})", "eos_token_id is 2.5"},
      {R"({"eos_token_id": 2147483648})", "eos_token_id is 2147483648"},
      {R"([])", "must be a JSON object"},
      {R"({"top_k": 1)", "invalid JSON"},
  };
  for (const auto& [text, message] : cases) {
    const absl::Status status = ParseGenerationDefaults(text, "{}").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("generation_config.json: ")) << text;
  }
  EXPECT_THAT(std::string(ParseGenerationDefaults("", R"({"eos_token_id": -3})").status().message()),
              HasSubstr("config.json: eos_token_id is -3"));
  std::string many = "[0";
  for (int i = 1; i < 2000; ++i) many += ",1";
  EXPECT_THAT(std::string(ParseGenerationDefaults("{\"eos_token_id\":" + many + "]}", "{}").status().message()),
              HasSubstr("a list of at most 1024"));
}

TEST(LoadGenerationDefaultsTest, TheFileIsOptionalTheConfigIsNot) {
  const TempDir dir;
  EXPECT_EQ(LoadGenerationDefaults(dir.path()).status().code(), absl::StatusCode::kNotFound);
  WriteFile(dir.path() / "config.json", R"({"eos_token_id": 9})");
  EXPECT_THAT(LoadGenerationDefaults(dir.path())->eos_token_ids, ElementsAre(9));
  WriteFile(dir.path() / "generation_config.json", R"({"eos_token_id": 10})");
  EXPECT_THAT(LoadGenerationDefaults(dir.path())->eos_token_ids, ElementsAre(10));
  std::filesystem::remove(dir.path() / "generation_config.json");
  std::filesystem::create_directory(dir.path() / "generation_config.json");
  EXPECT_EQ(LoadGenerationDefaults(dir.path()).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace cadre
