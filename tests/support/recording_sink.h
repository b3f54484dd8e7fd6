// A sink that remembers what it was told, and in which order.
#ifndef CADRE_TESTS_SUPPORT_RECORDING_SINK_H_
#define CADRE_TESTS_SUPPORT_RECORDING_SINK_H_

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/request/token_sink.h"

namespace cadre {

// One sequence of a request.
struct RecordedSequence {
  std::vector<int32_t> token_ids;
  std::vector<TokenLogprob> logprobs;
  std::string text;  // of the deltas and the summary
  int num_finished = 0;
  FinishSummary summary;
};

// Thread-safe. Violations of the promised order are remembered, not asserted, so that any test can look at them.
class RecordingSink final : public TokenSink {
 public:
  void OnStarted(RequestStart start) override {
    std::lock_guard lock(mutex_);
    if (num_started_++ > 0 || num_deltas_ > 0 || num_finished_ > 0) in_order_ = false;
    start_ = std::move(start);
  }
  void OnTokens(TokenDelta delta) override {
    std::lock_guard lock(mutex_);
    RecordedSequence& sequence = sequences_[delta.index];
    if (num_started_ != 1 || num_finished_ > 0 || sequence.num_finished > 0 || delta.token_ids.empty()) {
      in_order_ = false;
    }
    ++num_deltas_;
    text_ += delta.text;
    token_ids_.insert(token_ids_.end(), delta.token_ids.begin(), delta.token_ids.end());
    sequence.text += delta.text;
    sequence.token_ids.insert(sequence.token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
    sequence.logprobs.insert(sequence.logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
  }
  void OnFinish(FinishSummary summary) override {
    {
      std::lock_guard lock(mutex_);
      RecordedSequence& sequence = sequences_[summary.index];
      if (num_finished_ > 0 || sequence.num_finished++ > 0) in_order_ = false;
      num_finished_ += summary.is_last;
      text_ += summary.text;
      sequence.text += summary.text;
      sequence.summary = summary;
      summary_ = std::move(summary);
    }
    finished_.notify_all();
  }

  void AwaitFinish() {
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [this] { return num_finished_ > 0; });
  }

  bool in_order() const { return Read(&RecordingSink::in_order_); }
  int num_started() const { return Read(&RecordingSink::num_started_); }
  int num_deltas() const { return Read(&RecordingSink::num_deltas_); }
  int num_finished() const { return Read(&RecordingSink::num_finished_); }  // of the request, not of its sequences
  bool finished() const { return num_finished() > 0; }
  std::vector<int32_t> token_ids() const { return Read(&RecordingSink::token_ids_); }
  std::string text() const { return Read(&RecordingSink::text_); }          // of the deltas and the summary
  FinishSummary summary() const { return Read(&RecordingSink::summary_); }  // the last one
  RequestStart start() const { return Read(&RecordingSink::start_); }
  std::map<int32_t, RecordedSequence> sequences() const { return Read(&RecordingSink::sequences_); }

 private:
  template <typename T>
  T Read(T RecordingSink::*field) const {
    std::lock_guard lock(mutex_);
    return this->*field;
  }

  mutable std::mutex mutex_;
  std::condition_variable finished_;
  bool in_order_ = true;
  int num_started_ = 0;
  int num_deltas_ = 0;
  int num_finished_ = 0;
  std::vector<int32_t> token_ids_;
  std::string text_;
  FinishSummary summary_;
  RequestStart start_;
  std::map<int32_t, RecordedSequence> sequences_;  // by index
};

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_RECORDING_SINK_H_
