#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace cadre {
namespace {

using ::testing::DoubleNear;
using ::testing::HasSubstr;
using ::testing::Not;

// Sample lines of a page by series: `name` or `name{label="value",...}`.
std::map<std::string, double> Parse(const std::string& page) {
  std::map<std::string, double> samples;
  std::istringstream lines(page);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t space = line.rfind(' ');
    const bool is_new = samples.emplace(line.substr(0, space), std::strtod(line.c_str() + space, nullptr)).second;
    EXPECT_TRUE(is_new) << "twice: " << line;
  }
  return samples;
}

// Sum over all series of one name.
double Sum(const std::map<std::string, double>& samples, const std::string& name) {
  double sum = 0.0;
  bool found = false;
  for (const auto& [series, value] : samples) {
    if (series == name || series.rfind(name + "{", 0) == 0) {
      sum += value;
      found = true;
    }
  }
  EXPECT_TRUE(found) << name << " is not on the page";
  return sum;
}

// A step of `tokens` rows whose every layer sends token t to the experts (t * stride + j) mod E, j < K.
StepRouting MakeStep(int32_t layers, int32_t experts, int32_t top_k, int64_t tokens, int32_t stride) {
  StepRouting step;
  step.num_layers = layers;
  step.num_experts = experts;
  step.top_k = top_k;
  step.num_tokens = tokens;
  const size_t cells = static_cast<size_t>(layers) * static_cast<size_t>(experts);
  step.assignments.assign(cells, 0);
  step.gate_weight.assign(cells, 0.0);
  step.probability.assign(cells, static_cast<double>(tokens) / experts);
  step.squared_log_sum_exp.assign(static_cast<size_t>(layers), 4.0 * static_cast<double>(tokens));
  for (int32_t layer = 0; layer < layers; ++layer) {
    for (int64_t token = 0; token < tokens; ++token) {
      for (int32_t j = 0; j < top_k; ++j) {
        const int64_t expert = (token * stride + j) % experts;
        const size_t cell = static_cast<size_t>(layer * experts + expert);
        ++step.assignments[cell];
        step.gate_weight[cell] += 1.0 / top_k;
      }
    }
  }
  step.sequence_assignments = {tokens * layers * top_k};
  return step;
}

ServedModel MakeModel(int32_t layers, int32_t experts, int32_t top_k) {
  ServedModel model;
  model.name = "a \"quoted\" \\ name\nof two lines";
  model.family = "qwen3_moe";
  model.dtype = "bfloat16";
  model.expert_dtype = "int8";
  model.kv_dtype = "bfloat16";
  model.device = "cpu";
  model.kernels = "portable";
  model.moe_layers.resize(static_cast<size_t>(layers));
  std::iota(model.moe_layers.begin(), model.moe_layers.end(), 1);  // layer 0 of the model is dense
  model.num_experts = experts;
  model.top_k = top_k;
  model.kv_block_size = 16;
  model.num_kv_blocks = 100;
  model.max_queue_requests = 256;
  model.max_running_requests = 64;
  return model;
}

class MetricsTest : public ::testing::Test {
 protected:
  void Serve(int32_t layers, int32_t experts, int32_t top_k, ExpertMatrixPlacement placement) {
    MetricsOptions options;
    options.version = "1.2.3";
    options.revision = "abc";
    options.expert_matrix = placement;
    metrics_ = std::make_unique<Metrics>(options);
    stats_ = std::make_unique<ExpertStats>(layers, experts, top_k, 4096);
    std::function<SpanCounts()> spans;
    if (is_traced_) spans = [] { return SpanCounts(); };
    const auto what_if = [this] { return engine_.expert_cache ? std::make_shared<WhatIfReport>() : nullptr; };
    metrics_->SetModel(MakeModel(layers, experts, top_k),
                       {[this] { return engine_; }, [this] { return stats_->Snapshot(); }, {}, {}, what_if, spans});
  }

  EngineSnapshot engine_;
  bool is_traced_ = false;
  std::unique_ptr<ExpertStats> stats_;
  std::unique_ptr<Metrics> metrics_;
};

