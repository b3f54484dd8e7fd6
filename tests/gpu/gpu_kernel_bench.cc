// How fast the verbs are on a GPU, one JSON object to a line and shape, beside what gpu_calibrate measured:
//
//   {"kernel": "moe", "shape": "qwen3-30b-a3b", "tokens": 8, "us": 201.3, ..., "gb_s": 2450, "bound_us": 153, "share":
//   0.76}
//
//   moe         router, top-K, grouping, experts, combine of one layer
//   q, o, head  a linear layer of that model
//   decode      attention of one row of each of `sequences` sequences of `context` positions
//   prefill     attention of all `tokens` rows of one prompt
//   sample      tokens from the logits of `sequences` rows, with top_k 50 and top_p 0.9 or with top_p alone: bound_us
//   is
//               one reading of the logits
//
// bound_us: the bytes that must be read (each weight that is used, and each key and value, once) at the rate of `read`,
// or the products at the rate of `dense`, whichever takes longer. share: of the bound in the time; of_read and
// of_dense: of each rate alone. Copies of weights and caches beyond four times the L2 cache take turns in one graph,
// which is replayed: nothing is found in the cache. Values are random. Median, lowest and highest of 5 to 30 samples.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "tests/bench/ceilings.h"
#include "tests/gpu/bench_shapes.h"
#include "tests/gpu/gpu_bench.h"
#include "tests/gpu/verb_rig.h"

namespace cadre::gpu {
namespace {

constexpr int64_t kBlockSize = 16;
constexpr int64_t kMostCopies = 2048;  // of the logits of one row: 256 MiB even of small vocabularies
constexpr DType kF32 = DType::kF32;
constexpr DType kBF16 = DType::kBF16;

struct KernelBenchOptions {
  std::vector<std::string> shapes = {"olmoe-1b-7b", "qwen3-30b-a3b", "mixtral-8x7b"};
  std::vector<std::string> kernels = {"moe", "q", "o", "head", "decode", "prefill", "sample"};
  std::vector<int64_t> tokens = {1, 8, 32, 64, 128, 512, 2048, 4096};
  std::vector<int64_t> sequences = {1, 8, 32, 128};
  std::vector<int64_t> prompts = {512, 2048, 8192};
  int64_t context = 1024;
  int64_t cold_mib = 256;
  double seconds = 1.0;  // of replays of one line
  std::string calibration;
};

// How many copies of `bytes` are beyond the cache.
int Copies(int64_t bytes, int64_t cold_mib) {
  const int64_t copies = ((cold_mib << 20) + bytes - 1) / bytes;
  return static_cast<int>(std::clamp<int64_t>(copies, 2, kMostCopies));
}

class KernelBench {
 public:
  KernelBench(const KernelBenchOptions& options, const Ceilings& ceilings) : options_(options), ceilings_(ceilings) {}

  void Run(const BenchShape& shape) {
    if (Wants("moe")) {
      for (const int64_t t : options_.tokens) Moe(shape, t);
    }
    const int64_t q_width = shape.heads * shape.head_dim;
    for (const int64_t t : options_.tokens) {
      if (Wants("q")) Linear(shape, "q", t, q_width, shape.hidden);
      if (Wants("o")) Linear(shape, "o", t, shape.hidden, q_width);
      if (Wants("head") && t <= 128) Linear(shape, "head", t, shape.vocab, shape.hidden);
    }
    if (Wants("decode")) {
      for (const int64_t s : options_.sequences) Attention(shape, "decode", s, 1, options_.context);
      Attention(shape, "decode", 1, 1, 32 * options_.context);  // needs splits
    }
    if (Wants("prefill")) {
      for (const int64_t t : options_.prompts) Attention(shape, "prefill", 1, t, t);
    }
    if (Wants("sample")) {
      for (const int64_t s : options_.sequences) {
        for (const int32_t top_k : {50, 0}) Sample(shape, s, top_k);
      }
    }
  }

 private:
  bool Wants(const char* kernel) const {
    return std::find(options_.kernels.begin(), options_.kernels.end(), kernel) != options_.kernels.end();
  }

