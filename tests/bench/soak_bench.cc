// Mixed load on a simulated model for a long time, through gRPC: short and long prompts, shared prefixes, several
// sequences, tenants and priorities, deadlines that pass, cancels at random moments, requests that are refused. Every
// token that comes back is compared with what the simulator must say to that prompt, and the resident size of the
// server is watched.
//
//   cadre-server --model sim:step_ms=0 &
//   soak_bench --pid $! [--target 127.0.0.1:50051] [--seconds 600] [--in-flight 96] [--seed 1]
//
// Exit code 1 when a token was wrong, a call ended in a way it must not, or the size grew by more than --max-slope, as
// far as one can tell: a run of a minute cannot tell much.
#include <grpcpp/create_channel.h>
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cadre/v1/generation_service.grpc.pb.h"
#include "cadre/v1/model_service.grpc.pb.h"
#include "engine/model/simulated_runner.h"

namespace cadre {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct SoakOptions {
  std::string target = "127.0.0.1:50051";
  int pid = 0;
  int seconds = 600;
  int in_flight = 96;
  uint64_t seed = 1;
  double max_slope_kb_per_minute = 64;
};

// What became of the calls. Each is counted once.
struct Tally {
  std::atomic<int64_t> ok = 0;
  std::atomic<int64_t> cancelled = 0;
  std::atomic<int64_t> deadline = 0;
  std::atomic<int64_t> refused = 0;  // RESOURCE_EXHAUSTED
  std::atomic<int64_t> tokens = 0;
  std::atomic<int64_t> wrong_tokens = 0;
  std::atomic<int64_t> unexpected = 0;
  int64_t total() const { return ok + cancelled + deadline + refused + unexpected; }
};

class Soak;

// One call. Deletes itself at its end, and starts the next one.
class Call final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Call(Soak* soak, uint64_t number);
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  void MakeRequest(std::mt19937_64* random);
  void CheckTokens(const v1::DeltaEvent& delta);

  Soak* const soak_;
  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  v1::GenerateResponse event_;
  std::vector<int32_t> expected_;     // of every sequence: the simulator's choice is the prompt's alone
  std::vector<size_t> num_received_;  // by sequence
  int64_t cancel_after_ = -1;         // tokens; -1: never
  int64_t num_tokens_ = 0;
  bool may_expire_ = false;
};

class Soak {
 public:
  Soak(const SoakOptions& options, int32_t vocab_size)
      : options_(options),
        vocab_size_(vocab_size),
        stub_(v1::GenerationService::NewStub(grpc::CreateChannel(options.target, grpc::InsecureChannelCredentials()))) {
  }

  int Run();
  // The next call, unless the time is over.
  void StartNext() {
    if (SteadyClock::now() < end_) {
      new Call(this, next_.fetch_add(1));
    } else {
      num_open_.fetch_sub(1);
    }
  }

  v1::GenerationService::Stub* stub() { return stub_.get(); }
  int32_t vocab_size() const { return vocab_size_; }
  uint64_t seed() const { return options_.seed; }
  Tally& tally() { return tally_; }

 private:
  double ResidentKb() const;

  const SoakOptions options_;
  const int32_t vocab_size_;
  const std::unique_ptr<v1::GenerationService::Stub> stub_;
  SteadyClock::time_point end_;
  std::atomic<uint64_t> next_ = 0;
  std::atomic<int> num_open_ = 0;
  Tally tally_;
};

Call::Call(Soak* soak, uint64_t number) : soak_(soak) {
  std::mt19937_64 random(soak->seed() * 1'000'003 + number);
  MakeRequest(&random);
  soak->stub()->async()->Generate(&context_, &request_, this);
  StartRead(&event_);
  StartCall();
}

