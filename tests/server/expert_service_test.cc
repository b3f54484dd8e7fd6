// The expert statistics through a real channel: their forms, and who may watch them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "server/request_limits.h"
#include "tests/server/in_process_server.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

TEST(ExpertMatrixTest, HoldsWhatTheListsHold) {
  InProcessServer server("sim:layers=5,experts=24,top_k=3");
  ASSERT_TRUE(Generate(server, IdsRequest({1, 2, 3, 4}, 30)).status.ok());
  ASSERT_TRUE(Eventually([&] { return server.IsAtRest(); }));
  v1::GetExpertStatsRequest request;
  for (const int layer : {3, 0, 4}) request.add_layers(layer);
  v1::GetExpertStatsResponse lists;
  grpc::ClientContext lists_context;
  ASSERT_TRUE(server.experts->GetExpertStats(&lists_context, request, &lists).ok());
  request.set_as_matrix(true);
  v1::GetExpertStatsResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(server.experts->GetExpertStats(&context, request, &response).ok());

  EXPECT_FALSE(lists.stats().has_total_matrix());
  for (const v1::ExpertMatrix& matrix : {response.stats().total_matrix(), response.stats().window_matrix()}) {
    EXPECT_THAT(matrix.layers(), ::testing::ElementsAre(0, 3, 4));
    EXPECT_EQ(matrix.num_experts(), 24);
    ASSERT_EQ(matrix.processed_size(), 3 * 24);
    ASSERT_EQ(matrix.gate_weight_size(), 3 * 24);
    for (int cell = 0; cell < 3 * 24; ++cell) {
      const v1::LayerStats& layer = lists.stats().total(cell / 24);
      EXPECT_EQ(matrix.processed(cell), layer.processed(cell % 24));
      EXPECT_FLOAT_EQ(matrix.gate_weight(cell), static_cast<float>(layer.gate_weight(cell % 24)));
    }
    // Nothing was limited: the lists of zeros are left out.
    EXPECT_EQ(matrix.rerouted_size() + matrix.reweighted_size() + matrix.dropped_size(), 0);
    EXPECT_EQ(matrix.lost_gate_weight_size(), 0);
  }
  for (const v1::LayerStats& layer : response.stats().total()) {
    EXPECT_EQ(layer.processed_size(), 0);
    EXPECT_EQ(layer.tokens(), 33);
    EXPECT_GT(layer.health().effective_experts(), 1.0);
    EXPECT_EQ(layer.health().concentration_size(), 12);
  }
  EXPECT_LT(response.ByteSizeLong(), lists.ByteSizeLong());
}

TEST(ExpertMatrixTest, IsLeftOutWithTheExperts) {
  InProcessServer server("sim");
  v1::GetExpertStatsRequest request;
  request.set_as_matrix(true);
  request.set_include_experts(false);
  v1::GetExpertStatsResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(server.experts->GetExpertStats(&context, request, &response).ok());
  EXPECT_FALSE(response.stats().has_total_matrix());
}

// Before any of them is looked at: a message has room for millions.
TEST(ExpertStatsRequestTest, NamesAtMostAsManyLayersAsThereAre) {
  InProcessServer server("sim:layers=5");
  v1::GetExpertStatsRequest request;
  for (int i = 0; i < 5; ++i) request.add_layers(2);
  v1::GetExpertStatsResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(server.experts->GetExpertStats(&context, request, &response).ok());
  EXPECT_EQ(response.stats().total_size(), 1);
  request.add_layers(99);
  grpc::ClientContext too_many;
  const grpc::Status status = server.experts->GetExpertStats(&too_many, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("layers: 6 entries; the limit is the model's 5 MoE layers"));
}

