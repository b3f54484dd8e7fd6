// What clients see when the model fails.
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/simulated_runner.h"
#include "nlohmann/json.hpp"
#include "tests/server/in_process_server.h"

namespace cadre {
namespace {

constexpr int32_t kPoison = 666;  // as the first token of a prompt

// Computes NaN for the tenth position of each sequence that begins with kPoison.
class PoisonedRunner final : public ModelRunner {
 public:
  explicit PoisonedRunner(std::unique_ptr<ModelRunner> inner) : inner_(std::move(inner)) {}

  const RunnerLimits& limits() const override { return inner_->limits(); }
  absl::Status Forward(const ForwardBatch& batch, ForwardResult* result) override {
    absl::Status status = inner_->Forward(batch, result);
    const auto vocab_size = static_cast<size_t>(limits().vocab_size);
    for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
      const auto row = static_cast<size_t>(batch.logit_rows[i]);
      const auto sequence = static_cast<size_t>(batch.row_sequence[row]);
      const int32_t first_block = batch.block_tables[sequence * static_cast<size_t>(batch.max_blocks)];
      if (batch.positions[row] == 9 && first_block == poisoned_block_) {
        result->logits[i * vocab_size + 3] = std::numeric_limits<float>::quiet_NaN();
      }
    }
    for (size_t row = 0; row < batch.token_ids.size(); ++row) {
      if (batch.positions[row] == 0 && batch.token_ids[row] == kPoison) {
        poisoned_block_ = batch.kv_slots[row] / limits().kv_block_size;
      }
    }
    return status;
  }
  void ScrubBlocks(std::span<const int32_t> blocks) override {
    const std::lock_guard lock(mutex_);
    scrubbed_.insert(scrubbed_.end(), blocks.begin(), blocks.end());
    inner_->ScrubBlocks(blocks);
  }

  std::vector<int32_t> scrubbed() const {
    const std::lock_guard lock(mutex_);
    return scrubbed_;
  }

 private:
  const std::unique_ptr<ModelRunner> inner_;
  int32_t poisoned_block_ = -1;
  mutable std::mutex mutex_;
  std::vector<int32_t> scrubbed_;
};

// Fails from its tenth step on, as a device does that an error has taken away.
class LostRunner final : public ModelRunner {
 public:
  explicit LostRunner(std::unique_ptr<ModelRunner> inner) : inner_(std::move(inner)) {}
  const RunnerLimits& limits() const override { return inner_->limits(); }
  absl::Status Forward(const ForwardBatch& batch, ForwardResult* result) override {
    if (++num_steps_ >= 10) return absl::UnavailableError("cuda:0 is lost to this process");
    return inner_->Forward(batch, result);
  }
  bool is_lost() const override { return num_steps_ >= 10; }
  void ScrubBlocks(std::span<const int32_t> blocks) override { inner_->ScrubBlocks(blocks); }