TEST_F(MetricsTest, EverySeriesIsThereAtZeroBeforeAnythingHappened) {
  Serve(4, 16, 2, ExpertMatrixPlacement::kAuto);
  const std::map<std::string, double> before = Parse(metrics_->RenderDefaultPage());
  for (const char* series :
       {"cadre_requests_rejected_total{reason=\"queue_full\"}", "cadre_requests_rejected_total{reason=\"deadline\"}",
        "cadre_completions_total{finish_reason=\"stop_string\"}", "cadre_steps_total{kind=\"mixed\"}",
        "cadre_requests_finished_total{outcome=\"failed\"}", "cadre_routing_assignments_total{state=\"dropped\"}",
        "cadre_layer_assignments_total{layer=\"4\",state=\"rerouted\"}",
        "cadre_expert_assignments_total{layer=\"1\",expert=\"15\",state=\"dropped\"}",
        "cadre_time_to_first_token_seconds_bucket{le=\"0.0005\"}", "cadre_time_to_first_token_seconds_count"}) {
    ASSERT_TRUE(before.contains(series)) << series;
    EXPECT_EQ(before.at(series), 0.0) << series;
  }

  // Events change values, never the set of series.
  for (int i = 0; i < kNumRejectReasons; ++i) metrics_->OnRejected(static_cast<RejectReason>(i));
  metrics_->OnReceived();
  metrics_->OnFirstToken(absl::Milliseconds(3));
  metrics_->OnInterToken(absl::Milliseconds(3), 2);
  for (FinishReason reason :
       {FinishReason::kEos, FinishReason::kStopToken, FinishReason::kStopString, FinishReason::kLength}) {
    FinishSummary summary;
    summary.reason = reason;
    summary.usage = {.prompt_tokens = 5, .generated_tokens = 3};
    metrics_->OnFinish(summary);
  }
  metrics_->OnStep({absl::Milliseconds(2), 3, 7, 2, 0, 0});
  stats_->Record(MakeStep(4, 16, 2, 9, 1));
  const std::map<std::string, double> after = Parse(metrics_->RenderDefaultPage());
  std::set<std::string> series_before, series_after;
  for (const auto& [series, value] : before) series_before.insert(series);
  for (const auto& [series, value] : after) series_after.insert(series);
  EXPECT_EQ(series_before, series_after);
  EXPECT_EQ(Sum(after, "cadre_requests_rejected_total"), kNumRejectReasons);
  EXPECT_EQ(after.at("cadre_requests_rejected_total{reason=\"invalid\"}"), 1.0);
  EXPECT_EQ(after.at("cadre_completions_total{finish_reason=\"eos\"}"), 1.0);
  EXPECT_EQ(after.at("cadre_completions_total{finish_reason=\"length\"}"), 1.0);
}

TEST_F(MetricsTest, RequestsAndBlocksAddUp) {
  Serve(2, 4, 2, ExpertMatrixPlacement::kAuto);
  engine_.admitted_requests = 100;
  engine_.finished_ok = 60;
  engine_.finished_cancelled = 15;
  engine_.finished_deadline = 10;
  engine_.finished_failed = 5;
  engine_.waiting_requests = 7;
  engine_.running_requests = 3;
  engine_.waiting_tokens = 700;
  engine_.oldest_wait = absl::Milliseconds(250);
  engine_.kv_blocks_free = 70;
  engine_.kv_blocks_in_use = 25;
  engine_.kv_blocks_cached = 5;
  engine_.kv_blocks_total = 100;
  engine_.kv_block_evictions = 3;
  engine_.prefix_lookup_tokens = 90;
  engine_.prefix_hit_tokens = 60;
  engine_.queued_requests = {1, 2, 4};
  for (int i = 0; i < 103; ++i) metrics_->OnReceived();
  for (int i = 0; i < 3; ++i) metrics_->OnRejected(RejectReason::kTooLarge);
  const std::map<std::string, double> page = Parse(metrics_->RenderDefaultPage());
  EXPECT_EQ(page.at("cadre_requests_received_total"),
            Sum(page, "cadre_requests_rejected_total") + page.at("cadre_requests_admitted_total"));
  EXPECT_EQ(page.at("cadre_requests_admitted_total"), Sum(page, "cadre_requests_finished_total") +
                                                          page.at("cadre_requests_waiting") +
                                                          page.at("cadre_requests_running"));
  EXPECT_EQ(page.at("cadre_requests_finished_total{outcome=\"deadline\"}"), 10.0);
  EXPECT_EQ(Sum(page, "cadre_kv_blocks"), 100.0);
  EXPECT_EQ(page.at("cadre_kv_block_evictions_total"), 3.0);
  EXPECT_EQ(page.at("cadre_prefix_cache_lookup_tokens_total"), 90.0);
  EXPECT_EQ(page.at("cadre_prefix_cache_hit_tokens_total"), 60.0);
  EXPECT_EQ(page.at("cadre_queue_requests{priority=\"low\"}"), 1.0);
  EXPECT_EQ(page.at("cadre_queue_requests{priority=\"high\"}"), 4.0);
  EXPECT_EQ(page.at("cadre_kv_cache_usage_ratio"), 0.25);
  EXPECT_EQ(page.at("cadre_queue_oldest_wait_seconds"), 0.25);
  EXPECT_EQ(page.at("cadre_queue_request_limit"), 256.0);
}

