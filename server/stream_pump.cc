#include "server/stream_pump.h"

#include <utility>

namespace cadre {

StreamPump::StreamPump() : thread_([this] { Run(); }) {}

StreamPump::~StreamPump() { Stop(); }

void StreamPump::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

bool StreamPump::Post(std::shared_ptr<Pumped> stream, Time due) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return false;
  posted_.push({due, num_posted_++, std::move(stream)});
  // Waking a thread costs more than all the rest here.
  if (due < wake_time_) changed_.notify_one();
  return true;
}

void StreamPump::Run() {
  std::vector<std::shared_ptr<Pumped>> batch;
  std::unique_lock lock(mutex_);
  for (;;) {
    const Time now = std::chrono::steady_clock::now();
    while (!posted_.empty() && (stopping_ || posted_.top().due <= now)) {
      batch.push_back(posted_.top().stream);
      posted_.pop();
    }
    if (batch.empty()) {
      if (stopping_) return;
      if (posted_.empty()) {
        wake_time_ = Time::max();
        changed_.wait(lock);
      } else {
        wake_time_ = posted_.top().due;
        changed_.wait_until(lock, wake_time_);
      }
      wake_time_ = Time::min();
      continue;
    }
    lock.unlock();
    for (const std::shared_ptr<Pumped>& stream : batch) stream->PumpNow();
    batch.clear();
    lock.lock();
  }
}

}  // namespace cadre
