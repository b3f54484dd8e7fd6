// Tokens per second of a real checkpoint through the model runner: prefill of one prompt, and decode at several batch
// sizes with distinct random tokens (equal tokens would all choose the same experts and flatter every MoE engine).
//
//   engine_bench --model DIR [--threads N] [--isa NAME] [--prefill 512] [--batches 1,8,32] [--repeats 5] [--json]
//   engine_bench --model DIR --greedy 5,17,42 --steps 16     only prints the greedy continuation, to compare engines
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/model/transformer_runner.h"
#include "engine/model/weights.h"
#include "kernels/cpu/cpu_device.h"

namespace cadre {
namespace {

struct BenchOptions {
  std::string model_dir;
  int threads = 0;
  std::string isa;
  std::string dtype;
  int prefill_tokens = 512;
  int context_tokens = 64;  // known tokens of each sequence before decode is timed
  std::vector<int> batches = {1, 2, 4, 8, 16, 32};
  int decode_steps = 16;
  int repeats = 5;
  std::vector<int32_t> greedy_prompt;
  bool json = false;
};

[[noreturn]] void Fail(const absl::Status& status) {
  std::fprintf(stderr, "engine_bench: %s\n", status.ToString().c_str());
  std::exit(1);
}

template <typename T>
T OrFail(absl::StatusOr<T> value) {
  if (!value.ok()) Fail(value.status());
  return *std::move(value);
}

// Builds batches for `num_sequences` sequences that each own a contiguous run of KV blocks.
class BatchMaker {
 public:
  BatchMaker(const RunnerLimits& limits, int num_sequences, int positions_per_sequence, uint64_t seed)
      : limits_(limits),
        num_sequences_(num_sequences),
        blocks_per_sequence_((positions_per_sequence + limits.kv_block_size - 1) / limits.kv_block_size),
        random_(seed) {
    CADRE_CHECK_LE(num_sequences * blocks_per_sequence_, limits.num_kv_blocks);
  }

  // Rows [begin, begin + count) of every sequence, with random tokens.
  ForwardBatch Rows(int begin, int count) {
    ForwardBatch batch;
    batch.num_sequences = num_sequences_;
    batch.max_blocks = blocks_per_sequence_;
    std::uniform_int_distribution<int32_t> any_token(0, limits_.vocab_size - 1);
    for (int s = 0; s < num_sequences_; ++s) {
      const int first_block = s * blocks_per_sequence_;
      for (int b = 0; b < blocks_per_sequence_; ++b) batch.block_tables.push_back(first_block + b);
      for (int position = begin; position < begin + count; ++position) {
        batch.token_ids.push_back(any_token(random_));
        batch.positions.push_back(position);
        batch.row_sequence.push_back(s);
        batch.kv_slots.push_back(first_block * limits_.kv_block_size + position);
      }
      batch.logit_rows.push_back(batch.num_tokens() - 1);
    }
    return batch;
  }

