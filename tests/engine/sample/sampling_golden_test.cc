// The whole chain against an implementation that shares nothing with ours: tests/golden/make_sampling.py.
#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "engine/sample/token_chooser.h"
#include "nlohmann/json.hpp"

namespace cadre {
namespace {

using Json = nlohmann::json;

Request RequestOf(const Json& golden) {
  const Json& options = golden["params"];
  Request request;
  request.prompt = golden["prompt"].get<std::vector<int32_t>>();
  SamplingParams& params = request.sampling;
  params.temperature = options["temperature"];
  params.top_k = options["top_k"];
  params.top_p = options["top_p"];
  params.min_p = options["min_p"];
  params.repetition_penalty = options["repetition_penalty"];
  params.frequency_penalty = options["frequency_penalty"];
  params.presence_penalty = options["presence_penalty"];
  for (const Json& entry : options["logit_bias"]) params.logit_bias.push_back({entry[0], entry[1]});
  params.allowed_token_ids = options["allowed_token_ids"].get<std::vector<int32_t>>();
  params.stop_token_ids = options["stop_token_ids"].get<std::vector<int32_t>>();
  params.min_tokens = options["min_tokens"];
  params.max_tokens = 100;
  params.ignore_eos = options["ignore_eos"];
  params.logprobs = true;
  params.top_logprobs = 5;
  return request;
}

// What masks, bias and penalties make of the row, bit for bit.
void ExpectEdited(const std::vector<float>& row, const Json& edited) {
  for (const Json& entry : edited) {
    const float expected = entry[1].is_null() ? -std::numeric_limits<float>::infinity() : entry[1].get<float>();
    EXPECT_EQ(row[entry[0].get<size_t>()], expected) << "token " << entry[0];
  }
}

ChosenToken Choose(const Json& golden, const Request& request) {
  std::vector<float> logits = golden["logits"].get<std::vector<float>>();
  const ChoiceRules rules(request, golden["eos"].get<std::vector<int32_t>>(), static_cast<int32_t>(logits.size()));
  TokenChooser chooser(&rules, request.prompt, golden["sequence"]);
  for (const int32_t token : golden["output"]) chooser.Accept(token);
  Sampler sampler;
  const absl::StatusOr<ChosenToken> chosen = chooser.Choose(logits, &sampler);
  EXPECT_TRUE(chosen.ok()) << chosen.status();
  ExpectEdited(logits, golden["edited"]);
  return chosen.ok() ? *chosen : ChosenToken();
}

void ExpectDescribed(const TokenLogprob& found, const Json& described) {
  EXPECT_NEAR(found.logprob, described["logprob"].get<float>(), 1e-4f);
  EXPECT_EQ(found.rank, described["rank"].get<int32_t>());
  ASSERT_EQ(found.alternatives.size(), described["top"].size());
  for (size_t i = 0; i < found.alternatives.size(); ++i) {
    EXPECT_EQ(found.alternatives[i].token_id, described["top"][i][0].get<int32_t>());
    EXPECT_NEAR(found.alternatives[i].logprob, described["top"][i][1].get<float>(), 1e-4f);
  }
}

TEST(SamplingGoldenTest, EveryDrawIsTheReferences) {
  std::ifstream file("tests/golden/sampling.jsonl");
  int num_cases = 0;
  std::set<int32_t> tokens;
  for (std::string line; std::getline(file, line); ++num_cases) {
    const Json golden = Json::parse(line);
    SCOPED_TRACE(num_cases + 1);
    Request request = RequestOf(golden);
    for (const Json& draw : golden["draws"]) {
      request.sampling.seed = draw[0];
      const ChosenToken chosen = Choose(golden, request);
      EXPECT_EQ(chosen.token_id, draw[1].get<int32_t>()) << "seed " << draw[0];
      tokens.insert(chosen.token_id);
      if (draw == golden["draws"][0]) ExpectDescribed(*chosen.logprob, golden["described"]);
    }
  }
  EXPECT_EQ(num_cases, 300);
  EXPECT_GT(tokens.size(), 60u);
}

}  // namespace
}  // namespace cadre