  static OpsLimits Limits(const BenchShape& shape, int64_t tokens, int64_t positions) {
    return {.max_tokens = tokens,
            .hidden_size = shape.hidden,
            .max_linear_inputs = std::max(shape.hidden, shape.heads * shape.head_dim),
            .num_heads = shape.heads,
            .head_dim = shape.head_dim,
            .max_positions = positions,
            .num_experts = shape.experts,
            .top_k = shape.top_k,
            .max_ffn_size = shape.ffn};
  }

  void Print(JsonLine line, const Spread& us, double bytes, double flops) const {
    const double bound_us = BoundUs(bytes, ceilings_.read_gb_s, flops, ceilings_.dense_tflop_s);
    line.Number("us", us.median).Number("low", us.low).Number("high", us.high).Integer("samples", us.count);
    const double gb_s = bytes / us.median * 1e-3;
    const double tflop_s = flops / us.median * 1e-6;
    line.Number("gb_s", gb_s).Number("of_read", gb_s / ceilings_.read_gb_s);
    line.Number("tflop_s", tflop_s).Number("of_dense", tflop_s / ceilings_.dense_tflop_s);
    line.Number("bound_us", bound_us).Number("share", bound_us / us.median).Print();
  }

  void Moe(const BenchShape& shape, int64_t t) {
    const int64_t d = shape.hidden, f = shape.ffn, e = shape.experts, k = shape.top_k;
    VerbRig rig(Limits(shape, t, kBlockSize));
    const int64_t layer_bytes = e * 3 * d * f * 2;
    const int copies = Copies(std::min(layer_bytes, t * k * 3 * d * f * 2), options_.cold_mib);
    // As many layers as fit beside each other; where few tokens use few experts of each, other tokens use others.
    const int num_layers = static_cast<int>(std::clamp<int64_t>((int64_t{8} << 30) / layer_bytes, 1, copies));
    std::vector<View> routers;
    std::vector<std::vector<MlpWeights>> layers(static_cast<size_t>(num_layers));
    for (std::vector<MlpWeights>& layer : layers) {
      routers.push_back(rig.Random(kBF16, {e, d}, Scale(d)));
      const View gates = rig.Random(kBF16, {e * f, d}, Scale(d));
      const View ups = rig.Random(kBF16, {e * f, d}, Scale(d));
      const View downs = rig.Random(kBF16, {e * d, f}, Scale(f));
      for (int64_t i = 0; i < e; ++i) layer.push_back({gates.Rows(i * f, f), ups.Rows(i * f, f), downs.Rows(i * d, d)});
    }
    std::vector<View> inputs;
    inputs.reserve(static_cast<size_t>(copies));
    for (int i = 0; i < copies; ++i) inputs.push_back(rig.Random(kF32, {t, d}));
    const View logits = rig.Zeros(kF32, {t, e}), weights = rig.Zeros(kF32, {t, k});
    const View probabilities = rig.Zeros(kF32, {t, e}), log_sum_exp = rig.Zeros(kF32, {t});
    const View ids = rig.Zeros(DType::kI32, {t, k}), order = rig.Zeros(DType::kI32, {t * k});
    const View offsets = rig.Zeros(DType::kI32, {e + 1}), y = rig.Zeros(kF32, {t * k, d});
    const View out = rig.Zeros(kF32, {t, d});
    const RouterOptions router = {.top_k = k, .norm = shape.norm};
    const auto run = [&](int i) {
      const auto layer = static_cast<size_t>(i % num_layers);
      const View& x = inputs[static_cast<size_t>(i)];
      rig.ops().Linear(logits, x, routers[layer], ConstView(), false);
      rig.ops().RouteTopK(ids, weights, probabilities, log_sum_exp, logits, ConstView(), ConstView(), router);
      rig.ops().GroupByExpert(order, offsets, ids);
      rig.ops().ExpertFfn(y, x, order, offsets, layers[layer]);
      rig.ops().Combine(out, y, weights);
    };
    double touched = 0.0;  // experts of a layer, on average
    for (int i = 0; i < copies; ++i) {
      run(i);
      const std::vector<int32_t> begins = rig.ReadInts(offsets);
      for (size_t j = 0; j + 1 < begins.size(); ++j) touched += begins[j + 1] > begins[j] ? 1.0 / copies : 0.0;
    }
    const Spread us = rig.TimeEachUs(copies, run, options_.seconds);
    const auto bytes = touched * static_cast<double>(3 * d * f * 2) + static_cast<double>(e * d * 2);
    const auto flops = static_cast<double>(6 * t * k * d * f + 2 * t * d * e);
    JsonLine line;
    line.Text("kernel", "moe").Text("shape", shape.name).Integer("tokens", t).Number("experts", touched);
    Print(std::move(line), us, bytes, flops);
  }

