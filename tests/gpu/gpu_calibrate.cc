// What this GPU and its link give at best: the ceilings that everything else is divided by. One JSON object to a line:
//
//   {"name": "read", "value": 3210.5, "unit": "GB/s", "low": ..., "high": ..., "samples": 20, ...}
//
//   read           the best read-only stream over a few GB, far beyond the L2 cache
//   copy           device to device, bytes read and bytes written counted
//   dense          cuBLAS, [8192, 8192] x [8192, 8192] in bfloat16, random values
//   h2d, d2h       between pinned (or pageable) memory of the host and the device
//   launch, node   an empty kernel, launched one by one, and as one of many dependent nodes of a graph
//   replay         a graph of a single empty kernel
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "tests/gpu/cublas.h"
#include "tests/gpu/gpu_bench.h"
#include "tests/gpu/gpu_kernels.h"

namespace cadre::gpu {
namespace {

struct CalibrateOptions {
  int64_t stream_mib = 4096;  // read and copied
  int64_t link_mib = 256;     // sent to the device at once
  int dense_size = 8192;
  int num_launches = 1000;
  int samples = 20;
};

class Calibration {
 public:
  explicit Calibration(const CalibrateOptions& options) : options_(options) {}

  void Run() {
    MeasureRead();
    MeasureCopy();
    MeasureLink();
    MeasureLaunches();
    MeasureDense();
  }

 private:
  static JsonLine Line(const char* name, const char* unit, const Spread& spread) {
    JsonLine line;
    line.Text("name", name).Number("value", spread.median).Text("unit", unit);
    line.Number("low", spread.low).Number("high", spread.high).Integer("samples", spread.count);
    return line;
  }
  // From microseconds to `work` (bytes, operations) per second, in units of `unit`.
  static Spread Rate(const Spread& us, double work, double unit) {
    const auto rate = [&](double t) { return work / (t * 1e-6) / unit; };
    return {.median = rate(us.median), .low = rate(us.high), .high = rate(us.low), .count = us.count};
  }

  void MeasureRead() {
    const Memory memory(static_cast<size_t>(options_.stream_mib) << 20);
    const Memory sink(sizeof(uint32_t));
    FillRandom(memory);
    int num_multiprocessors = 0;
    OrDie(cudaDeviceGetAttribute(&num_multiprocessors, cudaDevAttrMultiProcessorCount, 0), "reading an attribute");
    Spread best;
    int best_blocks = 0;
    for (const int per_multiprocessor : {1, 2, 4, 8, 16, 32}) {
      const int blocks = per_multiprocessor * num_multiprocessors;
      const Spread us = TimeUs(stream_, options_.samples, [&] {
        OrDie(LaunchRead(stream_.get(), memory.data(), memory.size_bytes(), static_cast<unsigned>(blocks),
                         reinterpret_cast<uint32_t*>(sink.data())),
              "reading");
      });
      const Spread rate = Rate(us, static_cast<double>(memory.size_bytes()), 1e9);
      if (rate.median <= best.median) continue;
      best = rate;
      best_blocks = blocks;
    }
    Line("read", "GB/s", best).Integer("mib", options_.stream_mib).Integer("blocks", best_blocks).Print();
  }

  void MeasureCopy() {
    const Memory memory(static_cast<size_t>(options_.stream_mib) << 20);
    FillRandom(memory);
    const size_t half = memory.size_bytes() / 2;
    const Spread us = TimeUs(stream_, options_.samples, [&] {
      OrDie(cudaMemcpyAsync(memory.data() + half, memory.data(), half, cudaMemcpyDeviceToDevice, stream_.get()),
            "copying");
    });
    Line("copy", "GB/s", Rate(us, 2.0 * static_cast<double>(half), 1e9)).Integer("mib", options_.stream_mib).Print();
  }