// One call of WatchExpertStats that has told something.
class Watcher {
 public:
  explicit Watcher(InProcessServer& server) : stream_(server.experts->WatchExpertStats(&context_, {})) {
    v1::WatchExpertStatsResponse message;
    has_begun_ = stream_->Read(&message);
  }
  ~Watcher() { End(); }
  bool has_begun() const { return has_begun_; }
  grpc::Status End() {
    if (has_begun_) context_.TryCancel();
    return stream_ == nullptr ? grpc::Status::OK : std::exchange(stream_, nullptr)->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchExpertStatsResponse>> stream_;
  bool has_begun_ = false;
};

TEST(WatchersTest, AreAtMostAsManyAsTheLimit) {
  InProcessServer server("sim");
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (int i = 0; i < kMaxStatsWatchers; ++i) {
    watchers.push_back(std::make_unique<Watcher>(server));
    ASSERT_TRUE(watchers.back()->has_begun()) << i;
  }
  for (int i = 0; i < 3; ++i) {
    Watcher one_more(server);
    EXPECT_FALSE(one_more.has_begun());
    const grpc::Status status = one_more.End();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_EQ(ReasonOf(status), "TOO_MANY_WATCHERS");
    EXPECT_THAT(status.error_message(), HasSubstr("64"));
  }
  // A place is free as soon as its call has ended, and those that were refused held none.
  EXPECT_EQ(watchers.back()->End().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return Watcher(server).has_begun(); }));
}

// A reader that takes nothing for a while, of messages that fill its window: it loses samples, not counts, and the
// engine goes on.
TEST(WatchersTest, ASlowOneMissesMessagesAndNoCounts) {
  InProcessServer server("sim:layers=64,experts=512,top_k=8");
  v1::WatchExpertStatsRequest request;
  request.mutable_interval()->set_nanos(100'000'000);
  request.set_delta(true);
  grpc::ClientContext context;
  auto stream = server.experts->WatchExpertStats(&context, request);
  v1::WatchExpertStatsResponse message;
  ASSERT_TRUE(stream->Read(&message));
  int64_t tokens = message.stats().total(0).tokens();
  const absl::Time start = absl::Now();
  int64_t generated = 0;
  while (absl::Now() < start + absl::Milliseconds(1500)) {
    ASSERT_TRUE(Generate(server, IdsRequest({1, 2, 3}, 50)).status.ok());
    generated += 52;
  }
  ASSERT_TRUE(Eventually([&] { return server.IsAtRest(); }));
  int messages = 0;
  while (tokens < generated && stream->Read(&message)) {
    tokens += message.stats().total(0).tokens();
    int64_t assignments = 0;
    for (const int64_t n : message.stats().total(63).processed()) assignments += n;
    EXPECT_EQ(assignments, message.stats().total(63).tokens() * 8);
    ++messages;
  }
  EXPECT_EQ(tokens, generated);
  // Fifteen intervals went by; what the transport buffers is a few messages of 400 KiB.
  EXPECT_LT(messages, 12);
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

// So the sum of a stream's messages is what GetExpertStats tells.
TEST(WatchersTest, DeltasBeginWithTheLastReset) {
  InProcessServer server("sim");
  ASSERT_TRUE(Generate(server, IdsRequest({1, 2, 3}, 50)).status.ok());
  ASSERT_TRUE(Eventually([&] { return server.IsAtRest(); }));
  v1::ResetStatsResponse reset;
  grpc::ClientContext reset_context;
  ASSERT_TRUE(server.experts->ResetStats(&reset_context, {}, &reset).ok());
  EXPECT_EQ(reset.last_stats().total(0).tokens(), 52);
  ASSERT_TRUE(Generate(server, IdsRequest({1, 2, 3}, 20)).status.ok());
  ASSERT_TRUE(Eventually([&] { return server.IsAtRest(); }));
  absl::SleepFor(kMaxExpertsAge);
  v1::WatchExpertStatsRequest request;
  request.set_delta(true);
  grpc::ClientContext context;
  auto stream = server.experts->WatchExpertStats(&context, request);
  v1::WatchExpertStatsResponse message;
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.stats().total(0).tokens(), 22);
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

// Totals since the last message are not of the window.
TEST(WatchersTest, DeltasOfTheWindowAreRefused) {
  InProcessServer server("sim");
  v1::WatchExpertStatsRequest request;
  request.set_delta(true);
  request.set_scope(v1::STATS_SCOPE_WINDOW);
  grpc::ClientContext context;
  const grpc::Status status = server.experts->WatchExpertStats(&context, request)->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("delta: is of totals, which STATS_SCOPE_WINDOW leaves out"));
}

