// Collects what happens to the requests of a run, in bounded memory.
#ifndef CADRE_TOOLS_LOADGEN_LOAD_RECORDER_H_
#define CADRE_TOOLS_LOADGEN_LOAD_RECORDER_H_

#include <cstdint>
#include <limits>
#include <mutex>
#include <string>

#include "tools/loadgen/latency_targets.h"
#include "tools/loadgen/load_report.h"

namespace cadre {

// A request that ended. Times are nanoseconds since the start of the run.
struct RequestRecord {
  int64_t intended = 0;      // when it should have been sent
  int64_t started = 0;       // when it was
  int64_t first_token = -1;  // -1: none came
  int64_t last_token = -1;
  int64_t ended = 0;
  int64_t longest_gap = 0;
  int64_t output_tokens = 0;
  bool measured = false;
  RequestEnd end = RequestEnd::kCompleted;
  std::string why = {};  // code and reason of a rejection or failure
};

// Thread-safe.
class LoadRecorder {
 public:
  explicit LoadRecorder(const LatencyTargets& targets) : targets_(targets) {}

  // An end of the window that is where the last measured request ends.
  static constexpr int64_t kOpenEnd = std::numeric_limits<int64_t>::max();

  // The window of throughput: it is what the rates of the report divide by. Before the first call there is none.
  void SetWindow(int64_t begin, int64_t end);

  void OnSent(int64_t intended, int64_t started, bool measured);
  // The first event of a request arrived.
  void OnStarted(int64_t now, int64_t prompt_tokens, int64_t cached_prompt_tokens);
  // `tokens` arrived, `gap` nanoseconds after those before; a negative gap: they are the first.
  void OnTokens(int64_t now, int64_t gap, int64_t tokens, bool measured);
  void OnEnded(const RequestRecord& record);

  RequestCounts total() const;
  int64_t total_output_tokens() const;
  // What was collected; `now` is the end of the run.
  LoadReport Finish(int64_t now, double offered_rate);

 private:
  TimelineSlot& SlotAt(int64_t time);
  bool InWindow(int64_t time) const { return time >= window_begin_ && time < window_end_; }

  const LatencyTargets targets_;
  mutable std::mutex mutex_;
  // All below is guarded by mutex_.
  LoadReport report_;
  int64_t window_begin_ = 0;
  int64_t window_end_ = 0;
  int64_t last_measured_end_ = 0;
  int64_t slot_width_ = 50'000'000;
};

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_LOAD_RECORDER_H_
