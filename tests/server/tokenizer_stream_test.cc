// GetTokenizer of VllmEngine: how many may take the archive at a time, and how slowly.
#include "server/tokenizer_stream.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "server/request_limits.h"
#include "tests/server/in_process_server.h"
#include "tests/support/temp_dir.h"
#include "vllm/grpc/engine/vllm_engine.grpc.pb.h"

namespace cadre {
namespace {

namespace vllm_api = vllm::grpc::engine;
using smg::grpc::common::GetTokenizerChunk;
using smg::grpc::common::GetTokenizerRequest;

constexpr char kModel[] = "sim:vocab=512";
// More than the connection's windows take of a client that does not read.
constexpr size_t kFileBytes = 4 << 20;

// A call of a client of its own, with the smallest window.
struct Taker {
  explicit Taker(InProcessServer& server) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 65535);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub = vllm_api::VllmEngine::NewStub(grpc::CreateCustomChannel(HostPort("127.0.0.1", server.grpc().port()),
                                                                   grpc::InsecureChannelCredentials(), arguments));
    reader = stub->GetTokenizer(&context, GetTokenizerRequest());
  }
  ~Taker() {
    context.TryCancel();
    if (!is_finished) reader->Finish();
  }
  grpc::Status Finish() {
    is_finished = true;
    return reader->Finish();
  }

  grpc::ClientContext context;
  std::unique_ptr<vllm_api::VllmEngine::Stub> stub;
  std::unique_ptr<grpc::ClientReader<GetTokenizerChunk>> reader;
  bool is_finished = false;
};

class TokenizerStreamTest : public ::testing::Test {
 protected:
  void Start(absl::Duration patience) {
    WriteFile(folder_.path() / "merges.txt", std::string(kFileBytes, 'm'));
    server_ = std::make_unique<InProcessServer>(InProcessServer::Config(kModel), /*load=*/false,
                                                TokenStreamOptions{.slow_reader_timeout = patience});
    auto model = LoadModel(InProcessServer::Config(kModel), nullptr, [](double) {});
    ASSERT_TRUE(model.ok()) << model.status();
    model->card.folder = folder_.path();
    server_->host().Install(*std::move(model));
  }

  const TempDir folder_;
  std::unique_ptr<InProcessServer> server_;
};

TEST_F(TokenizerStreamTest, OnlySoManyTakeItAtATime) {
  Start(/*patience=*/absl::Hours(1));
  std::vector<std::unique_ptr<Taker>> takers;
  GetTokenizerChunk chunk;
  for (int i = 0; i < kMaxTokenizerCalls; ++i) {
    takers.push_back(std::make_unique<Taker>(*server_));
    ASSERT_TRUE(takers.back()->reader->Read(&chunk)) << i;
  }
  Taker late(*server_);
  ASSERT_FALSE(late.reader->Read(&chunk));
  const grpc::Status status = late.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(status), "TOO_MANY_TOKENIZER_CALLS");
  EXPECT_EQ(DetailOf<google::rpc::ErrorInfo>(status)->metadata().at("limit"), "8");
  EXPECT_TRUE(DetailOf<google::rpc::RetryInfo>(status).has_value());
  // Who leaves makes room.
  takers.pop_back();
  EXPECT_TRUE(Eventually([&] { return Taker(*server_).reader->Read(&chunk); }));
}

TEST_F(TokenizerStreamTest, WhoNeverReadsIsCutOff) {
  Start(/*patience=*/absl::Milliseconds(50));
  // As many as may, each with the beginning.
  GetTokenizerChunk chunk;
  const auto take_all_places = [&](std::vector<std::unique_ptr<Taker>>* takers) {
    for (int i = 0; i < kMaxTokenizerCalls; ++i) {
      takers->push_back(std::make_unique<Taker>(*server_));
      if (!takers->back()->reader->Read(&chunk)) return false;
    }
    return true;
  };
  std::vector<std::unique_ptr<Taker>> takers;
  ASSERT_TRUE(take_all_places(&takers));
  // All their places are free in the end, though they are still there.
  EXPECT_TRUE(Eventually([&] {
    std::vector<std::unique_ptr<Taker>> later;
    return take_all_places(&later);
  }));
  for (const auto& taker : takers) {
    while (taker->reader->Read(&chunk)) EXPECT_TRUE(chunk.sha256().empty());
    EXPECT_FALSE(taker->Finish().ok());
  }
}

TEST_F(TokenizerStreamTest, WhoReadsTooLateIsToldWhy) {
  Start(/*patience=*/absl::Seconds(2));
  Taker taker(*server_);
  absl::SleepFor(absl::Seconds(3));  // a piece is more than the window; between the first look and the second
  GetTokenizerChunk chunk;
  while (taker.reader->Read(&chunk)) EXPECT_TRUE(chunk.sha256().empty());
  const grpc::Status status = taker.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(status), "SLOW_READER");
}

// For several looks, and something at each.
TEST_F(TokenizerStreamTest, WhoReadsSlowlyGetsItWhole) {
  Start(/*patience=*/absl::Milliseconds(500));
  Taker taker(*server_);
  GetTokenizerChunk chunk;
  size_t bytes = 0;
  std::string sha256;
  while (taker.reader->Read(&chunk)) {
    bytes += chunk.data().size();
    sha256 = chunk.sha256();
    absl::SleepFor(absl::Milliseconds(30));
  }
  EXPECT_TRUE(taker.Finish().ok());
  EXPECT_GT(bytes, kFileBytes);
  EXPECT_EQ(sha256, MakeTokenizerArchive(folder_.path())->sha256);
}

}  // namespace
}  // namespace cadre
