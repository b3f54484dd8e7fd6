// Time to the first token of a prompt that was seen before, beside one that was not, through the whole engine.
//
//   prefix_bench --model DIR [--threads N] [--prompt-tokens 512] [--repeats 5]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/model/model_config.h"
#include "engine/model/transformer_runner.h"
#include "engine/model/weights.h"
#include "kernels/cpu/cpu_device.h"

namespace cadre {
namespace {

template <typename T>
T OrFail(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "prefix_bench: %s\n", value.status().ToString().c_str());
  std::exit(1);
}

class NullSink final : public TokenSink {
 public:
  void OnStarted(RequestStart) override {}
  void OnTokens(TokenDelta) override {}
  void OnFinish(FinishSummary) override {}
};

// Seconds until the prompt has its first and only token.
double Serve(Engine& engine, const std::vector<int32_t>& prompt) {
  Request request;
  request.prompt = prompt;
  request.sampling.max_tokens = 1;
  request.wants_text = false;
  request.sink = std::make_shared<NullSink>();
  request.cancel = std::make_shared<CancelFlag>();
  const auto start = std::chrono::steady_clock::now();
  if (!engine.Submit(std::move(request)).ok()) std::exit(1);
  while (engine.Step()) {
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Run(const std::string& model_dir, int threads, int prompt_tokens, int repeats) {
  std::unique_ptr<Device> device = OrFail(CreateCpuDevice({.num_threads = threads}));
  const ModelConfig config = OrFail(LoadModelConfig(model_dir));
  const auto checkpoint = OrFail(Checkpoint::Open(model_dir, config, {}));
  RunnerOptions options;
  options.max_model_len = prompt_tokens + 1;
  options.max_num_seqs = 8;
  const MemoryPlan plan = OrFail(PlanMemory(config, checkpoint->summary(), options, *device, device->ops()));
  Weights weights = OrFail(checkpoint->Load(*device, plan.expert_place()));
  auto runner = OrFail(CreateTransformerRunner(config, std::move(weights), plan, options, device.get()));
  Engine engine({.max_num_seqs = 8}, std::move(runner), nullptr, std::make_shared<MonotonicClock>(), nullptr);

  std::mt19937 random(1);
  std::vector<double> misses;
  std::vector<double> hits;
  for (int i = 0; i <= repeats; ++i) {
    std::vector<int32_t> prompt;
    prompt.reserve(static_cast<size_t>(prompt_tokens));
    for (int t = 0; t < prompt_tokens; ++t) {
      prompt.push_back(static_cast<int32_t>(random() % static_cast<unsigned>(engine.limits().vocab_size)));
    }
    const double miss = Serve(engine, prompt);
    const double hit = Serve(engine, prompt);
    if (i == 0) continue;  // warms caches and pages
    misses.push_back(miss);
    hits.push_back(hit);
  }
  std::printf("%d tokens: miss %.2f ms, hit %.2f ms, %.1f times as fast\n", prompt_tokens, 1e3 * Median(misses),
              1e3 * Median(hits), Median(misses) / Median(hits));
}

}  // namespace
}  // namespace cadre

int main(int argc, char** argv) {
  std::string model;
  int threads = 0;
  int prompt_tokens = 512;
  int repeats = 5;
  CLI::App app("Time to the first token with and without a hit in the prefix cache");
  app.add_option("--model", model, "Checkpoint folder")->required();
  app.add_option("--threads", threads, "Compute threads; 0: all CPUs");
  app.add_option("--prompt-tokens", prompt_tokens, "Random tokens of the prompt");
  app.add_option("--repeats", repeats, "Prompts; medians are reported");
  CLI11_PARSE(app, argc, argv);
  cadre::Run(model, threads, prompt_tokens, repeats);
  return 0;
}