// However short the time between question, answer and question.
TEST(SharedStatsTest, KnowEveryAnswer) {
  InProcessServer server("sim:layers=3,experts=8,top_k=2");
  int64_t expected = 0;
  for (int i = 0; i < 20; ++i) {
    v1::GetExpertStatsResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(server.experts->GetExpertStats(&context, {}, &response).ok());
    ASSERT_EQ(response.stats().total(0).tokens(), expected) << i;
    ASSERT_TRUE(Generate(server, IdsRequest({1, 2, 3, 4}, 5)).status.ok());
    expected += 8;
  }
}

// Many who ask at once share a copy, which is not old and knows of every reset.
TEST(SharedStatsTest, AreShortlyTheSameForAll) {
  InProcessServer server("sim:layers=3,experts=8,top_k=2");
  const auto stats = [&] {
    v1::GetExpertStatsResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(server.experts->GetExpertStats(&context, {}, &response).ok());
    return response.stats();
  };
  std::set<const TimedExperts*> copies;
  std::vector<std::shared_ptr<const TimedExperts>> kept;  // so that no address comes twice
  const absl::Time start = absl::Now();
  for (int i = 0; i < 1000; ++i) {
    kept.push_back(server.host().Experts());
    copies.insert(kept.back().get());
  }
  EXPECT_LE(copies.size(), static_cast<size_t>((absl::Now() - start) / kMaxExpertsAge) + 2);
  ASSERT_TRUE(Generate(server, IdsRequest({1, 2, 3, 4}, 20)).status.ok());
  ASSERT_TRUE(Eventually([&] { return server.IsAtRest(); }));
  absl::SleepFor(kMaxExpertsAge);
  EXPECT_EQ(stats().total(0).tokens(), 23);
  v1::ResetStatsResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(server.experts->ResetStats(&context, {}, &response).ok());
  EXPECT_EQ(response.last_stats().total(0).tokens(), 23);
  EXPECT_EQ(stats().total(0).tokens(), 0);
  EXPECT_EQ(server.host().Experts()->experts.lifetime[0].tokens, 23);
}

// How often the engine is held up is not up to those who ask, however fast answers end.
TEST(SharedStatsTest, ACopyForNewAnswersIsNotMadeSoonerThanItsTime) {
  InProcessServer server("sim:layers=3,experts=8,top_k=2");
  ModelHost& host = server.host();
  std::set<std::shared_ptr<const TimedExperts>> copies;
  int num_waits = 0;
  const absl::Time start = absl::Now();
  for (int i = 0; i < 1000; ++i) {
    host.SequenceEnded();
    auto copy = host.ExpertsKnowing(host.num_ended());
    if (copy != nullptr) {
      copies.insert(std::move(copy));
    } else {
      ++num_waits;
    }
  }
  EXPECT_LE(copies.size(), static_cast<size_t>((absl::Now() - start) / kMinExpertsAge) + 2);
  EXPECT_GT(num_waits, 0);
  const int64_t num_ended = host.num_ended();
  absl::SleepFor(kMinExpertsAge);
  EXPECT_NE(host.ExpertsKnowing(num_ended), nullptr);
}

class ProfileTest : public ::testing::Test {
 protected:
  static ServerConfig Config(const std::string& model) {
    ServerConfig config = InProcessServer::Config(model);
    config.routing_sample_steps = 1;
    return config;
  }

