#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "tests/support/temp_dir.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

ParsedConfig Parse(std::vector<const char*> flags) {
  flags.insert(flags.begin(), "cadre-server");
  return ParseConfig(static_cast<int>(flags.size()), flags.data());
}

class ScopedEnv {
 public:
  ScopedEnv(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~ScopedEnv() { unsetenv(name_); }

 private:
  const char* const name_;
};

TEST(ConfigTest, Defaults) {
  const ServerConfig config = *Parse({"--model", "models/demo/"}).config;
  EXPECT_EQ(config.served_model_name, "demo");
  EXPECT_EQ(config.host, "127.0.0.1");
  EXPECT_EQ(config.port, 50051);
  EXPECT_EQ(config.metrics_port, 9464);
  EXPECT_EQ(config.metrics_host, "127.0.0.1");
  EXPECT_FALSE(config.weights.dtype.has_value());
  EXPECT_EQ(config.drain_timeout, absl::Seconds(30));
  EXPECT_EQ(config.max_connection_age, absl::InfiniteDuration());
  EXPECT_TRUE(config.reflection);
  EXPECT_EQ(config.prefix_cache, PrefixCacheScope::kTenant);
  EXPECT_TRUE(config.deadline_admission);
  EXPECT_EQ(config.max_queue_wait, absl::InfiniteDuration());
}

TEST(ConfigTest, TheStreamIntervalIsTheServersChoiceUnlessGiven) {
  EXPECT_FALSE(Parse({"--model=sim"}).config->stream_interval.has_value());
  EXPECT_FALSE(Parse({"--model=sim", "--stream-interval=auto"}).config->stream_interval.has_value());
  EXPECT_EQ(Parse({"--model=sim", "--stream-interval=0"}).config->stream_interval, absl::ZeroDuration());
  EXPECT_THAT(Parse({"--model=sim", "--stream-interval=soon"}).output, HasSubstr("soon"));
  EXPECT_THAT(Parse({"--model=sim", "--stream-interval=2s"}).output, HasSubstr("1s"));
}

TEST(ConfigTest, DeviceFlags) {
  EXPECT_EQ(Parse({"--model=sim"}).config->device, "auto");
  const ServerConfig config = *Parse({"--model=sim", "--device=cuda", "--gpu-memory-utilization=0.5"}).config;
  EXPECT_EQ(config.device, "cuda");
  EXPECT_EQ(config.gpu_memory_utilization, 0.5);
  EXPECT_FALSE(config.enforce_eager);
  EXPECT_TRUE(Parse({"--model=sim", "--enforce-eager"}).config->enforce_eager);
  EXPECT_TRUE(config.overlap_steps);
  EXPECT_FALSE(Parse({"--model=sim", "--overlap-steps=off"}).config->overlap_steps);
  EXPECT_THAT(Parse({"--model=sim", "--device=gpu"}).output, HasSubstr("gpu"));
  EXPECT_THAT(Parse({"--model=sim", "--gpu-memory-utilization=1.5"}).output, HasSubstr("1.5"));
}

TEST(ConfigTest, SchedulingFlags) {
  const ServerConfig shared =
      *Parse({"--model=sim", "--prefix-cache-scope=shared", "--deadline-admission=off", "--max-tenant-queue-share=0.25",
              "--max-prefill-chunk=64", "--priority-tokens=0", "--max-queue-wait=250ms", "--max-queue-prompt-tokens=5",
              "--max-queue-total-tokens=6"})
           .config;
  EXPECT_EQ(shared.prefix_cache, PrefixCacheScope::kShared);
  EXPECT_FALSE(shared.deadline_admission);
  EXPECT_EQ(shared.max_tenant_queue_share, 0.25);
  EXPECT_EQ(shared.max_prefill_chunk, 64);
  EXPECT_EQ(shared.priority_tokens, 0);
  EXPECT_EQ(shared.max_queue_wait, absl::Milliseconds(250));
  EXPECT_EQ(shared.max_queue_prompt_tokens, 5);
  EXPECT_EQ(shared.max_queue_total_tokens, 6);
  EXPECT_EQ(Parse({"--model=sim", "--prefix-cache=off", "--prefix-cache-scope=shared"}).config->prefix_cache,
            PrefixCacheScope::kOff);
}

TEST(ConfigTest, CapacityFlags) {
  const ServerConfig defaults = *Parse({"--model=sim"}).config;
  EXPECT_EQ(defaults.capacity, CapacityPolicy());
  EXPECT_TRUE(defaults.allow_capacity_override);
  EXPECT_EQ(Parse({"--model=sim", "--capacity-factor=1.25"}).config->capacity,
            (CapacityPolicy{.scope = CapacityScope::kRequest, .factor = 1.25}));
  const ServerConfig config = *Parse({"--model=sim", "--capacity-factor=2", "--capacity-scope=batch",
                                      "--capacity-overflow=reweight", "--capacity-min=4", "--capacity-override=refuse"})
                                   .config;
  EXPECT_EQ(config.capacity,
            (CapacityPolicy{
                .scope = CapacityScope::kBatch, .overflow = Overflow::kReweight, .factor = 2.0, .min_places = 4}));
  EXPECT_FALSE(config.allow_capacity_override);
  for (const char* const flag : {"--capacity-factor=-1", "--capacity-factor=1001", "--capacity-factor=nan",
                                 "--capacity-scope=all", "--capacity-group=0", "--capacity-min=-1"}) {
    EXPECT_EQ(Parse({"--model=sim", flag}).exit_code, 64) << flag;
  }
}

TEST(ConfigTest, CapacityFlagsWithoutEffectAreRefused) {
  for (const char* const flag :
       {"--capacity-min=1", "--capacity-scope=request", "--capacity-group=64", "--capacity-overflow=reroute"}) {
    const ParsedConfig parsed = Parse({"--model=sim", flag});
    EXPECT_EQ(parsed.exit_code, 64) << flag;
    const std::string name = std::string(flag).substr(0, std::string(flag).find('='));
    EXPECT_EQ(parsed.output, name + ": means nothing without --capacity-factor");
    EXPECT_EQ(Parse({"--model=sim", "--capacity-factor=0", flag}).exit_code, 64) << flag;
    EXPECT_EQ(Parse({"--model=sim", "--capacity-factor=1", flag}).exit_code, 0) << flag;
  }
  const ParsedConfig batch =
      Parse({"--model=sim", "--capacity-factor=1", "--capacity-scope=batch", "--capacity-group=64"});
  EXPECT_EQ(batch.exit_code, 64);
  EXPECT_EQ(batch.output, "--capacity-group: means nothing with --capacity-scope=batch");
  // Requests may bring limits, or not, whatever the operator's are.
  EXPECT_EQ(Parse({"--model=sim", "--capacity-override=refuse"}).exit_code, 0);
  EXPECT_EQ(Parse({"--model=sim", "--capacity-factor=1", "--capacity-group=64"}).config->capacity.group_tokens, 64);
}

TEST(ConfigTest, ExpertFlags) {
  const ExpertCacheConfig unset = Parse({"--model=sim"}).config->expert_cache;
  EXPECT_FALSE(unset.gib.has_value());
  EXPECT_FALSE(unset.tolerates_missing);
  const ExpertCacheConfig set =
      Parse({"--model=sim", "--expert-cache-gb=0.5", "--expert-policy=least-stale", "--expert-read-threads=9",
             "--expert-read=direct", "--expert-prefetch=off", "--expert-fault=degrade", "--prefix-cache=off"})
          .config->expert_cache;
  EXPECT_EQ(set.gib, 0.5);
  EXPECT_EQ(set.policy, EvictionPolicyKind::kLeastStale);
  EXPECT_EQ(set.read_threads, 9);
  EXPECT_TRUE(set.reads_directly);
  EXPECT_FALSE(set.prefetches);
  EXPECT_FALSE(unset.reads_directly);
  EXPECT_TRUE(unset.prefetches);
  EXPECT_TRUE(set.tolerates_missing);
  EXPECT_FALSE(Parse({"--model=sim", "--expert-cache-gb=auto"}).config->expert_cache.gib.has_value());
  const auto kept = [](const char* text) {
    return Parse({"--model=sim", "--expert-profile=f", text}).config->expert_cache;
  };
  EXPECT_EQ(kept("--expert-keep=12").num_kept, 12);
  EXPECT_EQ(kept("--expert-keep=12").profile, "f");
  EXPECT_EQ(kept("--expert-keep=12.5%").kept_share, 0.125);
  EXPECT_EQ(kept("--expert-keep=12.5%").num_kept, 0);
  for (const char* const wrong : {"--expert-keep=-1", "--expert-keep=0.5", "--expert-keep=101%", "--expert-keep=nan%",
                                  "--expert-keep=%", "--expert-keep=99999999999999999999"}) {
    EXPECT_EQ(Parse({"--model=sim", "--expert-profile=f", wrong}).exit_code, 64) << wrong;
  }
  EXPECT_FALSE(unset.is_scheduling_aware);
  const ExpertCacheConfig aware = Parse({"--model=sim", "--expert-aware-scheduling=on"}).config->expert_cache;
  EXPECT_TRUE(aware.is_scheduling_aware);
  EXPECT_EQ(aware.cache_only_flags, "--expert-aware-scheduling");
  const ParsedConfig blind = Parse({"--model=sim", "--expert-aware-scheduling=on", "--routing-sample-steps=0"});
  EXPECT_EQ(blind.exit_code, 64);
  EXPECT_THAT(blind.output, HasSubstr("--expert-aware-scheduling: on needs --routing-sample-steps above 0"));
  EXPECT_EQ(Parse({"--model=sim", "--expert-aware-scheduling=off", "--routing-sample-steps=0"}).exit_code, 0);
  // What was set, if only to what it is anyhow: it may mean nothing.
  EXPECT_EQ(unset.cache_only_flags, "");
  EXPECT_FALSE(unset.host_gib.has_value());
  const ExpertCacheConfig host = Parse({"--model=sim", "--expert-host-gb=96.5"}).config->expert_cache;
  EXPECT_EQ(host.host_gib, 96.5);
  EXPECT_EQ(host.cache_only_flags, "--expert-host-gb");
  EXPECT_EQ(set.cache_only_flags,
            "--expert-policy, --expert-read-threads, --expert-read, --expert-prefetch, --expert-fault");
  EXPECT_FALSE(unset.moves_memory);
  EXPECT_TRUE(Parse({"--model=sim", "--memory-split=auto"}).config->expert_cache.moves_memory);
  EXPECT_EQ(Parse({"--model=sim", "--memory-split=auto", "--expert-cache-gb=1"}).output,
            "--memory-split: auto decides what --expert-cache-gb fixes: set one of them");
  const ParsedConfig both = Parse({"--model=sim", "--memory-split=auto", "--kv-cache-gb=1"});
  EXPECT_EQ(both.output, "--memory-split: auto decides what --kv-cache-gb fixes: set one of them");
  EXPECT_EQ(both.exit_code, 64);
  EXPECT_EQ(Parse({"--model=sim", "--memory-split=fixed", "--kv-cache-gb=1"}).exit_code, 0);
  setenv("CADRE_EXPERT_FAULT", "fail", 1);
  EXPECT_EQ(Parse({"--model=sim", "--expert-cache-gb=1"}).config->expert_cache.cache_only_flags, "--expert-fault");
  unsetenv("CADRE_EXPERT_FAULT");
  for (const char* const flag :
       {"--expert-cache-gb=0", "--expert-cache-gb=-1", "--expert-cache-gb=nan", "--expert-cache-gb=inf",
        "--expert-cache-gb=1GB", "--expert-policy=fifo", "--expert-host-gb=0", "--expert-host-gb=all",
        "--expert-keep=3", "--expert-read-threads=0", "--expert-read=mmap", "--expert-prefetch=1",
        "--expert-fault=ignore", "--expert-fault=degrade", "--expert-aware-scheduling=1"}) {
    EXPECT_EQ(Parse({"--model=sim", flag}).exit_code, 64) << flag;
  }
}

TEST(ConfigTest, WeightsAreQuantizedWhereAskedFor) {
  EXPECT_FALSE(Parse({"--model=sim"}).config->weights.quantized.has_value());
  const ServerConfig config = *Parse({"--model=x", "--quantize=int4"}).config;
  EXPECT_EQ(config.weights.quantized, DType::kQ4);
  EXPECT_EQ(config.weights.quantized_parts, QuantizedParts::kExperts);
  EXPECT_EQ(Parse({"--model=x", "--quantize=int8", "--quantize-parts=all"}).config->weights.quantized_parts,
            QuantizedParts::kAll);
  EXPECT_EQ(Parse({"--model=x", "--quantize=int4", "--quantize-parts=all-alike"}).config->weights.quantized_parts,
            QuantizedParts::kAllAlike);
  EXPECT_EQ(Parse({"--model=x", "--quantize=int5"}).exit_code, 64);
  EXPECT_EQ(Parse({"--model=x", "--dtype=int8"}).exit_code, 64);
  const ParsedConfig without = Parse({"--model=x", "--quantize-parts=all"});
  EXPECT_EQ(without.exit_code, 64);
  EXPECT_THAT(without.output, HasSubstr("--quantize-parts"));
}

TEST(ConfigTest, Flags) {
  const ServerConfig config =
      *Parse({"--model=sim", "--port=0", "--dtype=float16", "--kv-cache-gb=1.5", "--drain-timeout=1m30s",
              "--stall-timeout", "2", "--no-reflection", "--log-format=json", "--max-connection-age=5m"})
           .config;
  EXPECT_EQ(config.served_model_name, "sim");
  EXPECT_EQ(config.port, 0);
  EXPECT_EQ(config.weights.dtype, DType::kF16);
  EXPECT_EQ(config.kv_cache_gb, 1.5);
  EXPECT_EQ(config.drain_timeout, absl::Seconds(90));
  EXPECT_EQ(config.stall_timeout, absl::Seconds(2));
  EXPECT_FALSE(config.reflection);
  EXPECT_TRUE(config.log_json);
  EXPECT_EQ(config.max_connection_age, absl::Minutes(5));
}

TEST(ConfigTest, WrongValuesAreNamedWithTheirLimits) {
  const std::vector<std::vector<const char*>> wrong = {
      {"--port=65536"},
      {"--port=-1"},
      {"--port=x"},
      {"--max-num-seqs=0"},
      {"--dtype=int4"},
      {"--drain-timeout=3x"},
      {"--drain-timeout=-1"},
      {"--stall-timeout=48h"},
      {"--log-level=loud"},
      {"--kv-cache-gb=-1"},
      {"--threads=1e9"},
      {"--metrics-experts=all"},
      {"--max-connection-age=600h"},
  };
  for (std::vector<const char*> flags : wrong) {
    const std::string flag(flags.front(), std::string(flags.front()).find('='));
    flags.push_back("--model=sim");
    const ParsedConfig parsed = Parse(flags);
    EXPECT_FALSE(parsed.config.has_value()) << flags.front();
    EXPECT_EQ(parsed.exit_code, 64) << flags.front();
    EXPECT_THAT(parsed.output, HasSubstr(flag));
  }
}

TEST(ConfigTest, AMistypedFlagGetsASuggestion) {
  EXPECT_THAT(Parse({"--modle", "x"}).output, HasSubstr("did you mean --model?"));
  EXPECT_THAT(Parse({"--model=sim", "--max-num-sequences=3"}).output, HasSubstr("unknown option --max-num-sequences"));
  EXPECT_THAT(Parse({"--model=sim", "--metric-port=3"}).output, HasSubstr("did you mean --metrics-port?"));
  EXPECT_EQ(Parse({"--modle", "x"}).exit_code, 64);
  EXPECT_THAT(Parse({}).output, HasSubstr("--model is required"));
}

TEST(ConfigTest, EnvironmentGivesWayToFlags) {
  const ScopedEnv model("CADRE_MODEL", "sim");
  const ScopedEnv port("CADRE_PORT", "1234");
  EXPECT_EQ(Parse({}).config->port, 1234);
  EXPECT_EQ(Parse({"--port=99"}).config->port, 99);
  const ScopedEnv wrong("CADRE_MAX_NUM_SEQS", "many");
  EXPECT_EQ(Parse({}).exit_code, 64);
}

TEST(ConfigTest, AMistypedVariableIsReported) {
  const ScopedEnv variable("CADRE_MAX_NUM_SEQ", "5");
  const ParsedConfig parsed = Parse({"--model=sim"});
  ASSERT_EQ(parsed.warnings.size(), 1u);
  EXPECT_THAT(parsed.warnings[0], HasSubstr("CADRE_MAX_NUM_SEQS"));
}

TEST(ConfigTest, SettingsOfTheClientAreNoMistakes) {
  const ScopedEnv ca("CADRE_TLS_CA", "/etc/cadre/ca.crt");
  const ScopedEnv name("CADRE_TLS_SERVER_NAME", "cadre");
  const ScopedEnv address("CADRE_ADDRESS", "127.0.0.1:50443");
  const ParsedConfig parsed = Parse({"--model=sim"});
  ASSERT_TRUE(parsed.config.has_value()) << parsed.output;
  EXPECT_THAT(parsed.warnings, testing::IsEmpty());
}

TEST(ConfigTest, KubernetesServiceLinksAreNoSettings) {
  setenv("CADRE_PORT", "tcp://10.0.0.1:50051", 1);
  const ScopedEnv host("CADRE_SERVICE_HOST", "10.0.0.1");
  const ParsedConfig parsed = Parse({"--model=sim"});
  unsetenv("CADRE_PORT");
  ASSERT_TRUE(parsed.config.has_value()) << parsed.output;
  EXPECT_EQ(parsed.config->port, 50051);
  ASSERT_EQ(parsed.warnings.size(), 1u);
  EXPECT_THAT(parsed.warnings[0], HasSubstr("CADRE_PORT is ignored"));
}

TEST(ConfigTest, ConfigFile) {
  const TempDir dir;
  const std::string path = (dir.path() / "cadre.toml").string();
  std::ofstream(path) << "model = \"sim\"\nmax-num-seqs = 7\n";
  const ServerConfig config = *Parse({"--config", path.c_str()}).config;
  EXPECT_EQ(config.model, "sim");
  EXPECT_EQ(config.max_num_seqs, 7);
  std::ofstream(path) << "model = \"sim\"\nmax-num-seks = 7\n";
  const ParsedConfig parsed = Parse({"--config", path.c_str()});
  EXPECT_EQ(parsed.exit_code, 64);
  EXPECT_EQ(parsed.output,
            "unknown setting max-num-seks in the file of --config; did you mean --max-num-seqs? (--help lists all)");
  EXPECT_EQ(Parse({"--config", "/nonexistent.toml"}).exit_code, 64);
}

TEST(ConfigTest, FlagsBeatTheEnvironmentAndThatTheFile) {
  const TempDir dir;
  const std::string path = (dir.path() / "cadre.toml").string();
  std::ofstream(path) << "model = \"sim\"\nmax-num-seqs = 7\nport = 7\nmetrics-port = 7\nreflection = true\n";
  const ScopedEnv config_file("CADRE_CONFIG", path.c_str());
  const ScopedEnv port("CADRE_PORT", "8");
  const ScopedEnv metrics_port("CADRE_METRICS_PORT", "8");
  const ScopedEnv reflection("CADRE_REFLECTION", "false");
  const ParsedConfig parsed = Parse({"--port", "9"});
  ASSERT_TRUE(parsed.config.has_value()) << parsed.output;
  EXPECT_EQ(parsed.config->port, 9);
  EXPECT_EQ(parsed.config->metrics_port, 8);
  EXPECT_EQ(parsed.config->max_num_seqs, 7);
  EXPECT_FALSE(parsed.config->reflection);
  EXPECT_TRUE(Parse({"--reflection"}).config->reflection);
  const ScopedEnv wrong("CADRE_MAX_NUM_SEQS", "0");
  EXPECT_THAT(Parse({}).output, HasSubstr("CADRE_MAX_NUM_SEQS"));
}

TEST(ConfigTest, HelpAndVersionEndWell) {
  EXPECT_EQ(Parse({"--help"}).exit_code, 0);
  EXPECT_THAT(Parse({"--help"}).output, HasSubstr("CADRE_MAX_NUM_SEQS"));
  EXPECT_THAT(Parse({"--version"}).output, HasSubstr("cadre-server "));
}

}  // namespace
}  // namespace cadre
