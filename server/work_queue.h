// A thread for work that is too long for gRPC's own threads, of which there may be two for all calls of the process.
#ifndef CADRE_SERVER_WORK_QUEUE_H_
#define CADRE_SERVER_WORK_QUEUE_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace cadre {

class WorkQueue {
 public:
  explicit WorkQueue(size_t max_tasks);
  // As Stop.
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  // Runs what is queued, then joins. Idempotent; one thread at a time, and none of the tasks.
  void Stop();

  // False when max_tasks tasks wait already, or after Stop; the task is not run then. Any thread; never waits for a
  // task.
  bool Post(std::function<void()> task);
  // Tasks that no one runs yet.
  size_t num_waiting() const;

 private:
  void Run();

  const size_t max_tasks_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_WORK_QUEUE_H_
