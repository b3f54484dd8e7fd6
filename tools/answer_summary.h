// What an answer took, for the line below it.
#ifndef CADRE_TOOLS_ANSWER_SUMMARY_H_
#define CADRE_TOOLS_ANSWER_SUMMARY_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "cadre/v1/generation_service.pb.h"

namespace cadre {

// The finished events of a request, of all its sequences together.
class AnswerSummary {
 public:
  void Add(const v1::FinishedEvent& finished);
  bool empty() const { return !last_.has_value(); }

  // "42 tokens after a prompt of 5, 31.5 tokens/s, first token after 12.0 ms, end: length", and what experts lost. The
  // pace is the server's: tokens may travel together, and reach a client all at once. `first_token` is what the client
  // waited for. Not to be called while empty.
  std::string Text(absl::Duration first_token) const;

 private:
  std::optional<v1::FinishedEvent> last_;
  int num_finished_ = 0;
  int num_begun_ = 0;  // of these, with a token
  int64_t generated_tokens_ = 0;
  v1::RoutingReport routing_;
  absl::Duration first_ = absl::InfiniteDuration();  // the first token of the first sequence, from arrival on
  absl::Duration end_ = absl::ZeroDuration();        // of the last sequence
};

}  // namespace cadre

#endif  // CADRE_TOOLS_ANSWER_SUMMARY_H_
