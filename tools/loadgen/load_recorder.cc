#include "tools/loadgen/load_recorder.h"

#include <algorithm>

namespace cadre {
namespace {

constexpr size_t kMaxSlots = 200;
constexpr double kSecondsPerNanosecond = 1e-9;

void CountEnd(RequestEnd end, RequestCounts& counts) {
  switch (end) {
    case RequestEnd::kCompleted:
      ++counts.completed;
      break;
    case RequestEnd::kRejected:
      ++counts.rejected;
      break;
    case RequestEnd::kFailed:
      ++counts.failed;
      break;
    case RequestEnd::kUnfinished:
      ++counts.unfinished;
      break;
  }
}

RequestLatency LatencyOf(const RequestRecord& record) {
  RequestLatency latency{.first_token = record.first_token - record.intended,
                         .end_to_end = record.ended - record.intended,
                         .longest_gap = record.longest_gap};
  if (record.output_tokens > 1) {
    latency.per_token_mean = (record.last_token - record.first_token) / (record.output_tokens - 1);
  }
  return latency;
}

}  // namespace

void TimelineSlot::Add(const TimelineSlot& other) {
  requests.sent += other.requests.sent;
  requests.completed += other.requests.completed;
  requests.rejected += other.requests.rejected;
  requests.failed += other.requests.failed;
  requests.unfinished += other.requests.unfinished;
  output_tokens += other.output_tokens;
  ttft.Add(other.ttft);
  itl.Add(other.itl);
  e2e.Add(other.e2e);
}

void LoadRecorder::SetWindow(int64_t begin, int64_t end) {
  std::lock_guard<std::mutex> lock(mutex_);
  window_begin_ = begin;
  window_end_ = end;
}

// Slots become twice as wide when there are too many.
TimelineSlot& LoadRecorder::SlotAt(int64_t time) {
  std::vector<TimelineSlot>& slots = report_.timeline;
  auto index = static_cast<size_t>(std::max<int64_t>(0, time) / slot_width_);
  while (index >= kMaxSlots) {
    for (size_t i = 0; i < slots.size(); i += 2) {
      if (i > 0) slots[i / 2] = std::move(slots[i]);
      if (i + 1 < slots.size()) slots[i / 2].Add(slots[i + 1]);
    }
    slots.resize((slots.size() + 1) / 2);
    slot_width_ *= 2;
    index /= 2;
  }
  if (index >= slots.size()) slots.resize(index + 1);
  return slots[index];
}

void LoadRecorder::OnSent(int64_t intended, int64_t started, bool measured) {
  std::lock_guard<std::mutex> lock(mutex_);
  ++report_.total.sent;
  ++SlotAt(intended).requests.sent;
  if (!measured) return;
  ++report_.requests.sent;
  report_.send_lag.Record(started - intended);
}

void LoadRecorder::OnStarted(int64_t now, int64_t prompt_tokens, int64_t cached_prompt_tokens) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!InWindow(now)) return;
  report_.prompt_tokens += prompt_tokens;
  report_.cached_prompt_tokens += cached_prompt_tokens;
}

void LoadRecorder::OnTokens(int64_t now, int64_t gap, int64_t tokens, bool measured) {
  std::lock_guard<std::mutex> lock(mutex_);
  report_.total_output_tokens += tokens;
  if (InWindow(now)) report_.output_tokens += tokens;
  TimelineSlot& slot = SlotAt(now);
  slot.output_tokens += tokens;
  if (gap < 0) return;
  slot.itl.Record(gap / tokens, tokens);
  if (measured) report_.itl.Record(gap / tokens, tokens);
}

void LoadRecorder::OnEnded(const RequestRecord& record) {
  const RequestLatency latency = LatencyOf(record);
  std::lock_guard<std::mutex> lock(mutex_);
  TimelineSlot& slot = SlotAt(record.intended);
  CountEnd(record.end, report_.total);
  CountEnd(record.end, slot.requests);
  if (record.first_token >= 0) slot.ttft.Record(latency.first_token);
  if (record.end == RequestEnd::kCompleted) slot.e2e.Record(latency.end_to_end);
  if (record.end == RequestEnd::kCompleted && InWindow(record.ended)) ++report_.completed_in_window;
  if (!record.measured) return;

  CountEnd(record.end, report_.requests);
  last_measured_end_ = std::max(last_measured_end_, record.ended);
  if (record.first_token >= 0) report_.ttft.Record(latency.first_token);
  if (record.end == RequestEnd::kCompleted) {
    report_.e2e.Record(latency.end_to_end);
    if (record.output_tokens > 1) report_.tpot.Record(latency.per_token_mean);
    if (targets_.Met(latency)) ++report_.good;
  } else if (record.end == RequestEnd::kRejected) {
    report_.reject.Record(latency.end_to_end);
    ++report_.rejects[record.why];
  } else if (record.end == RequestEnd::kFailed) {
    ++report_.failures[record.why];
  }
}

RequestCounts LoadRecorder::total() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return report_.total;
}

int64_t LoadRecorder::total_output_tokens() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return report_.total_output_tokens;
}

LoadReport LoadRecorder::Finish(int64_t now, double offered_rate) {
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t end = window_end_ == kOpenEnd ? std::max(last_measured_end_, window_begin_) : window_end_;
  report_.window_seconds = static_cast<double>(end - window_begin_) * kSecondsPerNanosecond;
  report_.total_seconds = static_cast<double>(now) * kSecondsPerNanosecond;
  report_.slot_seconds = static_cast<double>(slot_width_) * kSecondsPerNanosecond;
  report_.offered_rate = offered_rate;
  return std::move(report_);
}

}  // namespace cadre
