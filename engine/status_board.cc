#include "engine/status_board.h"

#include <chrono>

namespace cadre {

void StatusBoard::Publish(const Notice& notice) {
  std::lock_guard lock(mutex_);
  notice_ = notice;
}

StatusBoard::Notice StatusBoard::Read() const {
  std::lock_guard lock(mutex_);
  return notice_;
}

void StatusBoard::SetFinished(int64_t num_finished) {
  {
    std::lock_guard lock(mutex_);
    num_finished_ = num_finished;
  }
  finished_.notify_all();
}

bool StatusBoard::AwaitFinished(const std::function<int64_t()>& num_expected, absl::Duration timeout) {
  std::unique_lock lock(mutex_);
  const auto reached = [&] { return num_finished_ == num_expected(); };
  if (timeout == absl::InfiniteDuration()) {
    finished_.wait(lock, reached);
    return true;
  }
  return finished_.wait_for(lock, absl::ToChronoNanoseconds(timeout), reached);
}

}  // namespace cadre
