// What it brings: a load of two groups of prompts with experts of their own, and a cache that holds those of one group.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/model/expert_layout.h"
#include "engine/model/routing_scheme.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/support/engine_harness.h"
#include "tests/support/random_model.h"
#include "tests/support/test_sequence.h"

namespace cadre {
namespace {

constexpr int32_t kVocabSize = 101;
constexpr int kRequestsOfAGroup = 32;

// Two layers of six experts, of which a hash of the token chooses one.
ModelConfig HashConfig() {
  ModelConfig config = SmallConfig(ModelFamily::kOlmoe);
  EXPECT_TRUE(ApplyRoutingScheme(*ParseRoutingOverride("hash,top_k=1", "test"), "test", &config).ok());
  return config;
}

std::unique_ptr<ModelRunner> MakeRunner(const ModelConfig& config, int64_t num_slots, Device* device) {
  RunnerOptions options;
  options.max_model_len = 128;
  options.max_num_seqs = 1;
  options.max_num_batched_tokens = 128;
  options.kv_block_size = 4;
  options.kv_cache_bytes = int64_t{1} << 20;
  if (num_slots > 0) options.expert_cache_bytes = num_slots * ExpertLayout(config, DType::kF32).size_bytes();
  return MakeRandomRunner(config, DType::kF32, 5, options, device);
}

// Tokens that need the first three experts of each layer, and those that need the last three of each.
std::array<std::vector<int32_t>, 2> FindGroups(const ModelConfig& config, Device* device) {
  std::vector<int32_t> all(kVocabSize);
  std::iota(all.begin(), all.end(), 0);
  const std::vector<int32_t> experts = RunAlone(*MakeRunner(config, 0, device), all).expert_ids;
  std::array<std::vector<int32_t>, 2> groups;
  for (size_t t = 0; t < all.size(); ++t) {
    const int32_t first = experts[t] / 3;
    if (first == experts[all.size() + t] / 3) groups.at(static_cast<size_t>(first)).push_back(all[t]);
  }
  return groups;
}

struct Outcome {
  SlotCounters slots;
  int64_t preferred = 0;
  std::vector<std::vector<int32_t>> answers;
};

Outcome Serve(bool is_aware) {
  const std::unique_ptr<Device> device = CreateCpuDevice({.num_threads = 1}).value();
  const ModelConfig config = HashConfig();
  const auto groups = FindGroups(config, device.get());
  EXPECT_GE(groups[0].size(), 12u);
  EXPECT_GE(groups[1].size(), 12u);
  EngineOptions options = {.max_num_seqs = 1, .max_num_batched_tokens = 128};
  options.prefix_cache = PrefixCacheScope::kOff;
  options.routing_sample_steps = 1;
  options.expert_aware_scheduling = is_aware;
  Engine engine(options, MakeRunner(config, 6, device.get()), nullptr, std::make_shared<FakeClock>(), nullptr);
  std::vector<Ticket> tickets;
  const auto submit = [&](const std::vector<int32_t>& prompt) {
    tickets.push_back({.prompt = prompt});
    Request request;
    request.prompt = prompt;
    request.sampling.max_tokens = 1;
    request.sampling.temperature = 0.0f;
    request.arrival = absl::UnixEpoch();
    request.wants_text = false;
    request.sink = tickets.back().sink;
    request.cancel = tickets.back().cancel;
    EXPECT_TRUE(engine.Submit(std::move(request)).ok());
  };
  const auto run = [&engine] {
    while (engine.Step()) EXPECT_TRUE(engine.Audit().ok()) << engine.Audit();
  };
  for (const std::vector<int32_t>& group : groups) submit(group);  // all tokens are seen once
  run();
  const SlotCounters before = engine.Snapshot().expert_cache->slots;
  for (size_t i = 0; i < 2 * kRequestsOfAGroup; ++i) {
    std::vector<int32_t> prompt;
    const std::vector<int32_t>& group = groups.at(i % 2);
    for (size_t t = 0; t < 12; ++t) prompt.push_back(group[(i + t) % group.size()]);
    submit(prompt);
  }
  run();
  Outcome outcome;
  const EngineSnapshot snapshot = engine.Snapshot();
  outcome.slots.hits = snapshot.expert_cache->slots.hits - before.hits;
  outcome.slots.misses = snapshot.expert_cache->slots.misses - before.misses;
  outcome.preferred = snapshot.preferred_sequences;
  for (const Ticket& ticket : tickets) outcome.answers.push_back(ticket.sink->token_ids());
  return outcome;
}

TEST(EngineExpertAwareCacheTest, GroupsOfPromptsRunTogetherAndMissLess) {
  const Outcome plain = Serve(false);
  const Outcome aware = Serve(true);
  EXPECT_EQ(plain.preferred, 0);
  EXPECT_GT(aware.preferred, kRequestsOfAGroup / 2);
  EXPECT_EQ(aware.slots.hits + aware.slots.misses, plain.slots.hits + plain.slots.misses);
  EXPECT_LT(2 * aware.slots.misses, plain.slots.misses)
      << aware.slots.misses << " misses of " << aware.slots.hits + aware.slots.misses << ", and " << plain.slots.misses;
  EXPECT_EQ(aware.answers, plain.answers);
}

}  // namespace
}  // namespace cadre
