// GB/s and GFLOP/s of the verbs that matter, beside the read bandwidth that the same threads reach in the same run.
//
//   kernel_bench --benchmark_filter=ExpertFfn --benchmark_min_time=1
//
// CADRE_BENCH_THREADS and CADRE_BENCH_ISA ("portable", "avx512-bf16", ...) choose the device; by default all CPUs and
// the best instruction set. Weights are cycled through at least 256 MiB of copies, so that none is found in a cache.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/compute_pool.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/host_limits.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace cadre {
namespace {

constexpr size_t kColdBytes = size_t{256} << 20;
constexpr int64_t kMaxTokens = 512;
constexpr int64_t kMaxPositions = 4096;

int NumThreads() {
  const char* const threads = std::getenv("CADRE_BENCH_THREADS");
  return threads == nullptr ? UsableCpus() : std::max(1, std::atoi(threads));
}

CpuIsa BenchIsa() {
  const char* const name = std::getenv("CADRE_BENCH_ISA");
  for (const CpuIsa isa : SupportedCpuIsas()) {
    if (name != nullptr && CpuIsaName(isa) == name) return isa;
  }
  CADRE_CHECK(name == nullptr);
  return SupportedCpuIsas().back();
}

Device& BenchDevice() {
  static const std::unique_ptr<Device> device = [] {
    auto created = CreateCpuDevice({.num_threads = NumThreads(), .isa = BenchIsa()});
    CADRE_CHECK(created.ok());
    const OpsLimits limits = {.max_tokens = kMaxTokens,
                              .hidden_size = 2048,
                              .max_linear_inputs = 2048,
                              .num_heads = 32,
                              .head_dim = 128,
                              .max_positions = kMaxPositions,
                              .num_experts = 64,
                              .top_k = 8,
                              .max_ffn_size = 1024};
    CADRE_CHECK((*created)->ops().Reserve(limits).ok());
    return *std::move(created);
  }();
  return *device;
}

DeviceBuffer Allocate(size_t bytes) {
  auto buffer = BenchDevice().Allocate(bytes);
  CADRE_CHECK(buffer.ok());
  return *std::move(buffer);
}

// Small values without a random generator's cost: every bit pattern is a float of about 2^-6, positive or negative, as
// bfloat16 and as float32, so that scales of quantized weights are, too.
void FillWeights(const DeviceBuffer& buffer) {
  uint32_t state = 12345;
  auto* const to = reinterpret_cast<uint16_t*>(buffer.data());
  for (size_t i = 0; i < buffer.size_bytes() / 2; ++i) {
    state = state * 1664525u + 1013904223u;
    to[i] = static_cast<uint16_t>((state & 0x80000000u) >> 16 | 0x3C00u | ((state >> 8) & 0xFFu));
  }
}

void FillF32(View view) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < view.num_elements(); ++i) view.data<float>()[i] = normal(random);
}

void SetRates(benchmark::State& state, double bytes, double flops) {
  const double iterations = static_cast<double>(state.iterations());
  state.counters["GB/s"] = benchmark::Counter(bytes * iterations * 1e-9, benchmark::Counter::kIsRate);
  state.counters["GFLOP/s"] = benchmark::Counter(flops * iterations * 1e-9, benchmark::Counter::kIsRate);
}

// All threads read 512 MiB, each eight streams side by side.
void ReadBandwidth(benchmark::State& state) {
  static const DeviceBuffer buffer = [] {
    DeviceBuffer memory = Allocate(size_t{512} << 20);
    std::memset(memory.data(), 1, memory.size_bytes());
    return memory;
  }();
  ComputePool pool(NumThreads());
  constexpr int64_t kTaskWords = (1 << 20) / 8;
  const auto* const words = reinterpret_cast<const uint64_t*>(buffer.data());
  const int64_t num_tasks = static_cast<int64_t>(buffer.size_bytes()) / 8 / kTaskWords;
  std::vector<uint64_t> sums(static_cast<size_t>(num_tasks));
  for (auto _ : state) {
    pool.ParallelFor(num_tasks, [&](int64_t task, int) {
      const uint64_t* const from = words + task * kTaskWords;
      constexpr int64_t kStreamWords = kTaskWords / 8;
      uint64_t sum = 0;
      for (int64_t i = 0; i < kStreamWords; i += 8) {
        for (int64_t s = 0; s < 8; ++s) {
          for (int64_t j = 0; j < 8; ++j) sum ^= from[s * kStreamWords + i + j];
        }
      }
      sums[static_cast<size_t>(task)] = sum;
    });
    benchmark::DoNotOptimize(sums.data());
  }
  SetRates(state, static_cast<double>(buffer.size_bytes()), 0.0);
}
BENCHMARK(ReadBandwidth)->UseRealTime()->Unit(benchmark::kMillisecond);

