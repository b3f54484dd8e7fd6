#include "server/token_outbox.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "server/simulated_tokenizer.h"

namespace cadre {
namespace {

bool TakeEvent(TokenOutbox* outbox, const RequestFacts& facts, v1::GenerateResponse* event) {
  TokenOutbox::Item item;
  const bool ends_round = outbox->Take(&item);
  FillEvent(facts, std::move(item), event);
  return ends_round;
}

// What leaves, as "started", "0:ab", "0:end".
std::vector<std::string> Drain(TokenOutbox* outbox, int count = 1000) {
  std::vector<std::string> events;
  while (!outbox->empty() && count-- > 0) {
    v1::GenerateResponse event;
    const bool ends_round = TakeEvent(outbox, {}, &event);
    std::string text = event.has_started() ? "started"
                       : event.has_delta() ? std::to_string(event.delta().index()) + ":" + event.delta().text()
                                           : std::to_string(event.finished().index()) + ":end";
    events.push_back(text + (ends_round ? " |" : ""));
  }
  return events;
}

TokenDelta Delta(int32_t index, const std::string& text) { return {.index = index, .text = text, .token_ids = {1}}; }

FinishSummary End(int32_t index) {
  FinishSummary summary;
  summary.index = index;
  summary.reason = FinishReason::kLength;
  return summary;
}

TEST(TokenOutboxTest, SequencesTakeTurns) {
  TokenOutbox outbox;
  outbox.Add(RequestStart());
  outbox.Add(Delta(1, "x"));
  outbox.Add(Delta(0, "a"));
  outbox.Add(Delta(1, "y"));
  EXPECT_EQ(Drain(&outbox, 2), (std::vector<std::string>{"started", "0:a"}));
  outbox.Add(Delta(0, "b"));  // waits until the others have had theirs
  outbox.Add(Delta(2, "m"));
  EXPECT_EQ(Drain(&outbox), (std::vector<std::string>{"1:xy", "2:m |", "0:b |"}));
  EXPECT_EQ(outbox.bytes(), 0u);
}

TEST(TokenOutboxTest, AnEndComesRightAfterTheLastTokens) {
  TokenOutbox outbox;
  outbox.Add(Delta(0, "a"));
  outbox.Add(Delta(1, "x"));
  outbox.Add(End(0));
  EXPECT_EQ(Drain(&outbox), (std::vector<std::string>{"0:a", "0:end", "1:x |"}));
  outbox.Add(End(1));
  EXPECT_EQ(Drain(&outbox), (std::vector<std::string>{"1:end |"}));
}

TEST(TokenOutboxTest, BytesCountTextIdsAndDetails) {
  TokenOutbox outbox;
  TokenDelta delta = Delta(0, "abc");
  delta.logprobs = {{.token_id = 1, .alternatives = {{2, -1.0f}, {3, -2.0f}}}};
  outbox.Add(delta);
  const size_t one = 3 + sizeof(int32_t) + sizeof(TokenLogprob) + 2 * sizeof(TokenAlternative);
  EXPECT_EQ(outbox.bytes(), one);
  outbox.Add(delta);
  delta.index = 5;
  outbox.Add(delta);
  EXPECT_EQ(outbox.bytes(), 3 * one);
  v1::GenerateResponse event;
  TakeEvent(&outbox, {}, &event);
  EXPECT_EQ(outbox.bytes(), one);
  EXPECT_EQ(event.delta().details_size(), 2);
  outbox.Clear();
  EXPECT_EQ(outbox.bytes(), 0u);
  EXPECT_TRUE(outbox.empty());
}

TEST(TokenOutboxTest, BytesOfTokensAreTold) {
  const std::shared_ptr<const Tokenizer> tokenizer = *MakeSimulatedTokenizer(300);
  const RequestFacts facts{.request_id = "r", .model = "m", .has_token_bytes = true, .tokenizer = tokenizer};
  TokenOutbox outbox;
  RequestStart start;
  start.cached_prompt_tokens = 16;
  start.prompt_logprobs = {{.token_id = 0xC3, .alternatives = {}},
                           {.token_id = 0xA9, .logprob = -0.5f, .rank = 2, .alternatives = {{270, -0.25f}}}};
  outbox.Add(start);
  outbox.Add({.index = 0, .text = "", .token_ids = {0xE2, 270}});
  v1::GenerateResponse event;
  TakeEvent(&outbox, facts, &event);
  EXPECT_EQ(event.started().cached_prompt_tokens(), 16);
  ASSERT_EQ(event.started().prompt_details_size(), 2);
  EXPECT_EQ(event.started().prompt_details(0).token_bytes(), "\xC3");
  EXPECT_EQ(event.started().prompt_details(1).token_bytes(), "\xA9");
  EXPECT_EQ(event.started().prompt_details(1).rank(), 2);
  EXPECT_EQ(event.started().prompt_details(1).alternatives(0).token_bytes(), " t270");
  event.Clear();
  TakeEvent(&outbox, facts, &event);
  ASSERT_EQ(event.delta().details_size(), 2);
  EXPECT_EQ(event.delta().details(0).token_id(), 0xE2);
  EXPECT_EQ(event.delta().details(0).token_bytes(), "\xE2");  // part of a character
  EXPECT_EQ(event.delta().details(1).token_bytes(), " t270");
}

}  // namespace
}  // namespace cadre