TEST_F(MetricsTest, AssignmentsAreExactlyTokensTimesTopKOnEveryLevel) {
  constexpr int32_t kLayers = 3, kExperts = 8, kTopK = 3;
  Serve(kLayers, kExperts, kTopK, ExpertMatrixPlacement::kAuto);
  std::mt19937 rng(7);
  int64_t tokens = 0;
  for (int i = 0; i < 50; ++i) {
    const int64_t rows = 1 + static_cast<int64_t>(rng() % 100);
    stats_->Record(MakeStep(kLayers, kExperts, kTopK, rows, 1 + static_cast<int32_t>(rng() % 5)));
    tokens += rows;
  }
  const std::map<std::string, double> page = Parse(metrics_->RenderDefaultPage());
  const double assignments = static_cast<double>(tokens) * kLayers * kTopK;
  EXPECT_EQ(page.at("cadre_routing_tokens_total"), static_cast<double>(tokens) * kLayers);
  EXPECT_EQ(Sum(page, "cadre_routing_assignments_total"), assignments);
  EXPECT_EQ(page.at("cadre_routing_assignments_total{state=\"processed\"}"), assignments);
  EXPECT_EQ(Sum(page, "cadre_layer_tokens_total"), static_cast<double>(tokens) * kLayers);
  EXPECT_EQ(Sum(page, "cadre_layer_assignments_total"), assignments);
  EXPECT_EQ(Sum(page, "cadre_expert_assignments_total"), assignments);
  EXPECT_THAT(Sum(page, "cadre_expert_gate_weight_total"), DoubleNear(static_cast<double>(tokens) * kLayers, 1e-6));
}

TEST_F(MetricsTest, RouterHealthComesFromTheWindow) {
  Serve(2, 4, 1, ExpertMatrixPlacement::kAuto);
  StepRouting step = MakeStep(2, 4, 1, 8, 1);  // uniform: 2 tokens for each expert
  // The second layer sends everything to expert 2.
  for (int expert = 0; expert < 4; ++expert) step.assignments[static_cast<size_t>(4 + expert)] = expert == 2 ? 8 : 0;
  stats_->Record(step);
  const std::map<std::string, double> page = Parse(metrics_->RenderDefaultPage());
  EXPECT_EQ(page.at("cadre_router_load_entropy_ratio{over=\"mean\"}"), 0.5);
  EXPECT_EQ(page.at("cadre_router_load_entropy_ratio{over=\"worst\"}"), 0.0);
  EXPECT_EQ(page.at("cadre_router_gate_entropy_ratio{over=\"worst\"}"), 1.0);
  EXPECT_EQ(page.at("cadre_router_load_imbalance_ratio{over=\"mean\"}"), 2.5);
  EXPECT_EQ(page.at("cadre_router_load_imbalance_ratio{over=\"worst\"}"), 4.0);
  EXPECT_EQ(page.at("cadre_router_unused_experts{over=\"mean\"}"), 1.5);
  EXPECT_EQ(page.at("cadre_router_unused_experts{over=\"worst\"}"), 3.0);
  EXPECT_EQ(page.at("cadre_router_z_loss"), 4.0);
  EXPECT_EQ(page.at("cadre_router_window_tokens"), 8.0);
  // Layers are told by their index in the model, of which the first layer is dense.
  EXPECT_EQ(page.at("cadre_router_worst_layer"), 2.0);
  EXPECT_EQ(page.at("cadre_layer_unused_experts{layer=\"1\"}"), 0.0);
  EXPECT_EQ(page.at("cadre_layer_unused_experts{layer=\"2\"}"), 3.0);

  EXPECT_EQ(page.at("cadre_expert_extreme_load_ratio{end=\"hot\",rank=\"1\"}"), 4.0);
  EXPECT_EQ(page.at("cadre_expert_extreme_layer{end=\"hot\",rank=\"1\"}"), 2.0);
  EXPECT_EQ(page.at("cadre_expert_extreme_id{end=\"hot\",rank=\"1\"}"), 2.0);
  // All experts of the first layer come second: ties go to the lowest.
  EXPECT_EQ(page.at("cadre_expert_extreme_load_ratio{end=\"hot\",rank=\"2\"}"), 1.0);
  EXPECT_EQ(page.at("cadre_expert_extreme_layer{end=\"hot\",rank=\"2\"}"), 1.0);
  EXPECT_EQ(page.at("cadre_expert_extreme_id{end=\"hot\",rank=\"2\"}"), 0.0);
  EXPECT_EQ(page.at("cadre_expert_extreme_load_ratio{end=\"cold\",rank=\"2\"}"), 0.0);
  EXPECT_EQ(page.at("cadre_expert_extreme_layer{end=\"cold\",rank=\"2\"}"), 2.0);
  EXPECT_EQ(page.at("cadre_expert_extreme_id{end=\"cold\",rank=\"2\"}"), 1.0);
}

