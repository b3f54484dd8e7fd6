// What programs that measure a GPU share: memory, a stream, times by events, and lines of JSON. They are no servers: an
// error of CUDA ends them.
#ifndef CADRE_TESTS_GPU_GPU_BENCH_H_
#define CADRE_TESTS_GPU_GPU_BENCH_H_

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/launch.h"

namespace cadre::gpu {

inline constexpr int kExitFailed = 1;
inline constexpr int kExitNoGpu = 77;

// Ends the process with kExitFailed, unless `error` is cudaSuccess. `what` was tried.
void OrDie(cudaError_t error, const char* what);
// Ends the process with kExitNoGpu and a line that says why, when no GPU can be used. Returns its name.
std::string RequireGpu(const char* program);

// Memory of the device.
class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t size_bytes);
  ~Memory();
  Memory(Memory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  Memory& operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
    return *this;
  }

  std::byte* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
};

class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }
  void Wait() const;

 private:
  cudaStream_t stream_ = nullptr;
};

// What a captured stream was told, ready to be replayed.
class Graph {
 public:
  Graph(const Stream& stream, const std::function<void()>& order);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void Replay(const Stream& stream) const;

 private:
  cudaGraphExec_t executable_ = nullptr;
};

// Of several samples.
struct Spread {
  double median = 0.0;
  double low = 0.0;
  double high = 0.0;
  int count = 0;
};
Spread SpreadOf(std::vector<double> samples);

// Microseconds between two events around what `order` orders on the stream, `count` times, after one that is not
// counted.
Spread TimeUs(const Stream& stream, int count, const std::function<void()>& order);
// The same with as many samples as fit into about `seconds`, 5 to 30.
Spread TimeUsWithin(const Stream& stream, double seconds, const std::function<void()>& order);

// One line of JSON, its keys in the order of the calls; printed and flushed by Print.
class JsonLine {
 public:
  JsonLine& Text(const char* key, const std::string& value);
  JsonLine& Number(const char* key, double value);  // null when it is not finite
  JsonLine& Integer(const char* key, long long value);
  void Print();

 private:
  void Key(const char* key);
  std::string line_;
};

}  // namespace cadre::gpu

#endif  // CADRE_TESTS_GPU_GPU_BENCH_H_
