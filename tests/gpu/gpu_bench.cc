#include "tests/gpu/gpu_bench.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_format.h"
#include "kernels/cuda/find_gpu.h"
#include "nlohmann/json.hpp"

namespace cadre::gpu {
namespace {

constexpr int kFewestSamples = 5;
constexpr int kMostSamples = 30;

class Event {
 public:
  Event() { OrDie(cudaEventCreate(&event_), "creating an event"); }
  ~Event() { static_cast<void>(cudaEventDestroy(event_)); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void Record(const Stream& stream) { OrDie(cudaEventRecord(event_, stream.get()), "recording an event"); }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

double OneSampleUs(const Stream& stream, const std::function<void()>& order) {
  Event start;
  Event end;
  start.Record(stream);
  order();
  end.Record(stream);
  stream.Wait();
  float milliseconds = 0.0f;
  OrDie(cudaEventElapsedTime(&milliseconds, start.get(), end.get()), "reading a time");
  return static_cast<double>(milliseconds) * 1e3;
}

}  // namespace

void OrDie(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s (%s)\n", what, cudaGetErrorString(error), cudaGetErrorName(error));
  std::exit(kExitFailed);
}

std::string RequireGpu(const char* program) {
  const auto gpu = cuda::FindGpu();
  if (gpu.ok()) return cuda::DescribeGpu(*gpu);
  std::fprintf(stderr, "%s: not run, there is no GPU to run on: %s\n", program,
               std::string(gpu.status().message()).c_str());
  std::exit(gpu.status().code() == absl::StatusCode::kFailedPrecondition ? kExitNoGpu : kExitFailed);
}

Memory::Memory(size_t size_bytes) : size_bytes_(size_bytes) {
  if (size_bytes == 0) return;
  void* data = nullptr;
  OrDie(cudaMalloc(&data, size_bytes), absl::StrFormat("allocating %d MiB", size_bytes >> 20).c_str());
  data_ = static_cast<std::byte*>(data);
}

Memory::~Memory() {
  if (data_ != nullptr) static_cast<void>(cudaFree(data_));
}

Stream::Stream() { OrDie(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream"); }
Stream::~Stream() { static_cast<void>(cudaStreamDestroy(stream_)); }
void Stream::Wait() const { OrDie(cudaStreamSynchronize(stream_), "waiting for the GPU"); }

Graph::Graph(const Stream& stream, const std::function<void()>& order) {
  OrDie(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "beginning a capture");
  order();
  cudaGraph_t graph = nullptr;
  OrDie(cudaStreamEndCapture(stream.get(), &graph), "ending a capture");
  OrDie(cudaGraphInstantiate(&executable_, graph, 0), "instantiating a graph");
  OrDie(cudaGraphDestroy(graph), "destroying a graph");
}
Graph::~Graph() { static_cast<void>(cudaGraphExecDestroy(executable_)); }
void Graph::Replay(const Stream& stream) const {
  OrDie(cudaGraphLaunch(executable_, stream.get()), "launching a graph");
}

Spread SpreadOf(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const size_t count = samples.size();
  const double median = count % 2 == 1 ? samples[count / 2] : 0.5 * (samples[count / 2 - 1] + samples[count / 2]);
  return {.median = median, .low = samples.front(), .high = samples.back(), .count = static_cast<int>(count)};
}

Spread TimeUs(const Stream& stream, int count, const std::function<void()>& order) {
  std::vector<double> samples;
  samples.reserve(static_cast<size_t>(count));
  OneSampleUs(stream, order);
  for (int i = 0; i < count; ++i) samples.push_back(OneSampleUs(stream, order));
  return SpreadOf(std::move(samples));
}

Spread TimeUsWithin(const Stream& stream, double seconds, const std::function<void()>& order) {
  const double one_us = std::max(OneSampleUs(stream, order), 1.0);
  const double fitting = std::min(seconds * 1e6 / one_us, static_cast<double>(kMostSamples));
  return TimeUs(stream, std::max(static_cast<int>(fitting), kFewestSamples), order);
}

void JsonLine::Key(const char* key) {
  line_ += line_.empty() ? "{" : ", ";
  line_ += nlohmann::json(key).dump() + ": ";
}

JsonLine& JsonLine::Text(const char* key, const std::string& value) {
  Key(key);
  line_ += nlohmann::json(value).dump();
  return *this;
}

JsonLine& JsonLine::Number(const char* key, double value) {
  Key(key);
  line_ += std::isfinite(value) ? absl::StrFormat("%.5g", value) : "null";
  return *this;
}

JsonLine& JsonLine::Integer(const char* key, long long value) {
  Key(key);
  line_ += absl::StrFormat("%d", value);
  return *this;
}

void JsonLine::Print() {
  std::printf("%s}\n", line_.c_str());
  std::fflush(stdout);
}

}  // namespace cadre::gpu
