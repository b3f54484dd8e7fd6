// Decoding with fewer experts in memory than the model has: hit ratio and tokens per second by cache size, policy and
// batch size, beside what the hit ratio and the disk allow. One JSON object a line.
//
//   expert_cache_bench --model DIR [--shares 0.25,0.5,0.75,1] [--policies next-use,lru] [--batches 1,8,32]
//
// The bound of a step is the longer one of two times: that of a step with all experts in memory (measured here, share
// 1), and that of its missing bytes at the rate at which as many threads read experts, and do nothing else (measured
// here, too). The policy `static` is no cache: the most used experts of the warm-up stay, all others pass through.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/experts/expert_ranking.h"
#include "engine/model/model_config.h"
#include "engine/model/transformer_runner.h"
#include "engine/model/weights.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/bench/batch_maker.h"

namespace cadre {
namespace {

using Seconds = std::chrono::duration<double>;

constexpr char kStatic[] = "static";

struct CacheBenchOptions {
  std::string model_dir;
  std::vector<double> shares = {1.0, 0.25, 0.5, 0.75};
  std::vector<std::string> policies = {"next-use"};
  std::vector<int> batches = {1, 8, 32};
  std::vector<std::string> prefetch = {"on"};
  std::string read = "direct";
  double skew = 1.0;
  int read_threads = 4;
  int threads = 0;
  int warm_up_steps = 48;
  int steps = 64;
};

template <typename T>
T OrFail(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "expert_cache_bench: %s\n", value.status().ToString().c_str());
  std::exit(1);
}

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return Seconds(std::chrono::steady_clock::now() - start).count();
}

class CacheBench {
 public:
  explicit CacheBench(const CacheBenchOptions& options)
      : options_(options),
        config_(OrFail(LoadModelConfig(options.model_dir))),
        device_(OrFail(CreateCpuDevice({.num_threads = options.threads}))) {
    WeightsOptions weights;
    weights.reads_experts_directly = options.read == "direct";
    checkpoint_ = OrFail(Checkpoint::Open(options.model_dir, config_, weights));
    max_len_ = options.warm_up_steps + options.steps + 1;
  }

  void Run() {
    disk_bytes_per_second_ = MeasureDisk();
    for (const double share : options_.shares) {
      for (const std::string& policy : options_.policies) {
        for (const std::string& prefetch : options_.prefetch) {
          Measure(share, policy, prefetch == "on");
          if (share >= 1.0) break;
        }
        if (share >= 1.0) break;
      }
    }
  }

 private:
  struct Work {
    double seconds = 0.0;
    ExpertCacheReport report;
  };

  const CheckpointSummary& summary() const { return checkpoint_->summary(); }

