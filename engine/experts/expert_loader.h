// Reads experts on threads of its own: those that a step waits for before those that might be wanted, each once however
// many wait for it, again when a read fails, and checks that an expert is the same as when it was first read.
//
// What is read ahead has threads of its own, which stand still while anything is read, or is to be read, that a step
// waits for: it delays nobody by more than a piece (ExpertSource).
#ifndef CADRE_ENGINE_EXPERTS_EXPERT_LOADER_H_
#define CADRE_ENGINE_EXPERTS_EXPERT_LOADER_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/base/clock.h"
#include "engine/experts/expert_source.h"
#include "engine/experts/slot_table.h"

namespace cadre {

struct ExpertLoaderOptions {
  int64_t num_experts = 0;  // of all layers together
  int num_threads = 4;      // reads at a time that steps wait for
  int num_ahead_threads = 1;
  int max_attempts = 3;  // of one load
  // Before the second attempt; twice as long before each that follows.
  absl::Duration first_pause = absl::Milliseconds(10);
};

// Since the start. Of reads that have ended.
struct ExpertLoaderCounters {
  int64_t bytes = 0;         // as held in memory, of loads that succeeded
  int64_t errors = 0;        // attempts that failed, checksums that differed included
  absl::Duration read_time;  // of all threads together, with the time that reads ahead stood still
};

struct LoadOutcome {
  LoadTicket ticket;
  absl::Status status;  // of the last attempt; DATA_LOSS for an expert that has changed
};

// One thread orders, and takes what has ended.
class ExpertLoader {
 public:
  // `source` outlives the loader.
  ExpertLoader(const ExpertLoaderOptions& options, const ExpertSource* source);
  // Waits for reads under way; those that have not begun are dropped.
  ~ExpertLoader();
  ExpertLoader(const ExpertLoader&) = delete;
  ExpertLoader& operator=(const ExpertLoader&) = delete;

  // `to` has the source's expert_bytes() and belongs to the loader until the outcome is taken.
  void Order(const LoadTicket& ticket, std::byte* to, LoadCause cause);
  // A step waits for an expert that was ordered ahead: its read stands still no more. Nothing if it has ended.
  void Hasten(ExpertId expert);
  // A step waits for memory that reads ahead have: as if for all of them.
  void HastenAll();
  // Takes back what steps wait for and no thread has begun to read.
  std::vector<LoadTicket> Withdraw();
  // Ended since the last call, in the order of their ends.
  std::vector<LoadOutcome> TakeEnded();
  // Until something has ended that was not taken. False when `timeout` has passed before.
  bool WaitForEnd(absl::Duration timeout);
  ExpertLoaderCounters counters() const;
  // Of the latest loads: how long the disk was busy for each, whatever it did at the same time. 0: not known yet.
  double load_seconds() const;

 private:
  struct Job {
    LoadTicket ticket;
    std::byte* to = nullptr;
  };

  void StartThreads(int count, void (ExpertLoader::*work)());
  void WorkOnMisses();
  void WorkAhead();
  // Whether no step waits for a read. REQUIRES: the mutex.
  bool IsQuiet() const { return misses_.empty() && num_urgent_ == 0; }
  void End(const Job& job, absl::Status status);
  absl::Status Load(const Job& job, ReadPace pace);
  absl::Status ReadAndCheck(const Job& job, ReadPace pace);
  void NoteBeginOfRead(absl::Time now);
  void NoteEndOfRead(absl::Time begin, bool has_succeeded);
  // False if the loader ends meanwhile.
  bool Pause(absl::Duration duration);

  const ExpertLoaderOptions options_;
  const ExpertSource* const source_;
  const MonotonicClock clock_;
  mutable std::mutex mutex_;  // for what follows
  std::condition_variable has_misses_;
  std::condition_variable may_go_ahead_;
  std::condition_variable stops_;  // apart, so that nobody who pauses takes a notice of work
  std::condition_variable has_ended_;
  bool must_stop_ = false;
  std::deque<Job> misses_;
  std::deque<Job> ahead_;
  int num_urgent_ = 0;                       // reads under way that steps wait for
  absl::flat_hash_set<ExpertId> unhurried_;  // reads under way that nobody waits for
  std::vector<LoadOutcome> ended_;
  std::vector<std::optional<uint64_t>> checksums_;  // by expert, of its first read
  ExpertLoaderCounters counters_;
  int num_reading_ = 0;
  absl::Time busy_since_;         // while anything is read
  absl::Duration recently_busy_;  // of so many loads:
  double recent_loads_ = 0.0;
  bool has_ahead_thread_ = false;     // known when the constructor has ended
  std::vector<std::thread> threads_;  // last: they use all of it
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_EXPERT_LOADER_H_