  grpc::Status Export(InProcessServer& server, int max_pairs, v1::ExpertProfile* profile) {
    v1::ExportProfileRequest request;
    request.set_max_pairs(max_pairs);
    v1::ExportProfileResponse response;
    grpc::ClientContext context;
    const grpc::Status status = server.experts->ExportProfile(&context, request, &response);
    *profile = response.profile();
    return status;
  }

  grpc::Status Import(InProcessServer& server, const v1::ExpertProfile& profile) {
    v1::ImportProfileRequest request;
    *request.mutable_profile() = profile;
    v1::ImportProfileResponse response;
    grpc::ClientContext context;
    return server.experts->ImportProfile(&context, request, &response);
  }

  v1::ExpertStats Stats(InProcessServer& server) {
    v1::GetExpertStatsResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(server.experts->GetExpertStats(&context, {}, &response).ok());
    return response.stats();
  }
};

// With every step looked at, what is seen of single tokens adds up to the exact counters.
TEST_F(ProfileTest, AddsUpToTheCounters) {
  InProcessServer server(Config("sim:layers=3,experts=8,top_k=3"));
  ASSERT_TRUE(Generate(server, IdsRequest({1, 2, 3, 4}, 40)).status.ok());
  ASSERT_TRUE(Generate(server, IdsRequest({9, 8}, 25)).status.ok());
  ASSERT_TRUE(Eventually([&] { return server.IsAtRest(); }));
  v1::ExpertProfile profile;
  ASSERT_TRUE(Export(server, 4096, &profile).ok());
  const v1::ExpertStats stats = Stats(server);
  const int64_t tokens = stats.total(0).tokens();
  EXPECT_EQ(profile.tokens(), tokens);
  EXPECT_EQ(profile.sampled_tokens(), tokens);
  int64_t class_tokens = 0;
  std::vector<int64_t> by_class(24);
  for (const v1::TokenClassProfile& of_class : profile.token_classes()) {
    class_tokens += of_class.tokens();
    for (int cell = 0; cell < 24; ++cell) by_class[static_cast<size_t>(cell)] += of_class.assignments(cell);
  }
  EXPECT_EQ(class_tokens, tokens);
  EXPECT_GT(profile.token_classes_size(), 1);
  for (int cell = 0; cell < 24; ++cell) {
    EXPECT_EQ(profile.assignments(cell), stats.total(cell / 8).processed(cell % 8));
    EXPECT_EQ(by_class[static_cast<size_t>(cell)], profile.assignments(cell));
  }
  const auto sum = [](const v1::ExpertPairs& pairs) {
    int64_t count = 0;
    for (const int64_t n : pairs.count()) count += n;
    return count;
  };
  for (const v1::ExpertPairs& pairs : profile.co_activation()) EXPECT_EQ(sum(pairs), tokens * 3);  // 3 choose 2
  ASSERT_EQ(profile.transitions_size(), 2);
  for (const v1::ExpertPairs& pairs : profile.transitions()) EXPECT_EQ(sum(pairs), tokens * 9);
}

TEST_F(ProfileTest, DriftIsMeasuredAgainstTheImportedOne) {
  InProcessServer server(Config("sim:layers=2,experts=8,top_k=2"));
  ASSERT_TRUE(Generate(server, IdsRequest({1, 2, 3, 4}, 60)).status.ok());
  ASSERT_TRUE(Eventually([&] { return server.IsAtRest(); }));
  EXPECT_FALSE(Stats(server).window(0).health().has_drift());
  v1::ExpertProfile profile;
  ASSERT_TRUE(Export(server, 0, &profile).ok());
  EXPECT_EQ(profile.co_activation(0).first_size(), 0);
  ASSERT_TRUE(Import(server, profile).ok());
  const v1::ExpertStats same = Stats(server);
  for (const v1::LayerStats& layer : same.window()) {
    EXPECT_TRUE(layer.health().has_drift());
    EXPECT_NEAR(layer.health().drift(), 0.0, 1e-12);
  }
  for (const v1::LayerStats& layer : same.total()) EXPECT_FALSE(layer.health().has_drift());
  // Everything in one expert of the first layer; the second as it was.
  for (int e = 0; e < 8; ++e) profile.set_assignments(e, e == 5 ? 100 : 0);
  ASSERT_TRUE(Import(server, profile).ok());
  EXPECT_GT(Stats(server).window(0).health().drift(), 0.4);
  EXPECT_NEAR(Stats(server).window(1).health().drift(), 0.0, 1e-12);
}