void Call::MakeRequest(std::mt19937_64* random) {
  const auto below = [random](uint64_t bound) { return static_cast<int32_t>((*random)() % bound); };
  const int32_t vocab = soak_->vocab_size();
  std::vector<int32_t> prompt;
  const int32_t shared = below(3) == 0 ? 48 : 0;  // one of four common beginnings
  const int32_t beginning = below(4);
  for (int32_t i = 0; i < shared; ++i) prompt.push_back((beginning * 97 + i * 13 + 5) % vocab);
  const int32_t own = below(20) == 0 ? 100 + below(300) : 1 + below(24);
  for (int32_t i = 0; i < own; ++i) prompt.push_back(below(static_cast<uint64_t>(vocab)));
  const int32_t max_tokens = below(20) == 0 ? 40 + below(100) : 1 + below(12);
  const int32_t n = below(10) == 0 ? 2 + below(3) : 1;

  request_.mutable_token_ids()->mutable_ids()->Assign(prompt.begin(), prompt.end());
  request_.mutable_stopping()->set_max_tokens(max_tokens);
  request_.mutable_stopping()->set_ignore_eos(true);
  request_.mutable_sampling()->set_temperature(0);
  if (n > 1) request_.mutable_sampling()->set_n(n);
  request_.mutable_scheduling()->set_tenant("tenant-" + std::to_string(below(8)));
  if (below(4) == 0) request_.mutable_scheduling()->set_priority(below(5) - 2);
  if (below(8) == 0) cancel_after_ = below(static_cast<uint64_t>(max_tokens));
  if (below(16) == 0) {
    may_expire_ = true;
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(below(30)));
  }
  expected_ = SimulatedRunner::ExpectedTokens(prompt, max_tokens, vocab);
  num_received_.assign(static_cast<size_t>(n), 0);
}

void Call::CheckTokens(const v1::DeltaEvent& delta) {
  num_tokens_ += delta.token_ids_size();
  size_t& received = num_received_.at(static_cast<size_t>(delta.index()));
  for (const int32_t token : delta.token_ids()) {
    if (received >= expected_.size() || token != expected_[received]) ++soak_->tally().wrong_tokens;
    ++received;
  }
}

void Call::OnReadDone(bool ok) {
  if (!ok) return;
  if (event_.has_delta()) CheckTokens(event_.delta());
  if (cancel_after_ >= 0 && num_tokens_ >= cancel_after_) context_.TryCancel();
  StartRead(&event_);
}

void Call::OnDone(const grpc::Status& status) {
  Tally& tally = soak_->tally();
  tally.tokens += num_tokens_;
  const bool may_cancel = cancel_after_ >= 0;
  if (status.ok()) {
    ++tally.ok;
    for (const size_t received : num_received_) tally.wrong_tokens += received != expected_.size();
  } else if (status.error_code() == grpc::StatusCode::CANCELLED && may_cancel) {
    ++tally.cancelled;
  } else if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED && may_expire_) {
    ++tally.deadline;
  } else if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {
    ++tally.refused;
  } else if (++tally.unexpected <= 10) {
    std::fprintf(stderr, "soak_bench: code %d: %s\n", static_cast<int>(status.error_code()),
                 status.error_message().c_str());
  }
  soak_->StartNext();
  delete this;
}

double Soak::ResidentKb() const {
  std::ifstream file("/proc/" + std::to_string(options_.pid) + "/status");
  for (std::string word; file >> word;) {
    double kb = 0;
    if (word == "VmRSS:" && file >> kb) return kb;
  }
  return 0;
}

// By least squares, over the second half.
struct Slope {
  double kb_per_minute = 0;
  double error = 0;  // half of the 95 % interval; the size moves in steps, so the true one is rather wider
};