TEST_F(MetricsTest, StepsAndRequestsFillTheHistograms) {
  Serve(2, 4, 1, ExpertMatrixPlacement::kAuto);
  metrics_->OnStep({.duration = absl::Milliseconds(4), .num_sequences = 3, .prefill_tokens = 20, .decode_tokens = 2});
  metrics_->OnStep({.duration = absl::Milliseconds(4), .num_sequences = 1, .prefill_tokens = 20});
  metrics_->OnStep({.duration = absl::Milliseconds(4), .num_sequences = 2, .decode_tokens = 2});
  metrics_->OnFirstToken(absl::Milliseconds(15));
  metrics_->OnInterToken(absl::Milliseconds(12), 4);
  FinishSummary finished;
  finished.reason = FinishReason::kLength;
  finished.usage = {.prompt_tokens = 10, .generated_tokens = 5};
  finished.timings = {absl::Milliseconds(10), absl::Milliseconds(20), absl::Milliseconds(40), absl::Milliseconds(70)};
  metrics_->OnFinish(finished);
  FinishSummary expired;  // while waiting
  expired.status = absl::DeadlineExceededError("late");
  expired.usage = {.prompt_tokens = 10};
  expired.timings.total = absl::Seconds(3);
  metrics_->OnFinish(expired);

  const std::map<std::string, double> page = Parse(metrics_->RenderDefaultPage());
  EXPECT_EQ(page.at("cadre_steps_total{kind=\"mixed\"}"), 1.0);
  EXPECT_EQ(page.at("cadre_steps_total{kind=\"prefill\"}"), 1.0);
  EXPECT_EQ(page.at("cadre_steps_total{kind=\"decode\"}"), 1.0);
  EXPECT_EQ(page.at("cadre_step_duration_seconds_bucket{le=\"0.003\"}"), 0.0);
  EXPECT_EQ(page.at("cadre_step_duration_seconds_bucket{le=\"0.005\"}"), 3.0);
  EXPECT_EQ(page.at("cadre_step_tokens_sum"), 44.0);
  EXPECT_EQ(page.at("cadre_step_sequences_sum"), 6.0);
  EXPECT_THAT(page.at("cadre_time_to_first_token_seconds_sum"), DoubleNear(0.015, 1e-9));
  EXPECT_THAT(page.at("cadre_inter_token_latency_seconds_sum"), DoubleNear(0.003, 1e-9));
  EXPECT_EQ(page.at("cadre_request_duration_seconds_count"), 2.0);
  EXPECT_THAT(page.at("cadre_request_duration_seconds_sum"), DoubleNear(3.07, 1e-9));
  // The expired request never started: it has no queue wait, no phases.
  EXPECT_EQ(page.at("cadre_queue_wait_seconds_count"), 1.0);
  EXPECT_EQ(page.at("cadre_prefill_duration_seconds_count"), 1.0);
  EXPECT_THAT(page.at("cadre_decode_duration_seconds_sum"), DoubleNear(0.04, 1e-9));
  EXPECT_THAT(page.at("cadre_time_per_output_token_seconds_sum"), DoubleNear(0.01, 1e-9));
  EXPECT_EQ(Sum(page, "cadre_completions_total"), 1.0);
  EXPECT_EQ(page.at("cadre_request_prompt_tokens_sum"), 20.0);
  EXPECT_EQ(page.at("cadre_request_generated_tokens_sum"), 5.0);
}

