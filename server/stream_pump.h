// The thread that writes what streams have to say, so that the engine's step does not wait for gRPC: a write costs
// about ten times as much as a token costs the engine's loop.
#ifndef CADRE_SERVER_STREAM_PUMP_H_
#define CADRE_SERVER_STREAM_PUMP_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <queue>
#include <thread>
#include <vector>

namespace cadre {

// What can be pumped.
class Pumped {
 public:
  virtual ~Pumped() = default;
  // Writes what can be written. Any thread.
  virtual void PumpNow() = 0;
};

class StreamPump {
 public:
  using Time = std::chrono::steady_clock::time_point;

  StreamPump();
  // As Stop.
  ~StreamPump();
  StreamPump(const StreamPump&) = delete;
  StreamPump& operator=(const StreamPump&) = delete;

  // Pumps all that is posted, due or not, then joins. Idempotent; one thread at a time.
  void Stop();

  // Calls stream->PumpNow() once it is `due`, the earliest due first. False after Stop: nothing is called then. Any
  // thread; never waits for a stream.
  bool Post(std::shared_ptr<Pumped> stream, Time due);

 private:
  struct Entry {
    Time due;
    int64_t number;  // of the post: equal times stay in order
    std::shared_ptr<Pumped> stream;
    bool operator>(const Entry& other) const { return due != other.due ? due > other.due : number > other.number; }
  };

  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> posted_;
  int64_t num_posted_ = 0;
  Time wake_time_ = Time::min();  // when the thread wakes by itself; min: it is awake
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_STREAM_PUMP_H_
