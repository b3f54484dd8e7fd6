// Decoding with fewer experts in memory than the model has: hit ratio and tokens per second by cache size, policy and
// batch size, beside what the hit ratio and the disk allow. One JSON object a line.
//
//   expert_cache_bench --model DIR [--shares 0.25,0.5,0.75,1] [--policies next-use,lru] [--batches 1,8,32]
//
// All policies of a size are there at a time and take their steps in turn. The bound of a step is the longer one of two
// times: that of a step with all experts in memory (measured here, share 1, first), and that of its missing bytes at
// the rate at which as many threads read experts, and do nothing else (measured here, too, between the steps). The
// policy `static` is no cache: the most used experts of the warm-up stay, all others pass through.
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
    for (const double share : options_.shares) {
      std::vector<Contender> contenders = MakeContenders(share);
      for (const int batch : options_.batches) Measure(batch, share, contenders);
    }
  }

 private:
  // One of those that decode the same batches, step by step in turn: what the disk and the machine do otherwise is the
  // same for all of them.
  struct Contender {
    std::string policy;
    bool is_static = false;
    bool prefetches = false;
    std::unique_ptr<ModelRunner> runner;
    std::vector<int64_t> assignments = {};  // of the steps so far, by expert
    ExpertCacheReport before = {};          // when the clock started
    double seconds = 0.0;                   // since then
  };

  // What reads alone have come to, between the steps.
  struct Disk {
    int64_t bytes = 0;
    double seconds = 0.0;
  };

  const CheckpointSummary& summary() const { return checkpoint_->summary(); }

  // Random experts, some on each thread.
  void ReadSome(const ExpertSource& source, Disk* disk) {
    constexpr int kReadsOfThread = 4;
    const auto num_experts = static_cast<ExpertId>(config_.num_moe_layers() * config_.num_experts);
    std::vector<std::thread> threads;
    threads.reserve(static_cast<size_t>(options_.read_threads));
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < options_.read_threads; ++i) {
      threads.emplace_back([&, seed = random_()] {
        std::mt19937_64 random(seed);
        std::vector<std::byte> to(static_cast<size_t>(source.expert_bytes()));
        for (int read = 0; read < kReadsOfThread; ++read) {
          const auto expert = static_cast<ExpertId>(random() % static_cast<uint64_t>(num_experts));
          if (!source.Read(expert, to, [] { return absl::OkStatus(); }).ok()) std::exit(1);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    disk->seconds += SecondsSince(start);
    disk->bytes += source.expert_bytes() * kReadsOfThread * options_.read_threads;
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

  std::vector<Contender> MakeContenders(double share) {
    std::vector<Contender> contenders;
    for (const std::string& policy : options_.policies) {
      for (const std::string& prefetch : options_.prefetch) {
        const bool is_static = policy == kStatic;
        const bool prefetches = prefetch == "on";
        contenders.push_back({.policy = policy,
                              .is_static = is_static,
                              .prefetches = prefetches,
                              .runner = MakeRunner(share, is_static ? "lru" : policy, prefetches)});
        if (share >= 1.0) return contenders;  // there is nothing to choose
      }
    }
    return contenders;
  }

  void Step(const ForwardBatch& rows, Contender& contender) {
    const auto start = std::chrono::steady_clock::now();
    if (!contender.runner->Forward(rows, &result_).ok() || !result_.faults.empty()) std::exit(1);
    contender.seconds += SecondsSince(start);
    std::ranges::transform(contender.assignments, result_.routing.assignments, contender.assignments.begin(),
                           std::plus());
  }

  void StartClock(bool has_cache, Contender& contender) {
    if (contender.is_static && has_cache) KeepMostUsed(*contender.runner, contender.assignments);
    contender.before = contender.runner->expert_cache().value_or(ExpertCacheReport());
    contender.seconds = 0.0;
  }

  void Measure(int batch, double share, std::vector<Contender>& contenders) {
    BatchMaker maker = OrFail(BatchMaker::Create(contenders[0].runner->limits(), batch, max_len_, 7, options_.skew));
    const Weights weights = OrFail(checkpoint_->Load(*device_, ExpertPlace::kCheckpoint));
    for (Contender& contender : contenders) {
      contender.assignments.assign(static_cast<size_t>(config_.num_moe_layers() * config_.num_experts), 0);
      if (contender.is_static && share < 1.0) contender.runner->KeepExperts({});
    }
    Disk disk;
    for (int step = 0; step < options_.warm_up_steps + options_.steps; ++step) {
      const ForwardBatch rows = maker.Rows(step, 1);
      for (size_t turn = 0; turn < contenders.size(); ++turn) {
        // Each is the first as often as any other: who comes behind may find in a cache below what was read before.
        Contender& contender = contenders[(static_cast<size_t>(step) + turn) % contenders.size()];
        if (step == options_.warm_up_steps) StartClock(share < 1.0, contender);
        Step(rows, contender);
      }
      if (share < 1.0 && step >= options_.warm_up_steps) ReadSome(*weights.expert_source, &disk);
    }
    if (share >= 1.0) resident_seconds_[batch] = contenders[0].seconds;
    for (const Contender& contender : contenders) Print(batch, share, disk, contender);
  }

  void Print(int batch, double share, const Disk& disk, const Contender& contender) {
    const ExpertCacheReport report = contender.runner->expert_cache().value_or(ExpertCacheReport());
    const ExpertCacheReport& before = contender.before;
    const int64_t hits = report.slots.hits - before.slots.hits;
    const int64_t misses = report.slots.misses - before.slots.misses;
    const int64_t used_ahead = report.slots.prefetches_used - before.slots.prefetches_used;
    const double hit_ratio = hits + misses > 0 ? static_cast<double>(hits) / static_cast<double>(hits + misses) : 1.0;
    const double bytes_per_second = disk.bytes > 0 ? static_cast<double>(disk.bytes) / disk.seconds : 0.0;
    // What was needed and not there at the start of its layer, or only because it had been read ahead.
    const auto read = static_cast<double>((misses + used_ahead) * summary().one_expert_bytes);
    const double disk_seconds = read > 0.0 ? read / bytes_per_second : 0.0;
    const double resident = resident_seconds_[batch];
    std::printf(
        "{\"phase\":\"decode\",\"share\":%.3f,\"policy\":\"%s\",\"prefetch\":%s,\"batch\":%d,"
        "\"tokens_per_second\":%.2f,\"step_ms\":%.3f,\"hit_ratio\":%.4f,\"mb_per_token\":%.2f,"
        "\"wait_share\":%.4f,\"prefetched\":%lld,\"used\":%lld,\"late\":%lld,\"disk_gb_per_second\":%.3f,"
        "\"of_bound\":%.3f,\"of_sum\":%.3f}\n",
        share, contender.policy.c_str(), contender.prefetches ? "true" : "false", batch,
        batch * options_.steps / contender.seconds, contender.seconds * 1e3 / options_.steps, hit_ratio,
        static_cast<double>(report.loads.bytes - before.loads.bytes) / 1e6 / (batch * options_.steps),
        absl::ToDoubleSeconds(report.wait_time - before.wait_time) / contender.seconds,
        static_cast<long long>(report.slots.prefetch_loads - before.slots.prefetch_loads),
        static_cast<long long>(used_ahead),
        static_cast<long long>(report.slots.prefetches_late - before.slots.prefetches_late), bytes_per_second / 1e9,
        std::max(disk_seconds, resident) / contender.seconds, (disk_seconds + resident) / contender.seconds);
    std::fflush(stdout);
  }

  const CacheBenchOptions options_;
  const ModelConfig config_;
  const std::unique_ptr<Device> device_;
  std::unique_ptr<Checkpoint> checkpoint_;
  int max_len_ = 0;
  std::mt19937_64 random_{1};
  ForwardResult result_;
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