  void Linear(const BenchShape& shape, const char* name, int64_t t, int64_t outputs, int64_t inputs) {
    VerbRig rig(Limits(shape, t, kBlockSize));
    const int copies = Copies(outputs * inputs * 2, options_.cold_mib);
    std::vector<View> weights;
    weights.reserve(static_cast<size_t>(copies));
    for (int i = 0; i < copies; ++i) weights.push_back(rig.Random(kBF16, {outputs, inputs}, Scale(inputs)));
    const View x = rig.Random(kF32, {t, inputs});
    const View out = rig.Zeros(kF32, {t, outputs});
    const Spread us = rig.TimeEachUs(
        copies, [&](int i) { rig.ops().Linear(out, x, weights[static_cast<size_t>(i)], ConstView(), false); },
        options_.seconds);
    JsonLine line;
    line.Text("kernel", name).Text("shape", shape.name).Integer("tokens", t);
    Print(std::move(line), us, static_cast<double>(outputs * inputs * 2),
          static_cast<double>(2 * t * outputs * inputs));
  }

  // The last `rows` rows of each of `sequences` sequences of `context` positions.
  void Attention(const BenchShape& shape, const char* name, int64_t sequences, int64_t rows, int64_t context) {
    const int64_t t = sequences * rows, h = shape.heads, g = shape.kv_heads, d = shape.head_dim;
    const int64_t max_blocks = (context + kBlockSize - 1) / kBlockSize;
    const int64_t num_blocks = sequences * max_blocks;
    VerbRig rig(Limits(shape, t, context));
    const int64_t cache_bytes = 2 * num_blocks * g * kBlockSize * d * 2;
    // What is not for the memory but for the products needs no cold cache.
    const int copies = rows > 1 ? 1 : Copies(cache_bytes, options_.cold_mib);
    std::vector<PagedKv> caches(static_cast<size_t>(copies));
    std::vector<int32_t> blocks(static_cast<size_t>(num_blocks)), row_sequence, positions;
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
    for (int64_t row = 0; row < t; ++row) {
      row_sequence.push_back(static_cast<int32_t>(row / rows));
      positions.push_back(static_cast<int32_t>(context - rows + row % rows));
    }
    const View block_tables = rig.Ints({sequences, max_blocks}, blocks);
    const View sequence_of_row = rig.Ints({t}, row_sequence), position_of_row = rig.Ints({t}, positions);
    for (PagedKv& kv : caches) {
      kv = {.k_cache = rig.Random(kBF16, {num_blocks, g, kBlockSize, d}),
            .v_cache = rig.Random(kBF16, {num_blocks, g, kBlockSize, d}),
            .block_tables = block_tables,
            .row_sequence = sequence_of_row,
            .positions = position_of_row};
    }
    const View q = rig.Random(kF32, {t, h, d});
    const View out = rig.Zeros(kF32, {t, h, d});
    const AttentionOptions attention = {.scale = Scale(d)};
    const Spread us = rig.TimeEachUs(
        copies, [&](int i) { rig.ops().PagedAttention(out, q, caches[static_cast<size_t>(i)], attention); },
        options_.seconds);
    double seen = 0.0;  // positions of all rows
    for (const int32_t position : positions) seen += position + 1.0;
    JsonLine line;
    line.Text("kernel", name).Text("shape", shape.name).Integer("sequences", sequences).Integer("tokens", t);
    line.Integer("context", context);
    Print(std::move(line), us, static_cast<double>(sequences * context * g * d * 2 * 2),
          4.0 * static_cast<double>(h * d) * seen);
  }

