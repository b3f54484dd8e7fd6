#include "server/token_outbox.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace cadre {
namespace {

template <typename T>
void MoveToEnd(std::vector<T>&& from, std::vector<T>* to) {
  if (to->empty()) {
    *to = std::move(from);
  } else {
    to->insert(to->end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  }
}

bool HasContent(const TokenDelta& delta) { return !delta.token_ids.empty() || !delta.text.empty(); }

}  // namespace

size_t TokenOutbox::Bytes(const TokenDelta& delta) {
  size_t bytes = delta.text.size() + delta.token_ids.size() * sizeof(int32_t);
  for (const TokenLogprob& logprob : delta.logprobs) {
    bytes += sizeof(TokenLogprob) + logprob.alternatives.size() * sizeof(TokenAlternative);
  }
  return bytes;
}

void TokenOutbox::Add(TokenDelta delta) {
  bytes_ += Bytes(delta);
  TokenDelta& waiting = sequences_[delta.index].delta;
  waiting.index = delta.index;
  waiting.text += delta.text;
  MoveToEnd(std::move(delta.token_ids), &waiting.token_ids);
  MoveToEnd(std::move(delta.logprobs), &waiting.logprobs);
}

void TokenOutbox::Add(FinishSummary summary) {
  Waiting& waiting = sequences_[summary.index];
  waiting.finished = std::move(summary);
}

bool TokenOutbox::Take(Item* item) {
  if (start_) {
    *item = *std::exchange(start_, std::nullopt);
    return false;
  }
  auto next = sequences_.upper_bound(last_index_);
  if (next == sequences_.end()) next = sequences_.begin();
  auto& [index, waiting] = *next;
  last_index_ = index;
  const bool was_last = std::next(next) == sequences_.end();
  if (HasContent(waiting.delta)) {
    bytes_ -= Bytes(waiting.delta);
    *item = std::exchange(waiting.delta, {});
    if (waiting.finished) {
      last_index_ = index - 1;  // its end goes with its last tokens
      return false;
    }
  } else {
    *item = *std::move(waiting.finished);
  }
  sequences_.erase(next);
  return was_last;
}

void TokenOutbox::Clear() {
  start_.reset();
  sequences_.clear();
  bytes_ = 0;
}

void FillEvent(const RequestFacts& facts, TokenOutbox::Item&& item, v1::GenerateResponse* event) {
  if (const auto* start = std::get_if<RequestStart>(&item)) {
    FillStarted(facts, *start, event->mutable_started());
  } else if (auto* delta = std::get_if<TokenDelta>(&item)) {
    FillDelta(std::move(*delta), facts, event->mutable_delta());
  } else {
    FillFinished(std::get<FinishSummary>(item), event->mutable_finished());
  }
}

}  // namespace cadre
