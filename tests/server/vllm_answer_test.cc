#include "server/vllm_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace cadre {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

v1::GenerateResponse Started(bool has_prompt_details = false) {
  v1::GenerateResponse event;
  event.mutable_started()->set_prompt_tokens(5);
  event.mutable_started()->set_cached_prompt_tokens(4);
  if (!has_prompt_details) return event;
  event.mutable_started()->add_prompt_details()->set_token_id(1);  // rank 0: the first one
  v1::TokenDetail* second = event.mutable_started()->add_prompt_details();
  second->set_token_id(2);
  second->set_logprob(-0.5f);
  second->set_rank(1);
  return event;
}

v1::GenerateResponse Delta(int32_t index, std::vector<int32_t> ids, bool has_details = false) {
  v1::GenerateResponse event;
  event.mutable_delta()->set_index(index);
  event.mutable_delta()->mutable_token_ids()->Assign(ids.begin(), ids.end());
  for (size_t i = 0; has_details && i < ids.size(); ++i) {
    v1::TokenDetail* detail = event.mutable_delta()->add_details();
    detail->set_token_id(ids[i]);
    detail->set_logprob(-1.0f);
    detail->set_rank(1);
    v1::TokenAlternative* other = detail->add_alternatives();
    other->set_token_id(77);
    other->set_logprob(-2.0f);
  }
  return event;
}

v1::GenerateResponse Finished(int32_t index, v1::FinishReason reason, int64_t generated) {
  v1::GenerateResponse event;
  event.mutable_finished()->set_index(index);
  event.mutable_finished()->set_reason(reason);
  event.mutable_finished()->mutable_usage()->set_prompt_tokens(5);
  event.mutable_finished()->mutable_usage()->set_cached_prompt_tokens(4);
  event.mutable_finished()->mutable_usage()->set_generated_tokens(generated);
  return event;
}

// The only message that an event means; an empty one where it means none.
vllm_api::GenerateResponse Only(const std::vector<vllm_api::GenerateResponse>& messages) {
  EXPECT_EQ(messages.size(), 1u);
  return messages.empty() ? vllm_api::GenerateResponse() : messages.front();
}

// A chunk counts its own tokens, the end all of them; the end does not repeat the ids.
TEST(VllmAnswer, StreamsChunksAndTheEnd) {
  VllmAnswer answer(/*is_streamed=*/true, /*num_sequences=*/1);
  EXPECT_TRUE(answer.Translate(Started()).empty());
  const vllm_api::GenerateResponse first = Only(answer.Translate(Delta(0, {10, 11})));
  EXPECT_THAT(first.chunk().token_ids(), ElementsAre(10, 11));
  EXPECT_EQ(first.chunk().completion_tokens(), 2u);
  EXPECT_EQ(first.chunk().prompt_tokens(), 5u);
  EXPECT_EQ(first.chunk().cached_tokens(), 4u);
  EXPECT_FALSE(first.chunk().has_output_logprobs());
  const vllm_api::GenerateResponse second = Only(answer.Translate(Delta(0, {12})));
  EXPECT_EQ(second.chunk().completion_tokens(), 1u);
  const vllm_api::GenerateResponse last = Only(answer.Translate(Finished(0, v1::FINISH_REASON_LENGTH, 3)));
  EXPECT_THAT(last.complete().output_ids(), IsEmpty());
  EXPECT_EQ(last.complete().finish_reason(), "length");
  EXPECT_EQ(last.complete().completion_tokens(), 3u);
  EXPECT_EQ(last.complete().prompt_tokens(), 5u);
  EXPECT_EQ(last.complete().cached_tokens(), 4u);
}

TEST(VllmAnswer, TextWithoutTokensIsNoChunk) {
  VllmAnswer answer(/*is_streamed=*/true, /*num_sequences=*/1);
  v1::GenerateResponse event = Delta(0, {});
  event.mutable_delta()->set_text("held back");
  EXPECT_TRUE(answer.Translate(event).empty());
}

