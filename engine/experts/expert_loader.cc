#include "engine/experts/expert_loader.h"

#include <xxhash.h>

#include <algorithm>
#include <span>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace cadre {

namespace {

// What is known of the disk is of about so many loads.
constexpr double kRecentLoads = 64.0;

absl::Status Stopped() { return absl::CancelledError("the server ends"); }

}  // namespace

ExpertLoader::ExpertLoader(const ExpertLoaderOptions& options, const ExpertSource* source)
    : options_(options), source_(source), checksums_(static_cast<size_t>(options.num_experts)) {
  CADRE_CHECK_GE(options.num_threads, 1);
  CADRE_CHECK_GE(options.num_ahead_threads, 0);
  CADRE_CHECK_GE(options.max_attempts, 1);
  threads_.reserve(static_cast<size_t>(options.num_threads) + static_cast<size_t>(options.num_ahead_threads));
  StartThreads(options.num_threads, &ExpertLoader::WorkOnMisses);
  CADRE_CHECK(!threads_.empty());
  const size_t num_miss_threads = threads_.size();
  StartThreads(options.num_ahead_threads, &ExpertLoader::WorkAhead);
  has_ahead_thread_ = threads_.size() > num_miss_threads;
}

void ExpertLoader::StartThreads(int count, void (ExpertLoader::*work)()) {
  for (int i = 0; i < count; ++i) {
    try {
      threads_.emplace_back([this, work] { (this->*work)(); });
    } catch (const std::system_error&) {  // no more threads are allowed: those that there are do it
      return;
    }
  }
}

ExpertLoader::~ExpertLoader() {
  {
    const std::lock_guard lock(mutex_);
    must_stop_ = true;
    misses_.clear();
    ahead_.clear();
  }
  has_misses_.notify_all();
  may_go_ahead_.notify_all();
  stops_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ExpertLoader::Order(const LoadTicket& ticket, std::byte* to, LoadCause cause) {
  const bool is_miss = cause == LoadCause::kMiss || !has_ahead_thread_;
  {
    const std::lock_guard lock(mutex_);
    (is_miss ? misses_ : ahead_).push_back({ticket, to});
  }
  (is_miss ? has_misses_ : may_go_ahead_).notify_one();
}

void ExpertLoader::Hasten(ExpertId expert) {
  {
    const std::lock_guard lock(mutex_);
    if (unhurried_.erase(expert) > 0) {
      ++num_urgent_;
    } else {
      const auto it = std::ranges::find(ahead_, expert, [](const Job& job) { return job.ticket.expert; });
      if (it == ahead_.end()) return;
      misses_.push_back(*it);
      ahead_.erase(it);
    }
  }
  has_misses_.notify_one();
  may_go_ahead_.notify_all();
}

void ExpertLoader::HastenAll() {
  {
    const std::lock_guard lock(mutex_);
    num_urgent_ += static_cast<int>(unhurried_.size());
    unhurried_.clear();
    misses_.insert(misses_.end(), ahead_.begin(), ahead_.end());
    ahead_.clear();
  }
  has_misses_.notify_all();
  may_go_ahead_.notify_all();
}

std::vector<LoadTicket> ExpertLoader::Withdraw() {
  std::vector<LoadTicket> tickets;
  {
    const std::lock_guard lock(mutex_);
    for (const Job& job : misses_) tickets.push_back(job.ticket);
    misses_.clear();
  }
  may_go_ahead_.notify_all();
  return tickets;
}

std::vector<LoadOutcome> ExpertLoader::TakeEnded() {
  const std::lock_guard lock(mutex_);
  return std::exchange(ended_, {});
}

bool ExpertLoader::WaitForEnd(absl::Duration timeout) {
  std::unique_lock lock(mutex_);
  return has_ended_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [this] { return !ended_.empty(); });
}

ExpertLoaderCounters ExpertLoader::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

double ExpertLoader::load_seconds() const {
  const std::lock_guard lock(mutex_);
  return recent_loads_ > 0.0 ? absl::ToDoubleSeconds(recently_busy_) / recent_loads_ : 0.0;
}