  void Sample(const BenchShape& shape, int64_t sequences, int32_t top_k) {
    VerbRig rig(Limits(shape, sequences, kBlockSize));
    const int copies = Copies(sequences * shape.vocab * 4, options_.cold_mib);
    constexpr float kDeviation = 3.0f;  // as far apart as a model's logits are
    std::vector<View> logits;
    for (int i = 0; i < copies; ++i) logits.push_back(rig.Random(kF32, {sequences, shape.vocab}, kDeviation));
    std::vector<int32_t> words;
    for (int64_t s = 0; s < sequences; ++s) {
      const SampleRow row = {.draw = static_cast<uint64_t>(s) << 45, .is_wanted = 1, .top_p = 0.9f, .top_k = top_k};
      const auto* const from = reinterpret_cast<const int32_t*>(&row);
      words.insert(words.end(), from, from + kSampleRowWords);
    }
    const View rows = rig.Ints({sequences, kSampleRowWords}, words);
    const View extras = rig.Zeros(DType::kI32, {1});
    const SampleOutputs out = {.tokens = rig.Zeros(DType::kI32, {sequences}),
                               .ranks = rig.Zeros(DType::kI32, {sequences}),
                               .logprobs = rig.Zeros(kF32, {sequences, 1 + kMaxAlternatives}),
                               .alternatives = rig.Zeros(DType::kI32, {sequences, kMaxAlternatives})};
    const Spread us = rig.TimeEachUs(
        copies, [&](int i) { rig.ops().Sample(out, logits[static_cast<size_t>(i)], rows, extras); }, options_.seconds);
    JsonLine line;
    line.Text("kernel", "sample")
        .Text("shape", shape.name)
        .Integer("sequences", sequences)
        .Integer("tokens", sequences);
    line.Integer("top_k", top_k);
    Print(std::move(line), us, static_cast<double>(sequences * shape.vocab * 4), 0.0);
  }

  // Of weights: their products with values of variance 1 have variance 1.
  static float Scale(int64_t inputs) { return 1.0f / std::sqrt(static_cast<float>(inputs)); }

  const KernelBenchOptions options_;
  const Ceilings ceilings_;
};

Ceilings CeilingsOf(const KernelBenchOptions& options) {
  if (options.calibration.empty()) return {};
  auto ceilings = ReadCeilings(options.calibration);
  if (ceilings.ok()) return *ceilings;
  std::fprintf(stderr, "gpu_kernel_bench: %s\n", std::string(ceilings.status().message()).c_str());
  std::exit(kExitFailed);
}

}  // namespace
}  // namespace cadre::gpu

int main(int argc, char** argv) {
  using cadre::gpu::kBenchShapes;
  cadre::gpu::KernelBenchOptions options;
  std::vector<std::string> names;
  names.reserve(std::size(kBenchShapes));
  for (const auto& shape : kBenchShapes) names.push_back(shape.name);
  CLI::App app("How fast the verbs are on a GPU; one JSON object to a line");
  app.add_option("--shapes", options.shapes, "Models")->delimiter(',')->check(CLI::IsMember(names));
  app.add_option("--kernels", options.kernels, "Of moe, q, o, head, decode, prefill, sample")
      ->delimiter(',')
      ->check(CLI::IsMember(options.kernels));
  app.add_option("--tokens", options.tokens, "Rows of moe, q, o and head (which stops at 128)")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 15));
  app.add_option("--sequences", options.sequences, "Rows of decode and sample")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024));
  app.add_option("--prompts", options.prompts, "Rows of prefill")->delimiter(',')->check(CLI::Range(1, 1 << 15));
  app.add_option("--context", options.context, "Positions of decode; one line has 32 times as many")
      ->check(CLI::Range(1, 1 << 15));
  app.add_option("--cold-mib", options.cold_mib, "What takes turns, so that no cache has it")
      ->check(CLI::Range(0, 8192));
  app.add_option("--seconds", options.seconds, "Replays of one line")->check(CLI::Range(0.0, 60.0));
  app.add_option("--calibration", options.calibration, "What gpu_calibrate printed: for bound_us and share");
  CLI11_PARSE(app, argc, argv);
  const cadre::Ceilings ceilings = cadre::gpu::CeilingsOf(options);
  const std::string gpu = cadre::gpu::RequireGpu(argv[0]);
  cadre::gpu::JsonLine().Text("gpu", gpu).Integer("cold_mib", options.cold_mib).Print();
  cadre::gpu::KernelBench bench(options, ceilings);
  for (const auto& shape : kBenchShapes) {
    if (std::find(options.shapes.begin(), options.shapes.end(), shape.name) != options.shapes.end()) bench.Run(shape);
  }
  return 0;
}
