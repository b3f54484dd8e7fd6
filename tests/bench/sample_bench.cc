// What each step of the sampling chain costs for one row of logits, on one thread: plain requests pay for none of the
// steps that they do not ask for.
#include <benchmark/benchmark.h>

#include <functional>
#include <random>
#include <vector>

#include "engine/base/check.h"
#include "engine/sample/log_softmax.h"
#include "engine/sample/token_chooser.h"
#include "engine/sample/token_mask.h"

namespace cadre {
namespace {

constexpr int32_t kVocabSize = 151936;
constexpr int32_t kPromptTokens = 2048;

// Half of the tokens, always.
class HalfConstraint final : public TokenConstraint {
 public:
  std::unique_ptr<ConstraintState> Start() const override { return std::make_unique<State>(); }

 private:
  class State final : public ConstraintState {
   public:
    absl::StatusOr<std::span<const uint64_t>> AllowedTokens() override { return std::span<const uint64_t>(mask_); }
    void Advance(int32_t) override {}
    bool done() const override { return false; }

   private:
    const std::vector<uint64_t> mask_ = std::vector<uint64_t>(TokenMaskWords(kVocabSize), 0x5555555555555555);
  };
};

void Choose(benchmark::State& state, const std::function<void(Request&)>& edit) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> row(kVocabSize);
  for (float& logit : row) logit = normal(random);
  Request request;
  for (int32_t i = 0; i < kPromptTokens; ++i) request.prompt.push_back(static_cast<int32_t>(random() % kVocabSize));
  edit(request);
  const ChoiceRules rules(request, {}, kVocabSize);
  Sampler sampler;
  sampler.Reserve(kVocabSize);
  TokenChooser chooser(&rules, request.prompt, 0);
  for (const int32_t token : request.prompt) chooser.Accept(token - token % 2);
  for (auto _ : state) {
    benchmark::DoNotOptimize(chooser.Choose(row, &sampler).ok());
  }
}

void Greedy(Request& request) { request.sampling.temperature = 0.0f; }

BENCHMARK_CAPTURE(Choose, greedy, Greedy)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(Choose, top_p, [](Request& r) { r.sampling.top_p = 0.9f; })->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(Choose, top_k, [](Request& r) { r.sampling.top_k = 50; })->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(Choose, greedy_presence, [](Request& r) {
  Greedy(r);
  r.sampling.presence_penalty = 1e-30f;  // the row stays as it is, step after step
})->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(Choose, greedy_constraint, [](Request& r) {
  Greedy(r);
  r.constraint = std::make_shared<HalfConstraint>();
})->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(Choose, greedy_logprobs, [](Request& r) {
  Greedy(r);
  r.sampling.logprobs = true;
  r.sampling.top_logprobs = 20;
})->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace cadre

BENCHMARK_MAIN();
