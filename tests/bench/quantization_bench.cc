// What quantized weights cost: a text through the model with its weights as stored, and with each way to quantize them.
//
//   quantization_bench --model DIR --text FILE [--windows 64] [--window-tokens 256]
//
// float32 stands beside them because it differs from 16 bits in the rounding of activations alone: what it changes is
// noise, most of it tokens that take another expert because two were nearly tied.
//
// Of each way: bytes of the weights, perplexity of the text in windows of so many tokens, the mean divergence from the
// distribution of the weights as stored (KL, in nats a token), and how often the most likely token is the same.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/model/transformer_runner.h"
#include "engine/model/weights.h"
#include "engine/text/tokenizer.h"
#include "kernels/cpu/cpu_device.h"

namespace cadre {
namespace {

constexpr int32_t kBlockSize = 16;

struct BenchOptions {
  std::string model_dir;
  std::string text_file;
  int windows = 64;
  int window_tokens = 256;
  int threads = 0;
};

[[noreturn]] void Fail(const std::string& error) {
  std::fprintf(stderr, "quantization_bench: %s\n", error.c_str());
  std::exit(1);
}

template <typename T>
T OrFail(absl::StatusOr<T> value) {
  if (!value.ok()) Fail(value.status().ToString());
  return *std::move(value);
}

std::vector<std::vector<int32_t>> ReadWindows(const BenchOptions& options) {
  std::ifstream file(options.text_file, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) Fail(options.text_file + ": cannot be read");
  const auto tokenizer = OrFail(Tokenizer::Load(options.model_dir));
  const std::vector<int32_t> tokens = OrFail(tokenizer->Encode(text.str()));
  const auto size = static_cast<size_t>(options.window_tokens);
  const size_t count = std::min(tokens.size() / size, static_cast<size_t>(options.windows));
  if (count == 0) Fail(options.text_file + ": has fewer tokens than one window");
  std::vector<std::vector<int32_t>> windows;
  for (size_t i = 0; i < count; ++i) {
    windows.emplace_back(tokens.begin() + static_cast<std::ptrdiff_t>(i * size),
                         tokens.begin() + static_cast<std::ptrdiff_t>((i + 1) * size));
  }
  return windows;
}

// One sequence from its start, with the logits of all rows.
ForwardBatch BatchOf(const std::vector<int32_t>& tokens) {
  const auto count = static_cast<int32_t>(tokens.size());
  ForwardBatch batch;
  batch.num_sequences = 1;
  batch.token_ids = tokens;
  batch.positions.resize(tokens.size());
  std::iota(batch.positions.begin(), batch.positions.end(), 0);
  batch.kv_slots = batch.positions;
  batch.logit_rows = batch.positions;
  batch.row_sequence.assign(tokens.size(), 0);
  batch.max_blocks = (count + kBlockSize - 1) / kBlockSize;
  batch.block_tables.resize(static_cast<size_t>(batch.max_blocks));
  std::iota(batch.block_tables.begin(), batch.block_tables.end(), 0);
  batch.seeds = {0};
  batch.prompt_lengths = {0};
  return batch;
}

void LogSoftmax(float* row, size_t size) {
  const double largest = *std::max_element(row, row + size);
  double sum = 0.0;
  for (size_t i = 0; i < size; ++i) sum += std::exp(double{row[i]} - largest);
  const double log_sum = largest + std::log(sum);
  for (size_t i = 0; i < size; ++i) row[i] = static_cast<float>(double{row[i]} - log_sum);
}

// Log probabilities of all windows, [windows * window_tokens, V].
struct Run {
  double weight_mib = 0.0;
  size_t vocab_size = 0;
  std::vector<float> logprobs;
};

Run RunModel(const BenchOptions& options, const WeightsOptions& weights_options,
             const std::vector<std::vector<int32_t>>& windows) {
  const auto device = OrFail(CreateCpuDevice({.num_threads = options.threads}));
  const ModelConfig config = OrFail(LoadModelConfig(options.model_dir));
  const auto checkpoint = OrFail(Checkpoint::Open(options.model_dir, config, weights_options));
  RunnerOptions runner_options;
  runner_options.max_model_len = options.window_tokens;
  runner_options.max_num_seqs = options.window_tokens;  // rows whose logits are computed at once
  runner_options.max_num_batched_tokens = options.window_tokens;
  runner_options.kv_block_size = kBlockSize;
  const MemoryPlan plan = OrFail(PlanMemory(config, checkpoint->summary(), runner_options, *device, device->ops()));
  Weights weights = OrFail(checkpoint->Load(*device, plan.expert_place()));
  const auto runner = OrFail(CreateTransformerRunner(config, std::move(weights), plan, runner_options, device.get()));
  Run run;
  run.weight_mib =
      static_cast<double>(checkpoint->summary().dense_bytes + checkpoint->summary().expert_bytes) / (1 << 20);
  run.vocab_size = static_cast<size_t>(config.vocab_size);
  ForwardResult result;
  for (const std::vector<int32_t>& window : windows) {
    if (const absl::Status status = runner->Forward(BatchOf(window), &result); !status.ok()) Fail(status.ToString());
    for (size_t row = 0; row < window.size(); ++row) {
      LogSoftmax(result.logits.data() + row * run.vocab_size, run.vocab_size);
    }
    run.logprobs.insert(run.logprobs.end(), result.logits.begin(), result.logits.end());
  }
  return run;
}

double Perplexity(const Run& run, const std::vector<std::vector<int32_t>>& windows) {
  double sum = 0.0;
  size_t count = 0;
  size_t row = 0;
  for (const std::vector<int32_t>& window : windows) {
    for (size_t i = 0; i + 1 < window.size(); ++i, ++count) {
      sum -= double{run.logprobs[(row + i) * run.vocab_size + static_cast<size_t>(window[i + 1])]};
    }
    row += window.size();
  }
  return std::exp(sum / static_cast<double>(count));
}

void Report(const char* name, const Run& exact, const Run& run, const std::vector<std::vector<int32_t>>& windows) {
  const size_t size = run.vocab_size;
  const size_t num_rows = run.logprobs.size() / size;
  double divergence = 0.0;
  size_t same = 0;
  for (size_t row = 0; row < num_rows; ++row) {
    const float* const p = exact.logprobs.data() + row * size;
    const float* const q = run.logprobs.data() + row * size;
    for (size_t i = 0; i < size; ++i) divergence += std::exp(double{p[i]}) * (double{p[i]} - double{q[i]});
    same += std::max_element(p, p + size) - p == std::max_element(q, q + size) - q ? 1 : 0;
  }
  std::printf("%-14s %9.1f MiB  perplexity %8.4f (%+.3f %%)  KL %.6f  same first token %.2f %%\n", name, run.weight_mib,
              Perplexity(run, windows), 100.0 * (Perplexity(run, windows) / Perplexity(exact, windows) - 1.0),
              divergence / static_cast<double>(num_rows),
              100.0 * static_cast<double>(same) / static_cast<double>(num_rows));
  std::fflush(stdout);
}

void Compare(const BenchOptions& options) {
  const std::vector<std::vector<int32_t>> windows = ReadWindows(options);
  std::printf("%zu windows of %d tokens\n", windows.size(), options.window_tokens);
  const Run exact = RunModel(options, {}, windows);
  Report("as stored", exact, exact, windows);
  const std::pair<const char*, WeightsOptions> ways[] = {
      {"float32", {.dtype = DType::kF32}},
      {"int8 experts", {.quantized = DType::kQ8}},
      {"int8 all", {.quantized = DType::kQ8, .quantized_parts = QuantizedParts::kAll}},
      {"int4 experts", {.quantized = DType::kQ4}},
      {"int4 all", {.quantized = DType::kQ4, .quantized_parts = QuantizedParts::kAll}},
      {"int4 all-alike", {.quantized = DType::kQ4, .quantized_parts = QuantizedParts::kAllAlike}},
  };
  for (const auto& [name, weights_options] : ways) {
    Report(name, exact, RunModel(options, weights_options, windows), windows);
  }
}

}  // namespace
}  // namespace cadre

int main(int argc, char** argv) {
  cadre::BenchOptions options;
  CLI::App app("What quantized weights cost, in bytes and in what the model says");
  app.add_option("--model", options.model_dir, "Checkpoint folder with its tokenizer")->required();
  app.add_option("--text", options.text_file, "UTF-8 text")->required();
  app.add_option("--windows", options.windows, "At most so many")->check(CLI::Range(1, 1 << 20));
  app.add_option("--window-tokens", options.window_tokens, "Tokens of a window")->check(CLI::Range(2, 4096));
  app.add_option("--threads", options.threads, "Compute threads; 0: all CPUs");
  CLI11_PARSE(app, argc, argv);
  cadre::Compare(options);
}
