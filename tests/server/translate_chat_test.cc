#include "server/translate_chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "server/errors.h"
#include "server/request_limits.h"
#include "server/simulated_tokenizer.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

class TranslateChatTest : public ::testing::Test {
 protected:
  TranslateChatTest() { Say("user", "Hi"); }

  v1::ChatMessage* Say(const std::string& role, const std::string& content) {
    v1::ChatMessage* const message = chat_.add_messages();
    message->set_role(role);
    message->set_content(content);
    return message;
  }

  void UseTemplate(const std::string& source) {
    absl::StatusOr<ChatTemplate> parsed = ChatTemplate::Parse({source, "test"}, {});
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    support_.chat_template = std::make_shared<const ChatTemplate>(*std::move(parsed));
  }

  absl::StatusOr<std::vector<int32_t>> Tokenized() { return TokenizeChat(chat_, options_, support_, *tokenizer_); }

  // The prompt: the simulated tokenizer's tokens are bytes.
  std::string Prompt() {
    const absl::StatusOr<std::vector<int32_t>> ids = Tokenized();
    EXPECT_TRUE(ids.ok()) << ids.status();
    return ids.ok() ? tokenizer_->Decode(*ids) : "";
  }

  void ExpectRefused(const std::string& field, const std::string& part) {
    const absl::Status status = TranslateConversation(chat_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(field + ": "));
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    EXPECT_EQ(ErrorReason(status), reason::kInvalidField);
  }

  v1::ChatInput chat_;
  v1::PromptOptions options_;
  ChatSupport support_;
  std::unique_ptr<Tokenizer> tokenizer_ = *MakeSimulatedTokenizer(256);
};

TEST_F(TranslateChatTest, EverythingReachesTheTemplate) {
  UseTemplate("{{ messages | tojson }}{{ tools | tojson }}{{ documents | tojson }}{{ x }}{{ add_generation_prompt }}");
  v1::ChatMessage* const message = chat_.mutable_messages(0);
  message->set_name("bob");
  message->set_tool_call_id("c1");
  message->set_reasoning_content("hm");
  v1::ToolCall* const call = message->add_tool_calls();
  call->set_id("c0");
  call->set_name("f");
  call->set_arguments(R"({"b": 1, "a": 2})");
  chat_.add_tools(R"({"type": "function"})");
  chat_.add_documents(R"({"title": "T"})");
  chat_.set_template_arguments(R"({"x": 1.5})");
  EXPECT_EQ(Prompt(),
            R"([{"thinking": "hm", "role": "user", "content": "Hi", "name": "bob", "tool_calls": [{"id": "c0", )"
            R"("type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": 2}}}], "tool_call_id": "c1", )"
            R"("reasoning_content": "hm"}][{"type": "function"}][{"title": "T"}]1.5True)");
}

TEST_F(TranslateChatTest, UnsetFields) {
  UseTemplate("{{ messages[0] }}{{ tools }}{{ documents }}{{ add_generation_prompt }}");
  chat_.mutable_messages(0)->clear_content();
  EXPECT_EQ(Prompt(), "{'role': 'user', 'content': ''}NoneNoneTrue");
  chat_.set_add_generation_prompt(false);
  EXPECT_THAT(Prompt(), testing::EndsWith("False"));
}

TEST_F(TranslateChatTest, ErrorsNameTheField) {
  chat_.clear_messages();
  ExpectRefused("chat.messages", "is empty");
  Say("user", "Hi");
  Say("", "x");
  ExpectRefused("chat.messages[1].role", "is empty");
  chat_.mutable_messages(1)->set_role(std::string(kMaxChatNameBytes + 1, 'r'));
  ExpectRefused("chat.messages[1].role", "257 bytes, the limit is 256");
  chat_.mutable_messages(1)->set_role("assistant");
  v1::ToolCall* const call = chat_.mutable_messages(1)->add_tool_calls();
  ExpectRefused("chat.messages[1].tool_calls[0].name", "is empty");
  call->set_name("f");
  call->set_arguments("{\"a\": }");
  ExpectRefused("chat.messages[1].tool_calls[0].arguments", "is not valid JSON");
  call->set_arguments("[1]");
  ExpectRefused("chat.messages[1].tool_calls[0].arguments", "is not a JSON object");
  call->clear_arguments();
  EXPECT_TRUE(TranslateConversation(chat_).ok());
  chat_.add_tools("{}");
  chat_.add_tools("no");
  ExpectRefused("chat.tools[1]", "is not valid JSON");
  chat_.clear_tools();
  chat_.add_documents("7");
  ExpectRefused("chat.documents[0]", "is not a JSON object");
  chat_.clear_documents();
  chat_.set_template_arguments(R"({"messages": []})");
  ExpectRefused("chat.template_arguments", "has a field of its own");
}

TEST_F(TranslateChatTest, Limits) {
  for (int i = 0; i < kMaxChatMessages; ++i) Say("user", "x");
  ExpectRefused("chat.messages", "4097 entries, the limit is 4096");
  chat_.mutable_messages()->RemoveLast();
  EXPECT_TRUE(TranslateConversation(chat_).ok());
  chat_.mutable_messages(0)->set_content(std::string(kMaxPromptBytes, 'x'));
  ExpectRefused("chat", "the limit is 1048576");
  chat_.mutable_messages(0)->set_content("x");
  for (int i = 0; i <= kMaxChatTools; ++i) chat_.add_tools("{}");
  ExpectRefused("chat.tools", "129 entries, the limit is 128");
  chat_.clear_tools();
  chat_.add_tools("{\"a\": \"" + std::string(kMaxChatJsonBytes, 'x') + "\"}");
  ExpectRefused("chat.tools[0]", "the limit is 262144");
}

TEST_F(TranslateChatTest, ContinuingTheLastMessage) {
  UseTemplate("{% for m in messages %}<{{ m.content }}>{% endfor %}{{ '!' if add_generation_prompt }}");
  Say("assistant", "I am ");
  chat_.set_continue_final_message(true);
  EXPECT_EQ(Prompt(), "<Hi><I am ");
  chat_.set_add_generation_prompt(true);
  ExpectRefused("chat.continue_final_message", "excludes chat.add_generation_prompt");
  chat_.clear_add_generation_prompt();
  chat_.mutable_messages(1)->clear_content();
  ExpectRefused("chat.messages[1].content", "is empty");
}

TEST_F(TranslateChatTest, WhatTheTemplateSaysReachesTheClient) {
  UseTemplate(
      "{{ raise_exception('No more than one message') if messages | length > 1 }}\n{{ messages[0].content.x.y }}");
  absl::Status status = Tokenized().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("chat: the chat template failed at line 2: "));
  Say("user", "more");
  status = Tokenized().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("chat: refused by the chat template: No more than one message"));
  UseTemplate("{{ 'x' * 1048577 }}");
  EXPECT_THAT(std::string(Tokenized().status().message()), HasSubstr("the limit is 1048576"));
}

TEST_F(TranslateChatTest, WithoutATemplateTheErrorSaysWhatToDo) {
  support_.error = "the model has no chat template";
  const absl::Status status = Tokenized().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReason(status), reason::kNoChatTemplate);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the model has no chat template"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--chat-template"));
}

}  // namespace
}  // namespace cadre
