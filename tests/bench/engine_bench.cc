// Tokens per second of a model through its runner: prefill of one prompt, and decode at several batch sizes with
// distinct random tokens (equal tokens would all choose the same experts and flatter every MoE engine). Times are of
// whole steps: from the call with its arrays to the logits in the host's memory; of decode steps on a device that
// samples, to the tokens.
//
//   engine_bench --model DIR [--device cuda] [--prefill 512,2048] [--batches 1,8,32] [--repeats 5] [--json]
//   engine_bench --model DIR --random-weights --layers 12 --calibration FILE    config.json is all that DIR needs to
//   have engine_bench --model DIR --greedy 5,17,42 --steps 16     only prints the greedy continuation, to compare
//   engines
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/experts/expert_stats.h"
#include "engine/experts/routing_profile.h"
#include "engine/model/model_config.h"
#include "engine/model/transformer_runner.h"
#include "engine/model/weights.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cuda/cuda_device.h"
#include "nlohmann/json.hpp"
#include "tests/bench/batch_maker.h"
#include "tests/bench/ceilings.h"
#include "tests/bench/random_weights.h"
#include "tests/bench/step_counting.h"
#include "tests/bench/step_times.h"
#include "tests/bench/step_work.h"

namespace cadre {
namespace {

struct BenchOptions {
  std::string model_dir;
  std::string device = "cpu";
  bool random_weights = false;
  int layers = 0;  // 0: as config.json says
  double resident_experts = 1.0;
  bool record_steps = true;
  std::string calibration;
  std::string logits_file;
  int threads = 0;
  std::string isa;
  std::string dtype;
  std::string quantize = "none";
  std::string quantize_parts = "experts";
  std::vector<int> prefill_tokens = {512};
  int context_tokens = 64;  // known tokens of each sequence before decode is timed
  std::vector<int> batches = {1, 2, 4, 8, 16, 32};
  int decode_steps = 16;
  int repeats = 5;
  int sample_steps = 0;
  std::vector<int32_t> greedy_prompt;
  bool json = false;
};

constexpr int kExitFailed = 1;
constexpr int kExitNoDevice = 77;

[[noreturn]] void Fail(const absl::Status& status, int exit_code = kExitFailed) {
  std::fprintf(stderr, "engine_bench: %s\n", status.ToString().c_str());
  std::exit(exit_code);
}

template <typename T>
T OrFail(absl::StatusOr<T> value) {
  if (!value.ok()) Fail(value.status());
  return *std::move(value);
}

double TimedForward(ModelRunner& runner, const ForwardBatch& batch, ForwardResult* result) {
  const auto start = std::chrono::steady_clock::now();
  if (absl::Status status = runner.Forward(batch, result); !status.ok()) Fail(status);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

// What is measured: a model, a runner of it, and what its device gives at best.
struct Bench {
  const BenchOptions& options;
  const ModelConfig& config;
  const Ceilings ceilings;
  ModelRunner& runner;
};

void AddStep(const Bench& bench, const ForwardResult& result, int sequences, int rows, int context, double seconds,
             StepTimes* times) {
  const StepWork work = WorkOfStep(bench.config, sequences, rows, context, result.routing);
  // Whole steps are compared with the rate of a copy, as others publish theirs.
  const double bound_us = BoundUs(work.bytes, bench.ceilings.copy_gb_s, work.flops, bench.ceilings.dense_tflop_s);
  times->seconds.push_back(seconds);
  times->shares.push_back(bound_us * 1e-6 / seconds);
}

std::string ModelName(const BenchOptions& options) {
  const std::filesystem::path folder = std::filesystem::path(options.model_dir).lexically_normal();
  return (folder.has_filename() ? folder : folder.parent_path()).filename().string();
}

void Report(const Bench& bench, const char* phase, const StepTimes& times) {
  const auto [fastest, slowest] = std::minmax_element(times.seconds.begin(), times.seconds.end());
  const double seconds = Median(times.seconds);
  const double rate = times.tokens / seconds;
  const double low = times.tokens / *slowest;
  const double high = times.tokens / *fastest;
  const double share = Median(times.shares);
  if (bench.options.json) {
    std::printf("{\"phase\":\"%s\",\"batch\":%d,\"tokens_per_second\":%.2f,\"min\":%.2f,\"max\":%.2f", phase,
                times.batch, rate, low, high);
    std::printf(",\"model\":%s,\"layers\":%d", nlohmann::json(ModelName(bench.options)).dump().c_str(),
                static_cast<int>(bench.config.num_layers));
    std::printf(",\"counting_share\":%.6f", CountingShare(times));
    if (times.lookups > 0) {
      std::printf(",\"resident_experts\":%.3f,\"hit_ratio\":%.4f,\"direct_gb_s\":%.3f", bench.options.resident_experts,
                  HitRatio(times), DirectRate(times));
    }
    std::printf(",\"tokens\":%d,\"context\":%d,\"step_ms\":%.4f,\"steps\":%d", times.tokens, times.context,
                seconds * 1e3, static_cast<int>(times.seconds.size()));
    std::printf(std::isnan(share) ? ",\"share\":null}\n" : ",\"share\":%.4f}\n", share);
  } else {
    std::printf("%-8s batch %4d  %10.1f tokens/s  [%.1f-%.1f]  %.3f ms a step", phase, times.batch, rate, low, high,
                seconds * 1e3);
    if (times.lookups > 0) {
      std::printf("  %.1f %% hits, %.2f GB/s from the host", 100.0 * HitRatio(times), DirectRate(times));
    }
    if (times.counting_seconds > 0.0) std::printf("  counting %.3f %% of it", 100.0 * CountingShare(times));
    std::printf(std::isnan(share) ? "\n" : "  %.1f %% of the bound\n", share * 100.0);
  }
  std::fflush(stdout);
}

void BenchPrefill(const Bench& bench, int num_tokens) {
  ForwardResult result;
  StepTimes times{.batch = 1, .tokens = num_tokens};
  ExpertCacheReport before;
  for (int i = 0; i <= bench.options.repeats; ++i) {
    BatchMaker maker = OrFail(BatchMaker::Create(bench.runner.limits(), 1, num_tokens, static_cast<uint64_t>(i)));
    if (i == 1) before = CacheReport(bench.runner);
    const double seconds = TimedForward(bench.runner, maker.Rows(0, num_tokens), &result);
    // The first run warms caches and pages.
    if (i > 0) AddStep(bench, result, 1, num_tokens, 0, seconds, &times);
  }
  AddCacheUse(before, CacheReport(bench.runner), &times);
  Report(bench, "prefill", times);
}

// How servers let a device that can do so end a step.
void SampleOnDevice(const RunnerLimits& limits, ForwardBatch* batch) {
  const auto num_rows = static_cast<int>(batch->logit_rows.size());
  if (num_rows > limits.max_sample_rows) return;
  batch->sample_rows.assign(batch->logit_rows.size(), {.is_wanted = 1, .top_p = 0.9f, .top_k = 50});
}

void BenchDecode(const Bench& bench, int num_sequences) {
  const BenchOptions& options = bench.options;
  ForwardResult result;
  StepTimes times{.batch = num_sequences, .tokens = num_sequences, .context = options.context_tokens};
  Counting counting(bench.runner.limits(), options.sample_steps);
  ExpertCacheReport before;
  for (int i = 0; i < options.repeats; ++i) {
    BatchMaker maker =
        OrFail(BatchMaker::Create(bench.runner.limits(), num_sequences, options.context_tokens + options.decode_steps,
                                  static_cast<uint64_t>(i) + 100));
    // With random weights what the cache holds does not matter, and long contexts of many sequences take long to fill.
    for (int p = 0; p < options.context_tokens && !options.random_weights; p += 16) {
      TimedForward(bench.runner, maker.Rows(p, 16), &result);
    }
    for (int step = 0; step < options.decode_steps; ++step) {
      const int context = options.context_tokens + step;
      ForwardBatch batch = maker.Rows(context, 1);
      SampleOnDevice(bench.runner.limits(), &batch);
      batch.keep_expert_ids = counting.WantsStep();
      const double seconds = TimedForward(bench.runner, batch, &result);
      const double counting_seconds = counting.Count(batch, result);
      if (i == 0 && step == 0) {
        before = CacheReport(bench.runner);
        continue;
      }
      AddStep(bench, result, num_sequences, 1, context, seconds, &times);
      times.counting_seconds += counting_seconds;
    }
  }
  AddCacheUse(before, CacheReport(bench.runner), &times);
  Report(bench, "decode", times);
}

// Prints the most likely continuation of `options.greedy_prompt`, token ids on one line.
void PrintGreedy(const BenchOptions& options, ModelRunner& runner) {
  std::ofstream logits;
  if (!options.logits_file.empty()) logits.open(options.logits_file, std::ios::binary);
  std::vector<int32_t> tokens = options.greedy_prompt;
  const int length = static_cast<int>(tokens.size()) + options.decode_steps;
  BatchMaker maker = OrFail(BatchMaker::Create(runner.limits(), 1, length, 0));
  ForwardResult result;
  for (int begin = 0; static_cast<int>(tokens.size()) < length;) {
    const int count = static_cast<int>(tokens.size()) - begin;
    ForwardBatch batch = maker.Rows(begin, count);
    batch.token_ids.assign(tokens.begin() + begin, tokens.end());
    TimedForward(runner, batch, &result);
    const auto best = std::max_element(result.logits.begin(), result.logits.end());
    logits.write(reinterpret_cast<const char*>(result.logits.data()),
                 static_cast<std::streamsize>(result.logits.size() * sizeof(float)));
    begin += count;
    tokens.push_back(static_cast<int32_t>(best - result.logits.begin()));
    std::printf("%d ", tokens.back());
  }
  std::printf("\n");
  logits.flush();
  if (!options.logits_file.empty() && !logits) {
    Fail(absl::UnavailableError(options.logits_file + ": cannot be written"));
  }
}

CpuDeviceOptions DeviceOptions(const BenchOptions& options) {
  CpuDeviceOptions device;
  device.num_threads = options.threads;
  for (CpuIsa isa : SupportedCpuIsas()) {
    if (CpuIsaName(isa) == options.isa) device.isa = isa;
  }
  return device;
}

std::unique_ptr<Device> MakeDevice(const BenchOptions& options) {
  if (options.device == "cpu") return OrFail(CreateCpuDevice(DeviceOptions(options)));
  constexpr double kShareOfMemory = 0.95;  // nobody else is there
  auto device = CreateCudaDevice({.memory_utilization = kShareOfMemory});
  if (!device.ok()) {
    Fail(device.status(),
         device.status().code() == absl::StatusCode::kFailedPrecondition ? kExitNoDevice : kExitFailed);
  }
  return *std::move(device);
}

ModelConfig MakeConfig(const BenchOptions& options) {
  ModelConfig config = OrFail(LoadModelConfig(options.model_dir));
  if (options.layers == 0) return config;
  if (!options.random_weights || options.layers > config.num_layers) {
    Fail(absl::InvalidArgumentError("--layers needs --random-weights, and at most as many as config.json has"));
  }
  config.num_layers = options.layers;
  config.is_moe_layer.resize(static_cast<size_t>(options.layers));
  return config;
}

// All lengths that will be run, and as many rows.
RunnerOptions MakeRunnerOptions(const BenchOptions& options) {
  const auto largest = [](const std::vector<int>& values) {
    return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
  };
  const int longest_prefill = largest(options.prefill_tokens);
  const int max_batch = largest(options.batches);
  const int chunk = options.random_weights ? 1 : 16;
  RunnerOptions runner;
  runner.max_model_len = std::max({longest_prefill, options.context_tokens + options.decode_steps,
                                   static_cast<int>(options.greedy_prompt.size()) + options.decode_steps, 64});
  runner.max_num_seqs = std::max(max_batch, 1);
  runner.record_steps = options.record_steps;
  runner.max_num_batched_tokens =
      std::max({longest_prefill, max_batch * chunk, static_cast<int>(options.greedy_prompt.size())});
  return runner;
}

// Random experts that are not in memory cannot be read from anywhere; those of a GPU may lie in the host's.
int64_t ResidentBytes(const BenchOptions& options, const CheckpointSummary& summary, const Device& device) {
  if (options.resident_experts >= 1.0) return summary.expert_bytes;
  if (device.shares_host_memory()) Fail(absl::InvalidArgumentError("--resident-experts needs --device cuda"));
  return static_cast<int64_t>(static_cast<double>(summary.expert_bytes) * options.resident_experts);
}

void Run(const BenchOptions& options) {
  std::unique_ptr<Device> device = MakeDevice(options);
  const ModelConfig config = MakeConfig(options);
  WeightsOptions weights_options;
  if (options.dtype == "float32") weights_options.dtype = DType::kF32;
  if (options.quantize != "none") weights_options.quantized = options.quantize == "int8" ? DType::kQ8 : DType::kQ4;
  if (options.quantize_parts == "all") weights_options.quantized_parts = QuantizedParts::kAll;
  if (options.quantize_parts == "all-alike") weights_options.quantized_parts = QuantizedParts::kAllAlike;
  if (options.random_weights && options.quantize != "none") {
    Fail(absl::InvalidArgumentError("--quantize: random weights are bfloat16"));
  }
  if (options.quantize == "none" && options.quantize_parts != "experts") {
    Fail(absl::InvalidArgumentError("--quantize-parts: needs --quantize"));
  }
  const auto checkpoint =
      options.random_weights ? nullptr : OrFail(Checkpoint::Open(options.model_dir, config, weights_options));
  const CheckpointSummary summary = checkpoint == nullptr ? RandomWeightsSummary(config) : checkpoint->summary();

  RunnerOptions runner_options = MakeRunnerOptions(options);
  if (checkpoint == nullptr) runner_options.expert_cache_bytes = ResidentBytes(options, summary, *device);
  const MemoryPlan plan = OrFail(PlanMemory(config, summary, runner_options, *device, device->ops()));
  if (checkpoint == nullptr && plan.expert_place() == ExpertPlace::kCheckpoint) {
    Fail(absl::ResourceExhaustedError("random experts cannot be read from anywhere, and the host does not hold all"));
  }
  Weights weights = OrFail(checkpoint == nullptr ? RandomWeights(config, *device, plan.expert_place())
                                                 : checkpoint->Load(*device, plan.expert_place()));
  auto runner = OrFail(CreateTransformerRunner(config, std::move(weights), plan, runner_options, device.get()));

  std::fprintf(stderr, "engine_bench: %s on %s\n", options.model_dir.c_str(), device->kernels().c_str());
  if (!options.greedy_prompt.empty()) return PrintGreedy(options, *runner);
  const Ceilings ceilings = options.calibration.empty() ? Ceilings() : OrFail(ReadCeilings(options.calibration));
  const Bench bench = {.options = options, .config = config, .ceilings = ceilings, .runner = *runner};
  for (const int tokens : options.prefill_tokens) {
    if (tokens > 0) BenchPrefill(bench, tokens);
  }
  for (const int batch : options.batches) BenchDecode(bench, batch);
}

}  // namespace
}  // namespace cadre

int main(int argc, char** argv) {
  cadre::BenchOptions options;
  CLI::App app("Tokens per second of a checkpoint through the model runner");
  app.add_option("--model", options.model_dir, "Checkpoint folder")->required();
  app.add_option("--device", options.device, "cpu or cuda")->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--sample-steps", options.sample_steps,
                 "Look at the choices of one decode step in so many, as --routing-sample-steps of the server");
  app.add_flag("--random-weights", options.random_weights,
               "Make bfloat16 weights instead of reading them; decode then finds an empty KV cache of its length");
  app.add_option("--layers", options.layers, "With --random-weights: that many layers of the model, from the first")
      ->check(CLI::NonNegativeNumber);
  app.add_option(
         "--resident-experts", options.resident_experts,
         "With --random-weights on a GPU: share of the experts that it holds; the others are in the host's memory")
      ->check(CLI::Range(0.0, 1.0));
  app.add_flag("!--no-recording", options.record_steps, "Order decode steps kernel by kernel on a GPU");
  app.add_option("--calibration", options.calibration, "What gpu_calibrate printed: for the share of the bound");
  app.add_option("--threads", options.threads, "Compute threads; 0: all CPUs");
  app.add_option("--isa", options.isa, "Instruction set: portable, avx512-bf16, amx-bf16; empty: the best");
  app.add_option("--dtype", options.dtype, "Weights: empty as stored, or float32");
  app.add_option("--quantize", options.quantize, "none, int8 or int4, as of the server")
      ->check(CLI::IsMember({"none", "int8", "int4"}));
  app.add_option("--quantize-parts", options.quantize_parts, "experts, all or all-alike, as of the server")
      ->check(CLI::IsMember({"experts", "all", "all-alike"}));
  app.add_option("--prefill", options.prefill_tokens, "Tokens of the prefill prompts; 0: none")->delimiter(',');
  app.add_option("--context", options.context_tokens, "Known tokens of a sequence before decode (multiple of 16)");
  app.add_option("--batches", options.batches, "Decode batch sizes")->delimiter(',');
  app.add_option("--steps", options.decode_steps, "Decode steps per repeat");
  app.add_option("--repeats", options.repeats, "Repeats; the median is reported");
  app.add_option("--greedy", options.greedy_prompt, "Prompt token ids: print the greedy continuation and stop")
      ->delimiter(',');
  app.add_option("--logits", options.logits_file, "With --greedy: file for the logits of each step, float32");
  app.add_flag("--json", options.json, "One JSON object per line");
  CLI11_PARSE(app, argc, argv);
  cadre::Run(options);
  return 0;
}