TEST_F(MetricsTest, ARequestOfSeveralSequencesIsOneRequest) {
  Serve(2, 4, 1, ExpertMatrixPlacement::kAuto);
  for (int32_t index = 0; index < 3; ++index) {
    FinishSummary summary;
    summary.index = index;
    summary.is_last = index == 2;
    summary.reason = FinishReason::kTimeLimit;
    summary.usage = {.prompt_tokens = 10, .generated_tokens = 5};
    summary.timings.queue = absl::Milliseconds(1);
    metrics_->OnFinish(summary);
  }
  const std::map<std::string, double> page = Parse(metrics_->RenderDefaultPage());
  EXPECT_EQ(page.at("cadre_completions_total{finish_reason=\"time_limit\"}"), 3.0);
  EXPECT_EQ(page.at("cadre_request_duration_seconds_count"), 1.0);
  EXPECT_EQ(page.at("cadre_request_prompt_tokens_sum"), 10.0);
  EXPECT_EQ(page.at("cadre_queue_wait_seconds_count"), 1.0);
  EXPECT_EQ(page.at("cadre_request_generated_tokens_sum"), 15.0);
}

TEST_F(MetricsTest, TheDefaultPageIsBoundedForLargeModels) {
  Serve(94, 128, 8, ExpertMatrixPlacement::kAuto);
  stats_->Record(MakeStep(94, 128, 8, 100, 3));
  const std::map<std::string, double> page = Parse(metrics_->RenderDefaultPage());
  EXPECT_LE(page.size(), static_cast<size_t>(kMaxDefaultSampleLines));
  EXPECT_FALSE(page.contains("cadre_layer_tokens_total{layer=\"1\"}"));

  const std::map<std::string, double> experts = Parse(metrics_->RenderExpertPage());
  EXPECT_EQ(experts.size(), 94u * 17 + 94u * 128 * 6);
  EXPECT_EQ(Sum(experts, "cadre_expert_assignments_total"), 94.0 * 8 * 100);
}

TEST_F(MetricsTest, TheFlagDecidesWhereTheMatrixStands) {
  Serve(8, 128, 2, ExpertMatrixPlacement::kAuto);  // 1024 experts
  EXPECT_THAT(metrics_->RenderDefaultPage(), HasSubstr("cadre_expert_assignments_total{"));
  Serve(8, 129, 2, ExpertMatrixPlacement::kAuto);
  EXPECT_THAT(metrics_->RenderDefaultPage(), Not(HasSubstr("cadre_expert_assignments_total")));
  Serve(8, 129, 2, ExpertMatrixPlacement::kFull);
  EXPECT_THAT(metrics_->RenderDefaultPage(), HasSubstr("cadre_expert_assignments_total{"));
  Serve(2, 4, 2, ExpertMatrixPlacement::kRanked);
  EXPECT_THAT(metrics_->RenderDefaultPage(), Not(HasSubstr("cadre_expert_assignments_total")));
  EXPECT_THAT(metrics_->RenderExpertPage(), HasSubstr("cadre_expert_assignments_total{"));
}

TEST_F(MetricsTest, PagesWorkBeforeTheModelAndAfterTheEngine) {
  Metrics metrics({});
  metrics.SetLoadProgress(0.5);
  std::map<std::string, double> page = Parse(metrics.RenderDefaultPage());
  EXPECT_EQ(page.at("cadre_ready"), 0.0);
  EXPECT_EQ(page.at("cadre_model_load_progress_ratio"), 0.5);
  EXPECT_EQ(page.at("cadre_requests_admitted_total"), 0.0);
  EXPECT_EQ(Sum(page, "cadre_routing_assignments_total"), 0.0);
  EXPECT_EQ(metrics.RenderExpertPage(), "");

  Serve(2, 4, 2, ExpertMatrixPlacement::kAuto);
  engine_.admitted_requests = 5;
  metrics_->SetReady(true);
  metrics_->SetDraining(true);
  metrics_->SetStalled(true);
  metrics_->AddOutboxBytes(300);
  metrics_->AddOutboxBytes(-100);
  metrics_->ClearSources();
  engine_.admitted_requests = 6;
  page = Parse(metrics_->RenderDefaultPage());
  EXPECT_EQ(page.at("cadre_requests_admitted_total"), 5.0);
  EXPECT_EQ(page.at("cadre_ready"), 1.0);
  EXPECT_EQ(page.at("cadre_draining"), 1.0);
  EXPECT_EQ(page.at("cadre_engine_stalled"), 1.0);
  EXPECT_EQ(page.at("cadre_stream_outbox_bytes"), 200.0);
}