 private:
  const std::unique_ptr<ModelRunner> inner_;
  int num_steps_ = 0;
};

TEST(FailureTest, ALostDeviceEndsTheServer) {
  InProcessServer server(InProcessServer::Config("sim:step_ms=1"), /*load=*/false);
  server.Load([](std::unique_ptr<ModelRunner> inner) { return std::make_unique<LostRunner>(std::move(inner)); });
  Lifecycle lifecycle = server.MakeLifecycle({});
  std::atomic<bool> stop{false};
  std::thread watcher([&] { EXPECT_EQ(lifecycle.RunUntilSignal(stop), 0); });
  const std::vector<int32_t> prompt = {1, 2, 3};
  const StreamResult result = Generate(server, IdsRequest(prompt, 120));
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(result.token_ids, SimulatedRunner::ExpectedTokens(prompt, 9, 1024));
  watcher.join();  // returns by itself
  EXPECT_TRUE(lifecycle.is_device_lost());
  EXPECT_FALSE(lifecycle.is_ready());
}

TEST(FailureTest, NanEndsItsOwnRequestAndIsClearedAway) {
  InProcessServer server(InProcessServer::Config("sim:step_ms=1,block_size=4"), /*load=*/false);
  PoisonedRunner* runner = nullptr;
  server.Load([&](std::unique_ptr<ModelRunner> inner) {
    auto poisoned = std::make_unique<PoisonedRunner>(std::move(inner));
    runner = poisoned.get();
    return poisoned;
  });
  std::vector<std::thread> clients;
  clients.reserve(6);
  for (int32_t i = 0; i < 6; ++i) {
    clients.emplace_back([&, i] {
      const std::vector<int32_t> prompt = {i, 2, 3, 4, 5};
      const StreamResult result = Generate(server, IdsRequest(prompt, 120));
      EXPECT_TRUE(result.status.ok()) << result.status.error_message();
      EXPECT_EQ(result.token_ids, SimulatedRunner::ExpectedTokens(prompt, 120, 1024));
    });
  }
  const std::vector<int32_t> prompt = {kPoison, 2, 3, 4, 5};
  const StreamResult failed = Generate(server, IdsRequest(prompt, 120));
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(failed.status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(ReasonOf(failed.status), "NOT_A_NUMBER");
  EXPECT_NE(failed.status.error_message().find("not numbers"), std::string::npos) << failed.status.error_message();
  EXPECT_EQ(failed.token_ids, SimulatedRunner::ExpectedTokens(prompt, 5, 1024));
  EXPECT_EQ(runner->scrubbed().size(), 3u);  // of ten positions

  // The prompt's block had been sound when others could have found it, and is not trusted any more.
  const StreamResult again = Generate(server, IdsRequest(prompt, 4));
  EXPECT_TRUE(again.status.ok()) << again.status.error_message();
  EXPECT_EQ(again.finished->usage().cached_prompt_tokens(), 0);
  EXPECT_TRUE(Eventually([&] { return server.IsAtRest() && server.host().num_open_calls() == 0; }));
  const EngineSnapshot snapshot = server.host().Snapshot();
  EXPECT_EQ(snapshot.finished_failed, 1);
  EXPECT_EQ(snapshot.finished_ok, 7);
}

// Behind a list of texts, more than are looked at beforehand, comes a string whose endings depend on all of its digits.
std::string CostlySchema() {
  std::mt19937_64 random(3);
  nlohmann::ordered_json texts = nlohmann::ordered_json::array();
  for (int i = 0; i < 500; ++i) texts.push_back(absl::StrCat(random() % 900'000'000'000 + 100'000'000'000));
  nlohmann::ordered_json patterns = nlohmann::ordered_json::array();
  for (int i = 0; i < 500; ++i) {
    std::string digits(1, static_cast<char>('0' + i % 10));
    for (char digit = '0'; digit <= '9'; ++digit) {
      if (random() % 2 == 0) digits += digit;
    }
    const std::string other = absl::StrCat("[^", digits, "]*");
    patterns.push_back(
        {{"pattern", absl::StrCat("^(", other, "[", digits, "]", other, "[", digits, "])*", other, "$")}});
  }
  return nlohmann::ordered_json{{"properties", {{"a", {{"enum", texts}}}, {"b", {{"anyOf", patterns}}}}},
                                {"required", {"a", "b"}},
                                {"additionalProperties", false}}
      .dump();
}

TEST(FailureTest, AConstraintThatTakesTooMuchFailsItsCallAlone) {
  constexpr int32_t kVocab = 32'000;
  InProcessServer server(absl::StrCat("sim:step_ms=1,vocab=", kVocab));
  const std::vector<int32_t> prompt = {1, 2, 3};
  std::thread neighbor([&] {
    const StreamResult result = Generate(server, IdsRequest(prompt, 300));
    EXPECT_TRUE(result.status.ok()) << result.status.error_message();
    EXPECT_EQ(result.token_ids, SimulatedRunner::ExpectedTokens(prompt, 300, kVocab));
  });
  v1::GenerateRequest request = IdsRequest({4, 5, 6}, 300);
  request.mutable_structured_output()->set_json_schema(CostlySchema());
  const StreamResult failed = Generate(server, request);
  neighbor.join();
  EXPECT_EQ(failed.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << failed.status.error_message();
  EXPECT_EQ(ReasonOf(failed.status), "CONSTRAINT_TOO_COSTLY");
  EXPECT_NE(failed.status.error_message().find("more than 20000000 steps"), std::string::npos)
      << failed.status.error_message();
  EXPECT_FALSE(DetailOf<google::rpc::RetryInfo>(failed.status).has_value());
  EXPECT_TRUE(failed.text.starts_with("{")) << failed.text;  // what could be said was
  EXPECT_TRUE(Eventually([&] { return server.IsAtRest() && server.host().num_open_calls() == 0; }));
}

}  // namespace
}  // namespace cadre