void ExpertLoader::WorkOnMisses() {
  const auto pace = [this] {
    const std::lock_guard lock(mutex_);
    return must_stop_ ? Stopped() : absl::OkStatus();
  };
  while (true) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      has_misses_.wait(lock, [this] { return must_stop_ || !misses_.empty(); });
      if (must_stop_) return;
      job = misses_.front();
      misses_.pop_front();
      ++num_urgent_;
    }
    End(job, Load(job, pace));
  }
}

void ExpertLoader::WorkAhead() {
  while (true) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      may_go_ahead_.wait(lock, [this] { return must_stop_ || (!ahead_.empty() && IsQuiet()); });
      if (must_stop_) return;
      job = ahead_.front();
      ahead_.pop_front();
      unhurried_.insert(job.ticket.expert);
    }
    const auto pace = [this, expert = job.ticket.expert] {
      std::unique_lock lock(mutex_);
      may_go_ahead_.wait(lock, [&] { return must_stop_ || IsQuiet() || !unhurried_.contains(expert); });
      return must_stop_ ? Stopped() : absl::OkStatus();
    };
    End(job, Load(job, pace));
  }
}

void ExpertLoader::End(const Job& job, absl::Status status) {
  {
    const std::lock_guard lock(mutex_);
    if (unhurried_.erase(job.ticket.expert) == 0) --num_urgent_;
    ended_.push_back({job.ticket, std::move(status)});
  }
  has_ended_.notify_one();
  may_go_ahead_.notify_all();
}

absl::Status ExpertLoader::Load(const Job& job, ReadPace pace) {
  absl::Duration pause = options_.first_pause;
  for (int attempt = 1;; ++attempt) {
    const absl::Time begin = clock_.Now();
    NoteBeginOfRead(begin);
    absl::Status status = ReadAndCheck(job, pace);
    NoteEndOfRead(begin, status.ok());
    // What cannot be held as it is asked for will not be another time.
    if (status.ok() || absl::IsInvalidArgument(status)) return status;
    if (attempt == options_.max_attempts || !Pause(pause)) return status;
    pause *= 2;
  }
}

absl::Status ExpertLoader::ReadAndCheck(const Job& job, ReadPace pace) {
  const auto size = static_cast<size_t>(source_->expert_bytes());
  CADRE_RETURN_IF_ERROR(source_->Read(job.ticket.expert, std::span(job.to, size), pace));
  const uint64_t checksum = XXH3_64bits(job.to, size);
  const std::lock_guard lock(mutex_);
  std::optional<uint64_t>& first = checksums_[static_cast<size_t>(job.ticket.expert)];
  if (!first.has_value()) first = checksum;
  if (*first == checksum) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(source_->Describe(job.ticket.expert),
                                          ": its bytes are not those that were read first: the checkpoint has changed "
                                          "on disk, or the disk is failing"));
}

void ExpertLoader::NoteBeginOfRead(absl::Time now) {
  const std::lock_guard lock(mutex_);
  if (num_reading_++ == 0) busy_since_ = now;
}

void ExpertLoader::NoteEndOfRead(absl::Time begin, bool has_succeeded) {
  const absl::Time now = clock_.Now();
  const std::lock_guard lock(mutex_);
  counters_.read_time += now - begin;
  recently_busy_ += std::max(now - busy_since_, absl::ZeroDuration());
  busy_since_ = now;
  --num_reading_;
  recent_loads_ += 1.0;
  if (recent_loads_ >= kRecentLoads) {
    recent_loads_ /= 2;
    recently_busy_ /= 2;
  }
  if (has_succeeded) {
    counters_.bytes += source_->expert_bytes();
  } else {
    ++counters_.errors;
  }
}

bool ExpertLoader::Pause(absl::Duration duration) {
  std::unique_lock lock(mutex_);
  return !stops_.wait_for(lock, absl::ToChronoNanoseconds(duration), [this] { return must_stop_; });
}

}  // namespace cadre