 private:
  const RunnerLimits limits_;
  const int num_sequences_;
  const int blocks_per_sequence_;
  std::mt19937_64 random_;
};

double TimedForward(ModelRunner& runner, const ForwardBatch& batch, ForwardResult* result) {
  const auto start = std::chrono::steady_clock::now();
  if (absl::Status status = runner.Forward(batch, result); !status.ok()) Fail(status);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Report(const BenchOptions& options, const char* phase, int batch, std::vector<double> rates) {
  const auto [low, high] = std::minmax_element(rates.begin(), rates.end());
  if (options.json) {
    std::printf("{\"phase\":\"%s\",\"batch\":%d,\"tokens_per_second\":%.2f,\"min\":%.2f,\"max\":%.2f}\n", phase, batch,
                Median(rates), *low, *high);
  } else {
    std::printf("%-8s batch %4d  %10.1f tokens/s  [%.1f-%.1f]\n", phase, batch, Median(rates), *low, *high);
  }
  std::fflush(stdout);
}

void BenchPrefill(const BenchOptions& options, ModelRunner& runner) {
  ForwardResult result;
  std::vector<double> rates;
  for (int i = 0; i <= options.repeats; ++i) {
    BatchMaker maker(runner.limits(), 1, options.prefill_tokens, static_cast<uint64_t>(i));
    const double seconds = TimedForward(runner, maker.Rows(0, options.prefill_tokens), &result);
    if (i > 0) rates.push_back(options.prefill_tokens / seconds);  // the first run warms caches and pages
  }
  Report(options, "prefill", 1, rates);
}

void BenchDecode(const BenchOptions& options, ModelRunner& runner, int num_sequences) {
  ForwardResult result;
  std::vector<double> rates;
  for (int i = 0; i < options.repeats; ++i) {
    BatchMaker maker(runner.limits(), num_sequences, options.context_tokens + options.decode_steps,
                     static_cast<uint64_t>(i) + 100);
    for (int p = 0; p < options.context_tokens; p += 16) TimedForward(runner, maker.Rows(p, 16), &result);
    double seconds = 0;
    for (int step = 0; step < options.decode_steps; ++step) {
      seconds += TimedForward(runner, maker.Rows(options.context_tokens + step, 1), &result);
    }
    rates.push_back(num_sequences * options.decode_steps / seconds);
  }
  Report(options, "decode", num_sequences, rates);
}

// Prints the most likely continuation of `options.greedy_prompt`, token ids on one line.
void PrintGreedy(const BenchOptions& options, ModelRunner& runner) {
  std::vector<int32_t> tokens = options.greedy_prompt;
  const int length = static_cast<int>(tokens.size()) + options.decode_steps;
  BatchMaker maker(runner.limits(), 1, length, 0);
  ForwardResult result;
  for (int begin = 0; static_cast<int>(tokens.size()) < length;) {
    const int count = static_cast<int>(tokens.size()) - begin;
    ForwardBatch batch = maker.Rows(begin, count);
    batch.token_ids.assign(tokens.begin() + begin, tokens.end());
    TimedForward(runner, batch, &result);
    const auto best = std::max_element(result.logits.begin(), result.logits.end());
    begin += count;
    tokens.push_back(static_cast<int32_t>(best - result.logits.begin()));
    std::printf("%d ", tokens.back());
  }
  std::printf("\n");
}

CpuDeviceOptions DeviceOptions(const BenchOptions& options) {
  CpuDeviceOptions device;
  device.num_threads = options.threads;
  for (CpuIsa isa : SupportedCpuIsas()) {
    if (CpuIsaName(isa) == options.isa) device.isa = isa;
  }
  return device;
}

void Run(const BenchOptions& options) {
  std::unique_ptr<Device> device = OrFail(CreateCpuDevice(DeviceOptions(options)));
  const ModelConfig config = OrFail(LoadModelConfig(options.model_dir));
  WeightsOptions weights_options;
  if (options.dtype == "float32") weights_options.dtype = DType::kF32;
  const auto checkpoint = OrFail(Checkpoint::Open(options.model_dir, config, weights_options));

  const int max_batch = *std::max_element(options.batches.begin(), options.batches.end());
  RunnerOptions runner_options;
  runner_options.max_model_len = std::max({options.prefill_tokens, options.context_tokens + options.decode_steps,
                                           static_cast<int>(options.greedy_prompt.size()) + options.decode_steps, 64});
  runner_options.max_num_seqs = std::max(max_batch, 1);
  runner_options.max_num_batched_tokens = std::max(options.prefill_tokens, max_batch * 16);
  const MemoryPlan plan = OrFail(PlanMemory(config, checkpoint->summary(), runner_options, *device, device->ops()));
  Weights weights = OrFail(checkpoint->Load(*device));
  auto runner = OrFail(CreateTransformerRunner(config, std::move(weights), plan, runner_options, device.get()));

  std::fprintf(stderr, "engine_bench: %s on %s\n", options.model_dir.c_str(), device->kernels().c_str());
  if (!options.greedy_prompt.empty()) return PrintGreedy(options, *runner);
  if (options.prefill_tokens > 0) BenchPrefill(options, *runner);
  for (int batch : options.batches) BenchDecode(options, *runner, batch);
}

}  // namespace
}  // namespace cadre

int main(int argc, char** argv) {
  cadre::BenchOptions options;
  CLI::App app("Tokens per second of a checkpoint through the model runner");
  app.add_option("--model", options.model_dir, "Checkpoint folder")->required();
  app.add_option("--threads", options.threads, "Compute threads; 0: all CPUs");
  app.add_option("--isa", options.isa, "Instruction set: portable, avx512-bf16, amx-bf16; empty: the best");
  app.add_option("--dtype", options.dtype, "Weights: empty as stored, or float32");
  app.add_option("--prefill", options.prefill_tokens, "Tokens of the prefill prompt; 0: no prefill run");
  app.add_option("--context", options.context_tokens, "Known tokens of a sequence before decode (multiple of 16)");
  app.add_option("--batches", options.batches, "Decode batch sizes")->delimiter(',');
  app.add_option("--steps", options.decode_steps, "Decode steps per repeat");
  app.add_option("--repeats", options.repeats, "Repeats; the median is reported");
  app.add_option("--greedy", options.greedy_prompt, "Prompt token ids: print the greedy continuation and stop")
      ->delimiter(',');
  app.add_flag("--json", options.json, "One JSON object per line");
  CLI11_PARSE(app, argc, argv);
  cadre::Run(options);
  return 0;
}