  // Random experts, one after the other on each thread, for two seconds.
  double MeasureDisk() {
    const Weights weights = OrFail(checkpoint_->Load(*device_, ExpertPlace::kCheckpoint));
    const ExpertSource& source = *weights.expert_source;
    const auto num_experts = static_cast<ExpertId>(config_.num_moe_layers() * config_.num_experts);
    std::atomic<int64_t> bytes = 0;
    std::vector<std::thread> threads;
    threads.reserve(static_cast<size_t>(options_.read_threads));
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < options_.read_threads; ++i) {
      threads.emplace_back([&, i] {
        std::mt19937_64 rng(static_cast<uint64_t>(i));
        std::vector<std::byte> to(static_cast<size_t>(source.expert_bytes()));
        while (SecondsSince(start) < 2.0) {
          const auto expert = static_cast<ExpertId>(rng() % static_cast<uint64_t>(num_experts));
          if (!source.Read(expert, to, [] { return absl::OkStatus(); }).ok()) std::exit(1);
          bytes += source.expert_bytes();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    const double rate = static_cast<double>(bytes) / SecondsSince(start);
    std::printf("{\"phase\":\"disk\",\"threads\":%d,\"read\":\"%s\",\"gb_per_second\":%.3f}\n", options_.read_threads,
                options_.read.c_str(), rate / 1e9);
    std::fflush(stdout);
    return rate;
  }

  std::unique_ptr<ModelRunner> MakeRunner(double share, const std::string& policy, bool prefetches) {
    RunnerOptions runner;
    runner.max_model_len = max_len_;
    runner.max_num_seqs = *std::ranges::max_element(options_.batches);
    runner.max_num_batched_tokens = runner.max_num_seqs;
    runner.kv_cache_bytes = int64_t{1} << 30;
    runner.expert_cache_bytes = static_cast<int64_t>(share * static_cast<double>(summary().expert_bytes));
    runner.expert_policy = FindEvictionPolicy(policy).value();
    runner.expert_read_threads = options_.read_threads;
    runner.expert_ahead_threads = prefetches ? options_.read_threads : 0;
    const MemoryPlan plan = OrFail(PlanMemory(config_, summary(), runner, *device_, device_->ops()));
    Weights weights = OrFail(checkpoint_->Load(*device_, plan.expert_place()));
    return OrFail(CreateTransformerRunner(config_, std::move(weights), plan, runner, device_.get()));
  }

  // The experts that were used most in the warm-up, but for a few slots that the others pass through.
  void KeepMostUsed(ModelRunner& runner, std::span<const int64_t> assignments) {
    const int64_t num_slots = runner.expert_cache()->num_slots;
    const int64_t num_free = std::max<int64_t>(num_slots / 16, int64_t{2} * options_.read_threads);
    runner.KeepExperts(ChooseKept(assignments, config_.num_experts, num_slots - num_free, LayerShare::kGlobal));
    while (runner.expert_cache()->awaited > 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      runner.PlaceExperts();
    }
  }

  Work Decode(ModelRunner& runner, int batch, bool is_static) {
    BatchMaker maker = OrFail(BatchMaker::Create(runner.limits(), batch, max_len_, 7, options_.skew));
    ForwardResult result;
    Work work;
    ExpertCacheReport before;
    std::vector<int64_t> assignments(static_cast<size_t>(config_.num_moe_layers() * config_.num_experts));
    if (is_static) runner.KeepExperts({});
    for (int step = 0; step < options_.warm_up_steps + options_.steps; ++step) {
      const ForwardBatch rows = maker.Rows(step, 1);
      if (step == options_.warm_up_steps && is_static) KeepMostUsed(runner, assignments);
      if (step == options_.warm_up_steps) before = runner.expert_cache().value_or(ExpertCacheReport());
      const auto start = std::chrono::steady_clock::now();
      if (!runner.Forward(rows, &result).ok() || !result.faults.empty()) std::exit(1);
      if (step >= options_.warm_up_steps) work.seconds += SecondsSince(start);
      std::ranges::transform(assignments, result.routing.assignments, assignments.begin(), std::plus());
    }
    work.report = runner.expert_cache().value_or(ExpertCacheReport());
    work.report.slots.hits -= before.slots.hits;
    work.report.slots.misses -= before.slots.misses;
    work.report.slots.prefetch_loads -= before.slots.prefetch_loads;
    work.report.slots.prefetches_used -= before.slots.prefetches_used;
    work.report.slots.prefetches_late -= before.slots.prefetches_late;
    work.report.loads.bytes -= before.loads.bytes;
    work.report.wait_time -= before.wait_time;
    return work;
  }

  void Measure(double share, const std::string& policy, bool prefetches) {
    const bool is_static = policy == kStatic && share < 1.0;
    const std::unique_ptr<ModelRunner> runner = MakeRunner(share, policy == kStatic ? "lru" : policy, prefetches);
    for (const int batch : options_.batches) {
      const Work work = Decode(*runner, batch, is_static);
      if (share >= 1.0) resident_seconds_[batch] = work.seconds;
      const SlotCounters& slots = work.report.slots;
      const int64_t lookups = slots.hits + slots.misses;
      const double hit_ratio = lookups > 0 ? static_cast<double>(slots.hits) / static_cast<double>(lookups) : 1.0;
      // What was needed and not there at the start of its layer, or only because it had been read ahead.
      const int64_t read = slots.misses + slots.prefetches_used;
      const double disk_seconds = static_cast<double>(read * summary().one_expert_bytes) / disk_bytes_per_second_;
      const double bound = std::max(disk_seconds, resident_seconds_[batch]);
      const double rate = batch * options_.steps / work.seconds;
      std::printf(
          "{\"phase\":\"decode\",\"share\":%.3f,\"policy\":\"%s\",\"prefetch\":%s,\"batch\":%d,"
          "\"tokens_per_second\":%.2f,\"step_ms\":%.3f,\"hit_ratio\":%.4f,\"mb_per_token\":%.2f,"
          "\"wait_share\":%.4f,\"prefetched\":%lld,\"used\":%lld,\"late\":%lld,\"of_bound\":%.3f,\"of_sum\":%.3f}\n",
          share, policy.c_str(), prefetches ? "true" : "false", batch, rate, work.seconds * 1e3 / options_.steps,
          hit_ratio, static_cast<double>(work.report.loads.bytes) / 1e6 / (batch * options_.steps),
          absl::ToDoubleSeconds(work.report.wait_time) / work.seconds, static_cast<long long>(slots.prefetch_loads),
          static_cast<long long>(slots.prefetches_used), static_cast<long long>(slots.prefetches_late),
          bound / work.seconds, (disk_seconds + resident_seconds_[batch]) / work.seconds);
      std::fflush(stdout);
    }
  }

  const CacheBenchOptions options_;
  const ModelConfig config_;
  const std::unique_ptr<Device> device_;
  std::unique_ptr<Checkpoint> checkpoint_;
  int max_len_ = 0;
  double disk_bytes_per_second_ = 0.0;
  std::map<int, double> resident_seconds_;  // by batch size
};

}  // namespace
}  // namespace cadre

int main(int argc, char** argv) {
  cadre::CacheBenchOptions options;
  CLI::App app("Decoding with a part of the experts in memory");
  app.add_option("--model", options.model_dir, "Checkpoint folder")->required();
  app.add_option("--shares", options.shares, "Shares of the experts that are in memory; 1 first, for the bound")
      ->delimiter(',');
  app.add_option("--policies", options.policies, "lru, lfu, lfru, least-stale, next-use, static")->delimiter(',');
  app.add_option("--batches", options.batches, "Decode batch sizes")->delimiter(',');
  app.add_option("--prefetch", options.prefetch, "on, off")->delimiter(',');
  app.add_option("--read", options.read, "buffered or direct")->check(CLI::IsMember({"buffered", "direct"}));
  app.add_option("--skew", options.skew, "Of token frequencies: 0 uniform, 1 as in natural language");
  app.add_option("--read-threads", options.read_threads, "Experts that are read at a time");
  app.add_option("--threads", options.threads, "Compute threads; 0: all CPUs");
  app.add_option("--warm-up-steps", options.warm_up_steps, "Steps before the clock starts");
  app.add_option("--steps", options.steps, "Steps that are timed");
  CLI11_PARSE(app, argc, argv);
  cadre::CacheBench(options).Run();
  return 0;
}