TEST_F(MetricsTest, CountingGoesOnWhilePagesAreRendered) {
  constexpr int kEvents = 2000;
  Serve(2, 4, 2, ExpertMatrixPlacement::kAuto);
  std::atomic<bool> done = false;
  std::thread scraper([&] {
    double received = 0.0;
    while (!done) {
      const std::map<std::string, double> page = Parse(metrics_->RenderDefaultPage());
      EXPECT_GE(page.at("cadre_requests_received_total"), Sum(page, "cadre_requests_rejected_total"));
      EXPECT_GE(page.at("cadre_requests_received_total"), received);
      received = page.at("cadre_requests_received_total");
    }
  });
  for (int i = 0; i < kEvents; ++i) {
    metrics_->OnReceived();
    metrics_->OnRejected(RejectReason::kQueueFull);
    metrics_->OnStep({.duration = absl::Milliseconds(1), .num_sequences = 1, .decode_tokens = 1});
    metrics_->AddOutboxBytes(1);
    stats_->Record(MakeStep(2, 4, 2, 3, 1));
  }
  metrics_->ClearSources();
  done = true;
  scraper.join();
  const std::map<std::string, double> page = Parse(metrics_->RenderDefaultPage());
  EXPECT_EQ(page.at("cadre_requests_received_total"), kEvents);
  EXPECT_EQ(page.at("cadre_step_tokens_count"), kEvents);
  EXPECT_EQ(page.at("cadre_stream_outbox_bytes"), kEvents);
  EXPECT_EQ(Sum(page, "cadre_expert_assignments_total"), kEvents * 3.0 * 2 * 2);
}

// docs/metrics.md names every metric that is exported, and none that is not.
TEST_F(MetricsTest, TheDocumentationIsComplete) {
  engine_.expert_cache = ExpertCacheReport();
  engine_.joint_budget = JointBudgetReport();
  auto placement = std::make_shared<ExpertPlacement>();
  placement->tiers.resize(size_t{3} * 8);
  placement->counters.resize(3);
  placement->waits.resize(3);
  engine_.expert_placement = std::move(placement);
  is_traced_ = engine_.orders_ahead = true;
  Serve(3, 8, 2, ExpertMatrixPlacement::kAuto);
  metrics_->WatchCalls();
  metrics_->WatchTenantLimits();
  metrics_->WatchFile(ReloadedFile::kApiKeys);
  metrics_->SetCertificateExpiry(absl::FromUnixSeconds(1));
  std::set<std::string> exported;
  std::istringstream lines(metrics_->RenderDefaultPage() + metrics_->RenderExpertPage());
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("# TYPE ", 0) == 0) exported.insert(line.substr(7, line.find(' ', 7) - 7));
  }
  std::ifstream file("docs/metrics.md");
  ASSERT_TRUE(file) << "run from the repository's root";
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  for (const std::string& name : exported) EXPECT_THAT(text, HasSubstr("`" + name + "`"));
  for (size_t begin = text.find("`cadre_"); begin != std::string::npos; begin = text.find("`cadre_", begin + 1)) {
    const std::string name = text.substr(begin + 1, text.find('`', begin + 1) - begin - 1);
    EXPECT_TRUE(exported.contains(name) || name.find_first_of("({[ ") != std::string::npos) << name;  // or a query
  }
}

// The rules of Prometheus for names, units and types, by its own tool (part of Debian's package `prometheus`).
TEST_F(MetricsTest, PromtoolAcceptsBothPages) {
  if (std::system("promtool --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "promtool is not installed";
  Serve(3, 8, 2, ExpertMatrixPlacement::kAuto);
  stats_->Record(MakeStep(3, 8, 2, 50, 3));
  metrics_->OnReceived();
  metrics_->OnFirstToken(absl::Milliseconds(3));
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / ("cadre-metrics-test-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  for (const std::string& page : {metrics_->RenderDefaultPage(), metrics_->RenderExpertPage()}) {
    std::ofstream(folder / "page.txt") << page;
    const std::string complaints = (folder / "complaints.txt").string();
    const std::string command =
        "promtool check metrics < " + (folder / "page.txt").string() + " > " + complaints + " 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << std::ifstream(complaints).rdbuf();
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace cadre
