// What a request has to say and its client has not taken yet: for each of its sequences the tokens that came since the
// last message, and the end.
#ifndef CADRE_SERVER_TOKEN_OUTBOX_H_
#define CADRE_SERVER_TOKEN_OUTBOX_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <variant>

#include "cadre/v1/generation_service.pb.h"
#include "engine/request/token_sink.h"
#include "server/translate.h"

namespace cadre {

// The start leaves first; then the sequences take turns, each with its tokens as one message, then with its end. Not
// thread-safe.
class TokenOutbox {
 public:
  void Add(RequestStart start) { start_ = std::move(start); }
  // Joins what waits of the same sequence.
  void Add(TokenDelta delta);
  void Add(FinishSummary summary);

  bool empty() const { return !start_ && sequences_.empty(); }
  bool has_start() const { return start_.has_value(); }
  // Of the tokens that wait: text, ids and details.
  size_t bytes() const { return bytes_; }
  static size_t Bytes(const TokenDelta& delta);

  using Item = std::variant<RequestStart, TokenDelta, FinishSummary>;
  // Takes the next one out. True when every sequence that had something to say has had its turn. REQUIRES: not empty.
  bool Take(Item* item);
  void Clear();

 private:
  struct Waiting {
    TokenDelta delta;
    std::optional<FinishSummary> finished;
  };

  std::optional<RequestStart> start_;
  std::map<int32_t, Waiting> sequences_;  // by index; each has something to say
  int32_t last_index_ = -1;               // whose turn it was
  size_t bytes_ = 0;
};

void FillEvent(const RequestFacts& facts, TokenOutbox::Item&& item, v1::GenerateResponse* event);

}  // namespace cadre

#endif  // CADRE_SERVER_TOKEN_OUTBOX_H_