// Arguments: T, N, K.
template <DType kType>
void Linear(benchmark::State& state) {
  const int64_t t = state.range(0), n = state.range(1), k = state.range(2);
  const auto weight_bytes = static_cast<size_t>(SizeBytes(kType, {n, k}));
  const size_t copies = (kColdBytes + weight_bytes - 1) / weight_bytes;
  const DeviceBuffer weights = Allocate(copies * weight_bytes);
  FillWeights(weights);
  const DeviceBuffer x_buffer = Allocate(static_cast<size_t>(t * k) * 4);
  const DeviceBuffer out_buffer = Allocate(static_cast<size_t>(t * n) * 4);
  const View x = x_buffer.view(DType::kF32, {t, k});
  const View out = out_buffer.view(DType::kF32, {t, n});
  FillF32(x);
  size_t copy = 0;
  BenchDevice().ops().Linear(out, x, weights.view(kType, {n, k}), ConstView(), false);  // first touch
  for (auto _ : state) {
    BenchDevice().ops().Linear(out, x, weights.view(kType, {n, k}, copy * weight_bytes), ConstView(), false);
    copy = (copy + 1) % copies;
  }
  SetRates(state, static_cast<double>(weight_bytes), 2.0 * static_cast<double>(t * n * k));
}

void LinearShapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "N", "K"})
      ->ArgsProduct({{1, 4, 16, 64, 512}, {2048}, {2048}})
      ->ArgsProduct({{1, 4, 16, 64, 512}, {512}, {512}})
      ->Args({1, 50304, 2048})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}
BENCHMARK(Linear<DType::kBF16>)->Name("Linear")->Apply(LinearShapes);
BENCHMARK(Linear<DType::kQ8>)->Name("LinearInt8")->Apply(LinearShapes);
BENCHMARK(Linear<DType::kQ4>)->Name("LinearInt4")->Apply(LinearShapes);

// Arguments: T, D, F, E, K. GB/s counts the experts that have work.
template <DType kType>
void ExpertFfn(benchmark::State& state) {
  const int64_t t = state.range(0), d = state.range(1), f = state.range(2), e = state.range(3), k = state.range(4);
  const auto in_bytes = static_cast<size_t>(SizeBytes(kType, {f, d}));
  const auto expert_bytes = 2 * in_bytes + static_cast<size_t>(SizeBytes(kType, {d, f}));
  const size_t layer_bytes = static_cast<size_t>(e) * expert_bytes;
  const size_t copies = (kColdBytes + layer_bytes - 1) / layer_bytes;
  const DeviceBuffer weights = Allocate(copies * layer_bytes);
  FillWeights(weights);
  std::vector<std::vector<MlpWeights>> layers(copies);
  size_t offset = 0;
  for (std::vector<MlpWeights>& layer : layers) {
    for (int64_t i = 0; i < e; ++i, offset += expert_bytes) {
      layer.push_back({weights.view(kType, {f, d}, offset), weights.view(kType, {f, d}, offset + in_bytes),
                       weights.view(kType, {d, f}, offset + 2 * in_bytes)});
    }
  }
  const DeviceBuffer x_buffer = Allocate(static_cast<size_t>(t * d) * 4);
  const DeviceBuffer y_buffer = Allocate(static_cast<size_t>(t * k * d) * 4);
  const DeviceBuffer ids_buffer = Allocate(static_cast<size_t>(t * k) * 4);
  const DeviceBuffer order_buffer = Allocate(static_cast<size_t>(t * k) * 4);
  const DeviceBuffer offsets_buffer = Allocate(static_cast<size_t>(e + 1) * 4);
  const View x = x_buffer.view(DType::kF32, {t, d});
  const View ids = ids_buffer.view(DType::kI32, {t, k});
  const View order = order_buffer.view(DType::kI32, {t * k});
  const View offsets = offsets_buffer.view(DType::kI32, {e + 1});
  FillF32(x);
  std::mt19937 random(3);
  std::vector<int32_t> experts(static_cast<size_t>(e));
  std::iota(experts.begin(), experts.end(), 0);
  for (int64_t row = 0; row < t; ++row) {
    std::shuffle(experts.begin(), experts.end(), random);
    std::copy(experts.begin(), experts.begin() + k, ids.data<int32_t>() + row * k);
  }
  Ops& ops = BenchDevice().ops();
  ops.GroupByExpert(order, offsets, ids);
  int64_t num_used = 0;
  for (int64_t i = 0; i < e; ++i) num_used += offsets.data<int32_t>()[i + 1] > offsets.data<int32_t>()[i] ? 1 : 0;
  const View y = y_buffer.view(DType::kF32, {t * k, d});
  ops.ExpertFfn(y, x, order, offsets, layers[0]);  // first touch
  size_t layer = 0;
  for (auto _ : state) {
    ops.ExpertFfn(y, x, order, offsets, layers[layer]);
    layer = (layer + 1) % copies;
  }
  SetRates(state, static_cast<double>(num_used) * static_cast<double>(expert_bytes),
           6.0 * static_cast<double>(t * k * d * f));
}

void ExpertFfnShapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "D", "F", "E", "K"})
      ->ArgsProduct({{1, 4, 16, 64, 512}, {512}, {512}, {16}, {4}})
      ->ArgsProduct({{1, 4, 16, 64, 512}, {2048}, {1024}, {64}, {8}})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}
BENCHMARK(ExpertFfn<DType::kBF16>)->Name("ExpertFfn")->Apply(ExpertFfnShapes);
BENCHMARK(ExpertFfn<DType::kQ8>)->Name("ExpertFfnInt8")->Apply(ExpertFfnShapes);
BENCHMARK(ExpertFfn<DType::kQ4>)->Name("ExpertFfnInt4")->Apply(ExpertFfnShapes);

// Arguments: rows T of one sequence that end at position P - 1, P, H, G, d. GB/s counts keys and values once.
void PagedAttention(benchmark::State& state) {
  const int64_t t = state.range(0), p = state.range(1), h = state.range(2), g = state.range(3), d = state.range(4);
  constexpr int64_t kBlockSize = 16;
  const int64_t num_blocks = p / kBlockSize;
  const size_t cache_bytes = static_cast<size_t>(p * g * d) * 2;
  const DeviceBuffer k_buffer = Allocate(cache_bytes);
  const DeviceBuffer v_buffer = Allocate(cache_bytes);
  FillWeights(k_buffer);
  FillWeights(v_buffer);
  const DeviceBuffer q_buffer = Allocate(static_cast<size_t>(t * h * d) * 4);
  const DeviceBuffer out_buffer = Allocate(static_cast<size_t>(t * h * d) * 4);
  const DeviceBuffer table_buffer = Allocate(static_cast<size_t>(num_blocks) * 4);
  const DeviceBuffer sequence_buffer = Allocate(static_cast<size_t>(t) * 4);
  const DeviceBuffer position_buffer = Allocate(static_cast<size_t>(t) * 4);
  const View q = q_buffer.view(DType::kF32, {t, h, d});
  FillF32(q);
  const View table = table_buffer.view(DType::kI32, {1, num_blocks});
  const View positions = position_buffer.view(DType::kI32, {t});
  std::iota(table.data<int32_t>(), table.data<int32_t>() + num_blocks, 0);
  std::iota(positions.data<int32_t>(), positions.data<int32_t>() + t, static_cast<int32_t>(p - t));
  const PagedKv kv = {k_buffer.view(DType::kBF16, {num_blocks, g, kBlockSize, d}),
                      v_buffer.view(DType::kBF16, {num_blocks, g, kBlockSize, d}), table,
                      sequence_buffer.view(DType::kI32, {t}), positions};
  const View out = out_buffer.view(DType::kF32, {t, h, d});
  BenchDevice().ops().PagedAttention(out, q, kv, {.scale = 0.088f});  // first touch
  for (auto _ : state) {
    BenchDevice().ops().PagedAttention(out, q, kv, {.scale = 0.088f});
  }
  const double visible = static_cast<double>(t) * (static_cast<double>(p) - static_cast<double>(t - 1) / 2.0);
  SetRates(state, 2.0 * static_cast<double>(cache_bytes), 4.0 * visible * static_cast<double>(h * d));
}
BENCHMARK(PagedAttention)
    ->ArgNames({"T", "P", "H", "G", "d"})
    ->Args({1, 512, 16, 16, 128})
    ->Args({1, 4096, 16, 16, 128})
    ->Args({1, 4096, 32, 8, 128})
    ->Args({512, 512, 16, 16, 128})
    ->Args({512, 512, 8, 4, 64})
    ->Args({512, 4096, 16, 16, 128})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace cadre

BENCHMARK_MAIN();