  void MeasureLink() {
    const size_t bytes = static_cast<size_t>(options_.link_mib) << 20;
    const Memory memory(bytes);
    void* pinned = nullptr;
    OrDie(cudaMallocHost(&pinned, bytes), "allocating pinned memory");
    std::fill_n(static_cast<std::byte*>(pinned), bytes, std::byte{1});
    std::vector<std::byte> pageable(bytes, std::byte{1});
    // One expert of Qwen3-30B-A3B, which is what an expert cache would send.
    const size_t expert_bytes = std::min<size_t>(bytes, size_t{3} * 768 * 2048 * 2);
    Transfer("h2d_pinned", memory.data(), pinned, bytes, cudaMemcpyHostToDevice);
    Transfer("h2d_pinned_expert", memory.data(), pinned, expert_bytes, cudaMemcpyHostToDevice);
    Transfer("h2d_pageable", memory.data(), pageable.data(), bytes, cudaMemcpyHostToDevice);
    Transfer("d2h_pinned", pinned, memory.data(), bytes, cudaMemcpyDeviceToHost);
    OrDie(cudaFreeHost(pinned), "freeing pinned memory");
  }
  void Transfer(const char* name, void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    const Spread us = TimeUs(stream_, options_.samples, [&] {
      OrDie(cudaMemcpyAsync(to, from, bytes, kind, stream_.get()), "copying over the link");
    });
    Line(name, "GB/s", Rate(us, static_cast<double>(bytes), 1e9)).Integer("bytes", static_cast<int64_t>(bytes)).Print();
  }

  void MeasureLaunches() {
    const auto order = [&](int count) {
      for (int i = 0; i < count; ++i) OrDie(LaunchEmpty(stream_.get()), "launching");
    };
    const int count = options_.num_launches;
    PrintEach("launch", TimeUs(stream_, options_.samples, [&] { order(count); }), count);
    const Graph many(stream_, [&] { order(count); });
    PrintEach("node", TimeUs(stream_, options_.samples, [&] { many.Replay(stream_); }), count);
    const Graph one(stream_, [&] { order(1); });
    PrintEach("replay", TimeUs(stream_, options_.samples, [&] { one.Replay(stream_); }), 1);
  }
  void PrintEach(const char* name, const Spread& us, int count) {
    Line(name, "us", {us.median / count, us.low / count, us.high / count, us.count}).Integer("of", count).Print();
  }

  void MeasureDense() {
    if (options_.dense_size == 0) return;
    auto cublas = Cublas::Load();
    if (absl::IsNotFound(cublas.status())) {
      JsonLine().Text("name", "dense").Text("skipped", std::string(cublas.status().message())).Print();
      return;
    }
    OkOrDie(cublas.status());
    const int n = options_.dense_size;
    const Memory memory(size_t{3} * static_cast<size_t>(n) * static_cast<size_t>(n) * sizeof(BFloat16));
    FillRandom(memory);
    auto* const a = reinterpret_cast<BFloat16*>(memory.data());
    const int64_t size = static_cast<int64_t>(n) * n;
    const Spread us = TimeUs(stream_, options_.samples,
                             [&] { OkOrDie((*cublas)->Multiply(stream_.get(), a + 2 * size, a, a + size, n)); });
    Line("dense", "TFLOP/s", Rate(us, 2.0 * std::pow(n, 3.0), 1e12))
        .Integer("n", n)
        .Text("library", (*cublas)->library())
        .Print();
  }

  static void OkOrDie(const absl::Status& status) {
    if (status.ok()) return;
    std::fprintf(stderr, "gpu_calibrate: %s\n", status.ToString().c_str());
    std::exit(kExitFailed);
  }

  void FillRandom(const Memory& memory) {
    OrDie(LaunchRandom(stream_.get(), reinterpret_cast<BFloat16*>(memory.data()),
                       static_cast<int64_t>(memory.size_bytes() / sizeof(BFloat16)), 0.0f, 1.0f, 1),
          "filling memory");
    stream_.Wait();
  }

  const CalibrateOptions options_;
  Stream stream_;
};

}  // namespace
}  // namespace cadre::gpu

int main(int argc, char** argv) {
  cadre::gpu::CalibrateOptions options;
  CLI::App app("What this GPU gives at best: bandwidth, products, link, launches; one JSON object to a line");
  app.add_option("--stream-mib", options.stream_mib, "Memory that is read and copied")->check(CLI::Range(1, 1 << 16));
  app.add_option("--link-mib", options.link_mib, "Memory that is sent at once")->check(CLI::Range(1, 1 << 14));
  app.add_option("--dense-size", options.dense_size, "Rows and columns of the product; 0: none")
      ->check(CLI::Range(0, 1 << 15));
  app.add_option("--launches", options.num_launches, "Empty kernels in a row")->check(CLI::Range(1, 100000));
  app.add_option("--samples", options.samples, "Samples of each figure; the median is told")
      ->check(CLI::Range(1, 1000));
  CLI11_PARSE(app, argc, argv);
  const std::string gpu = cadre::gpu::RequireGpu(argv[0]);
  cadre::gpu::JsonLine().Text("name", "gpu").Text("is", gpu).Print();
  cadre::gpu::Calibration(options).Run();
  return 0;
}