Slope SlopeOf(const std::vector<double>& sizes, double minutes_between) {
  const size_t first = sizes.size() / 2;
  const auto n = static_cast<double>(sizes.size() - first);
  if (n < 3) return {};
  double mean_x = 0, mean_y = 0;
  for (size_t i = first; i < sizes.size(); ++i) {
    mean_x += static_cast<double>(i) * minutes_between / n;
    mean_y += sizes[i] / n;
  }
  double sxx = 0, sxy = 0, syy = 0;
  for (size_t i = first; i < sizes.size(); ++i) {
    const double x = static_cast<double>(i) * minutes_between - mean_x;
    sxx += x * x;
    sxy += x * (sizes[i] - mean_y);
    syy += (sizes[i] - mean_y) * (sizes[i] - mean_y);
  }
  const double residue = std::max(0.0, syy - sxy * sxy / sxx);
  return {.kb_per_minute = sxy / sxx, .error = 1.96 * std::sqrt(residue / (n - 2) / sxx)};
}

int Soak::Run() {
  end_ = SteadyClock::now() + std::chrono::seconds(options_.seconds);
  num_open_ = options_.in_flight;
  for (int i = 0; i < options_.in_flight; ++i) StartNext();
  constexpr auto kInterval = std::chrono::seconds(5);
  std::vector<double> sizes;
  for (auto next = SteadyClock::now() + kInterval; num_open_ > 0; std::this_thread::sleep_for(kInterval / 50)) {
    if (SteadyClock::now() < next) continue;
    next += kInterval;
    sizes.push_back(ResidentKb());
    std::printf("%4zu s: %lld calls, server %.1f MB\n", sizes.size() * 5, static_cast<long long>(tally_.total()),
                sizes.back() / 1024);
    std::fflush(stdout);
  }
  const Slope slope = SlopeOf(sizes, std::chrono::duration<double>(kInterval).count() / 60);
  std::printf(
      "%lld calls: %lld ok, %lld cancelled, %lld past their deadline, %lld refused, %lld unexpected; %lld tokens, "
      "%lld wrong; size of the server over the second half: %+.1f +- %.1f kB a minute\n",
      static_cast<long long>(tally_.total()), static_cast<long long>(tally_.ok),
      static_cast<long long>(tally_.cancelled), static_cast<long long>(tally_.deadline),
      static_cast<long long>(tally_.refused), static_cast<long long>(tally_.unexpected),
      static_cast<long long>(tally_.tokens), static_cast<long long>(tally_.wrong_tokens), slope.kb_per_minute,
      slope.error);
  const bool grows = slope.kb_per_minute - slope.error > options_.max_slope_kb_per_minute;
  const bool is_good = tally_.unexpected == 0 && tally_.wrong_tokens == 0 && !grows;
  return is_good ? 0 : 1;
}

int Main(const SoakOptions& options) {
  const auto channel = grpc::CreateChannel(options.target, grpc::InsecureChannelCredentials());
  const auto models = v1::ModelService::NewStub(channel);
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  v1::GetModelResponse model;
  if (const grpc::Status status = models->GetModel(&context, {}, &model); !status.ok()) {
    std::fprintf(stderr, "soak_bench: %s: %s\n", options.target.c_str(), status.error_message().c_str());
    return 1;
  }
  return Soak(options, model.model().architecture().vocab_size()).Run();
}

}  // namespace
}  // namespace cadre

int main(int argc, char** argv) {
  cadre::SoakOptions options;
  CLI::App app("Mixed load on a simulated model for a long time.");
  app.add_option("--target", options.target, "host:port of a cadre-server with --model sim:...");
  app.add_option("--pid", options.pid, "Process of that server, whose resident size is watched")->required();
  app.add_option("--seconds", options.seconds, "How long")->check(CLI::Range(1, 100'000));
  app.add_option("--in-flight", options.in_flight, "Calls at once")->check(CLI::Range(1, 4096));
  app.add_option("--seed", options.seed, "Of the load");
  app.add_option("--max-slope", options.max_slope_kb_per_minute, "Growth in kB a minute that is still good");
  CLI11_PARSE(app, argc, argv);
  return cadre::Main(options);
}