TEST(VllmAnswer, CollectsWhatIsNotStreamed) {
  VllmAnswer answer(/*is_streamed=*/false, /*num_sequences=*/2);
  EXPECT_TRUE(answer.Translate(Started(/*has_prompt_details=*/true)).empty());
  EXPECT_TRUE(answer.Translate(Delta(0, {10}, /*has_details=*/true)).empty());
  EXPECT_TRUE(answer.Translate(Delta(1, {20})).empty());
  EXPECT_TRUE(answer.Translate(Delta(0, {11}, /*has_details=*/true)).empty());
  // Its turn has not come.
  EXPECT_TRUE(answer.Translate(Finished(1, v1::FINISH_REASON_END_OF_SEQUENCE, 1)).empty());
  const std::vector<vllm_api::GenerateResponse> both = answer.Translate(Finished(0, v1::FINISH_REASON_LENGTH, 2));
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(both[1].complete().index(), 1u);
  EXPECT_THAT(both[1].complete().output_ids(), ElementsAre(20));
  EXPECT_EQ(both[1].complete().finish_reason(), "stop");
  EXPECT_FALSE(both[1].complete().has_input_logprobs());
  const vllm_api::GenerateComplete& complete = both[0].complete();
  EXPECT_EQ(complete.index(), 0u);
  EXPECT_THAT(complete.output_ids(), ElementsAre(10, 11));
  EXPECT_THAT(complete.output_logprobs().token_ids(), ElementsAre(10, 11));
  EXPECT_THAT(complete.output_logprobs().token_logprobs(), ElementsAre(-1.0f, -1.0f));
  ASSERT_EQ(complete.output_logprobs().top_logprobs_size(), 2);
  EXPECT_THAT(complete.output_logprobs().top_logprobs(1).token_ids(), ElementsAre(77));
  ASSERT_EQ(complete.input_logprobs().token_logprobs_size(), 2);
  EXPECT_FALSE(complete.input_logprobs().token_logprobs(0).has_value());
  EXPECT_EQ(complete.input_logprobs().token_logprobs(1).value(), -0.5f);
  EXPECT_EQ(complete.input_logprobs().top_logprobs_size(), 0);
}

TEST(VllmAnswer, ThePromptComesWithTheFirstChunkOfEachSequence) {
  VllmAnswer answer(/*is_streamed=*/true, /*num_sequences=*/2);
  EXPECT_TRUE(answer.Translate(Started(/*has_prompt_details=*/true)).empty());
  EXPECT_TRUE(Only(answer.Translate(Delta(0, {1}))).chunk().has_input_logprobs());
  EXPECT_FALSE(Only(answer.Translate(Delta(0, {1}))).chunk().has_input_logprobs());
  EXPECT_TRUE(Only(answer.Translate(Delta(1, {1}))).chunk().has_input_logprobs());
  EXPECT_FALSE(Only(answer.Translate(Delta(1, {1}))).chunk().has_input_logprobs());
  EXPECT_FALSE(Only(answer.Translate(Finished(0, v1::FINISH_REASON_LENGTH, 2))).complete().has_input_logprobs());
}

// What the client asked to stop at is told; the model's own end is not.
TEST(VllmAnswer, TellsWhatMatched) {
  VllmAnswer answer(/*is_streamed=*/true, /*num_sequences=*/4);
  v1::GenerateResponse by_token = Finished(0, v1::FINISH_REASON_STOP_TOKEN, 1);
  by_token.mutable_finished()->set_matched_token_id(9);
  EXPECT_EQ(Only(answer.Translate(by_token)).complete().matched_token_id(), 9u);
  v1::GenerateResponse by_string = Finished(1, v1::FINISH_REASON_STOP_STRING, 1);
  by_string.mutable_finished()->set_matched_stop_string("END");
  EXPECT_EQ(Only(answer.Translate(by_string)).complete().matched_stop_str(), "END");
  v1::GenerateResponse by_itself = Finished(2, v1::FINISH_REASON_END_OF_SEQUENCE, 1);
  by_itself.mutable_finished()->set_matched_token_id(2);
  const vllm_api::GenerateResponse end = Only(answer.Translate(by_itself));
  EXPECT_EQ(end.complete().finish_reason(), "stop");
  EXPECT_EQ(end.complete().matched_stop_case(), vllm_api::GenerateComplete::MATCHED_STOP_NOT_SET);
  EXPECT_EQ(Only(answer.Translate(Finished(3, v1::FINISH_REASON_CONSTRAINT_END, 1))).complete().finish_reason(),
            "stop");
}

}  // namespace
}  // namespace cadre