// While the thread for long work is held up by others.
class HeldUpProfileTest : public ProfileTest {
 protected:
  HeldUpProfileTest() {
    EXPECT_TRUE(server_.work_queue().Post([gate = gate_] { gate->WaitForNotification(); }));
    EXPECT_TRUE(Eventually([&] { return server_.work_queue().num_waiting() == 0; }));
  }
  ~HeldUpProfileTest() override {
    if (!gate_->HasBeenNotified()) gate_->Notify();
    if (client_.joinable()) client_.join();
  }

  void ExportInBackground() {
    client_ = std::thread([this] {
      v1::ExportProfileResponse response;
      status_ = server_.experts->ExportProfile(&context_, {}, &response);
      bytes_ = response.ByteSizeLong();
    });
    ASSERT_TRUE(Eventually([&] { return server_.work_queue().num_waiting() == 1; }));
  }

  const std::shared_ptr<absl::Notification> gate_ = std::make_shared<absl::Notification>();
  InProcessServer server_{Config("sim:layers=2,experts=8,top_k=2")};
  grpc::ClientContext context_;
  std::thread client_;
  grpc::Status status_;
  size_t bytes_ = 0;
};

TEST_F(HeldUpProfileTest, OneIsMadeAtATime) {
  ExportInBackground();
  v1::ExpertProfile profile;
  for (const grpc::Status& status : {Export(server_, 0, &profile), Import(server_, profile)}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_EQ(ReasonOf(status), "TOO_MANY_PROFILE_CALLS");
    EXPECT_THAT(status.error_message(), HasSubstr("1 call at a time is the limit"));
  }
  EXPECT_EQ(server_.work_queue().num_waiting(), 1u);
  gate_->Notify();
  client_.join();
  EXPECT_TRUE(status_.ok()) << status_.error_message();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(Export(server_, 0, &profile).ok()) << i;
}

// The call that nobody waits for any more gives its place back when its turn comes, and nothing is made for it.
TEST_F(HeldUpProfileTest, ACancelledOneIsNotMade) {
  ExportInBackground();
  context_.TryCancel();
  client_.join();
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::CANCELLED);
  gate_->Notify();
  v1::ExpertProfile profile;
  EXPECT_TRUE(Eventually([&] { return Export(server_, 0, &profile).ok(); }));
}

TEST_F(HeldUpProfileTest, AStoppedServerMakesNone) {
  ExportInBackground();
  server_.host().Stop();
  gate_->Notify();
  client_.join();
  EXPECT_EQ(ReasonOf(status_), "DRAINING");
}

TEST_F(ProfileTest, IsRefusedByOtherModels) {
  InProcessServer server(Config("sim:layers=2,experts=8,top_k=2"));
  InProcessServer other(Config("sim:layers=2,experts=16,top_k=2"));
  v1::ExpertProfile profile;
  ASSERT_TRUE(Export(other, 16, &profile).ok());
  const grpc::Status status = Import(server, profile);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(status)->field_violations(0).field(), "profile.num_experts");
  EXPECT_THAT(status.error_message(), HasSubstr("16 is not 8"));
  const grpc::Status too_many = Export(server, 4097, &profile);
  EXPECT_EQ(too_many.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(too_many.error_message(), HasSubstr("4097 is not in [0, 4096]"));
}

}  // namespace
}  // namespace cadre
