#include "tools/chat/chat_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tools/generate_options.h"
#include "tools/generation_printer.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Kind = ChatStep::Kind;

std::vector<std::string> Said(const ChatSession& session) {
  std::vector<std::string> said;
  const v1::GenerateRequest request = session.Request();
  for (const v1::ChatMessage& message : request.chat().messages()) {
    said.push_back(message.role() + ": " + message.content());
  }
  return said;
}

TEST(ChatSessionTest, TheWholeConversationIsSent) {
  ChatSession session{v1::GenerateRequest()};
  EXPECT_EQ(session.OnLine("/system Be brief.").kind, Kind::kNothing);
  EXPECT_EQ(session.OnLine("Hi").kind, Kind::kSend);
  session.OnAnswer("Hello.");
  EXPECT_EQ(session.OnLine("And?").kind, Kind::kSend);
  EXPECT_THAT(Said(session), ElementsAre("system: Be brief.", "user: Hi", "assistant: Hello.", "user: And?"));
  session.OnFailure();
  EXPECT_THAT(Said(session), ElementsAre("system: Be brief.", "user: Hi", "assistant: Hello."));
  session.OnLine("/undo");
  EXPECT_THAT(Said(session), ElementsAre("system: Be brief."));
  EXPECT_THAT(session.OnLine("/undo").notice, HasSubstr("nothing"));
  session.OnLine("/system");
  EXPECT_THAT(Said(session), ElementsAre());
}

TEST(ChatSessionTest, ResetKeepsSystemMessageAndSettings) {
  ChatSession session{v1::GenerateRequest()};
  session.OnLine("/system S");
  session.OnLine("/set temperature 0.5");
  session.OnLine("Hi");
  session.OnAnswer("x");
  session.OnLine("/reset");
  EXPECT_THAT(Said(session), ElementsAre("system: S"));
  EXPECT_EQ(session.Request().sampling().temperature(), 0.5F);
}

TEST(ChatSessionTest, MessagesOfSeveralLines) {
  ChatSession session{v1::GenerateRequest()};
  EXPECT_EQ(session.OnLine("one\\").kind, Kind::kNothing);
  EXPECT_TRUE(session.is_continued());
  EXPECT_EQ(session.OnLine("/two").kind, Kind::kSend);
  EXPECT_FALSE(session.is_continued());
  EXPECT_EQ(session.OnLine("\"\"\"").kind, Kind::kNothing);
  EXPECT_EQ(session.OnLine("/reset").kind, Kind::kNothing);
  EXPECT_EQ(session.OnLine("").kind, Kind::kNothing);
  EXPECT_EQ(session.OnLine("end\\").kind, Kind::kNothing);
  EXPECT_EQ(session.OnLine(" \"\"\" ").kind, Kind::kSend);
  EXPECT_EQ(session.OnLine("//etc").kind, Kind::kSend);
  EXPECT_THAT(Said(session), ElementsAre("user: one\n/two", "user: /reset\n\nend\\", "user: /etc"));
  session.OnLine("dropped\\");
  session.DropPending();
  EXPECT_FALSE(session.is_continued());
  session.OnLine("\"\"\"");
  session.OnLine("not closed");
  EXPECT_EQ(session.OnEnd().kind, Kind::kSend);
  EXPECT_EQ(Said(session).back(), "user: not closed");
  EXPECT_EQ(session.OnEnd().kind, Kind::kNothing);
  EXPECT_EQ(session.OnLine("  \t").kind, Kind::kNothing);
}

TEST(ChatSessionTest, TheFirstLineSaysWhetherItIsACommand) {
  ChatSession session{v1::GenerateRequest()};
  EXPECT_EQ(session.OnLine("/system Be brief.\\").kind, Kind::kNothing);
  EXPECT_TRUE(session.is_continued());
  const ChatStep set = session.OnLine("/Answer in verse.");
  EXPECT_EQ(set.kind, Kind::kNothing);
  EXPECT_EQ(set.notice, "system message set");
  EXPECT_FALSE(session.is_continued());
  EXPECT_THAT(Said(session), ElementsAre("system: Be brief.\n/Answer in verse."));
  session.OnLine("/system\\");
  session.OnLine("Be loud.");
  EXPECT_THAT(Said(session), ElementsAre("system: Be loud."));
  session.OnLine("/system");
  EXPECT_EQ(session.OnLine("//x\\").kind, Kind::kNothing);
  EXPECT_EQ(session.OnLine("//y").kind, Kind::kSend);
  EXPECT_THAT(Said(session), ElementsAre("user: /x\n//y"));
  EXPECT_EQ(session.OnLine("/quit\\").kind, Kind::kNothing);
  EXPECT_EQ(session.OnLine("now").kind, Kind::kQuit);
}

TEST(ChatSessionTest, WhatIsNotCompleteAtTheEndIsStillWhatItsFirstLineSays) {
  ChatSession session{v1::GenerateRequest()};
  session.OnLine("/save a file\\");
  const ChatStep save = session.OnEnd();
  EXPECT_EQ(save.kind, Kind::kSave);
  EXPECT_EQ(save.argument, "a file");
  session.OnLine("\"\"\"");
  session.OnLine("/quit");
  EXPECT_EQ(session.OnEnd().kind, Kind::kSend);
  session.OnLine("//z\\");
  EXPECT_EQ(session.OnEnd().kind, Kind::kSend);
  EXPECT_THAT(Said(session), ElementsAre("user: /quit", "user: /z"));
}

TEST(ChatSessionTest, TheSystemMessageIsTakenAsItIs) {
  ChatSession session{v1::GenerateRequest()};
  session.SetSystemMessage(" Escape with \\");
  EXPECT_FALSE(session.is_continued());
  EXPECT_EQ(session.OnLine("Hi").kind, Kind::kSend);
  EXPECT_THAT(Said(session), ElementsAre("system:  Escape with \\", "user: Hi"));
  session.SetSystemMessage("");
  EXPECT_THAT(Said(session), ElementsAre("user: Hi"));
}

TEST(ChatSessionTest, CommandsAreNeverSent) {
  ChatSession session{v1::GenerateRequest()};
  EXPECT_EQ(session.OnLine("/quit").kind, Kind::kQuit);
  EXPECT_THAT(session.OnLine("/nonsense").notice, HasSubstr("/nonsense"));
  EXPECT_THAT(session.OnLine("/help").notice, HasSubstr("/system"));
  EXPECT_THAT(session.OnLine("/save").notice, HasSubstr("needs"));
  const ChatStep save = session.OnLine("/save  a file.json ");
  EXPECT_EQ(save.kind, Kind::kSave);
  EXPECT_EQ(save.argument, "a file.json");
  EXPECT_THAT(session.OnLine("/set temperature hot").notice, HasSubstr("temperature: \"hot\" is not of type float"));
  EXPECT_THAT(session.OnLine("/set nonsense 1").notice, HasSubstr("nonsense"));
  EXPECT_THAT(session.OnLine("/set n 3").notice, HasSubstr("one answer"));
  EXPECT_THAT(session.OnLine("/set top_k = 5").notice, HasSubstr("top_k = 5"));
  EXPECT_THAT(session.OnLine("/set").notice, HasSubstr("top_k = 5\nsettings: "));
  session.OnLine("/set top_k");
  EXPECT_FALSE(session.Request().sampling().has_top_k());
  EXPECT_THAT(Said(session), ElementsAre());
}

TEST(ChatSessionTest, JsonIsValidWhateverWasSaid) {
  ChatSession session{v1::GenerateRequest()};
  session.OnLine("a \"quoted\" \x01 line");
  session.OnAnswer("half a character: \xc3");
  EXPECT_EQ(session.ToJson(),
            "[\n {\n  \"role\": \"user\",\n  \"content\": \"a \\\"quoted\\\" \\u0001 line\"\n },\n {\n"
            "  \"role\": \"assistant\",\n  \"content\": \"half a character: \xef\xbf\xbd\"\n }\n]\n");
}

TEST(RequestFieldTest, EverySettingTakesAValueOfItsType) {
  for (const std::string& name : RequestFieldNames()) {
    v1::GenerateRequest request;
    EXPECT_TRUE(SetRequestField(name, "1", &request).ok()) << name;
    EXPECT_EQ(DescribeRequestFields(request).size(), 1u) << name;
    EXPECT_TRUE(SetRequestField(name, "", &request).ok()) << name;
    EXPECT_TRUE(DescribeRequestFields(request).empty()) << name;
  }
  v1::GenerateRequest request;
  ASSERT_TRUE(SetRequestField("time_limit", "1500ms", &request).ok());
  EXPECT_EQ(request.scheduling().time_limit().nanos(), 500'000'000);
  ASSERT_TRUE(SetRequestField("seed", "18446744073709551615", &request).ok());
  EXPECT_EQ(request.sampling().seed(), 18446744073709551615u);
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{{"top_k", "1.5"},
                                                                                    {"top_k", "99999999999"},
                                                                                    {"seed", "-1"},
                                                                                    {"echo", "maybe"},
                                                                                    {"time_limit", "soon"},
                                                                                    {"logit_bias", "1"},
                                                                                    {"stop_strings", "x"},
                                                                                    {"capacity", "1"},
                                                                                    {"", "1"}}) {
    EXPECT_FALSE(SetRequestField(name, value, &request).ok()) << name << " " << value;
  }
}

v1::GenerateResponse Delta(int index, const std::string& text) {
  v1::GenerateResponse event;
  event.mutable_delta()->set_index(index);
  event.mutable_delta()->set_text(text);
  return event;
}

v1::GenerateResponse Finished(int index, const std::string& text) {
  v1::GenerateResponse event;
  event.mutable_finished()->set_index(index);
  event.mutable_finished()->set_text(text);
  event.mutable_finished()->set_reason(v1::FINISH_REASON_LENGTH);
  return event;
}

TEST(GenerationPrinterTest, OneSequenceComesAsItIsGenerated) {
  GenerationPrinter printer{v1::GenerateRequest()};
  EXPECT_EQ(printer.Print(v1::GenerateResponse()), "");
  EXPECT_EQ(printer.Print(Delta(0, "ab")), "ab");
  EXPECT_EQ(printer.Print(Finished(0, "c")), "c\n");
}

TEST(GenerationPrinterTest, SeveralSequencesAreNotMixed) {
  v1::GenerateRequest request;
  request.mutable_sampling()->set_n(2);
  GenerationPrinter printer(request);
  EXPECT_EQ(printer.Print(Delta(0, "a")), "");
  EXPECT_EQ(printer.Print(Delta(1, "x")), "");
  EXPECT_EQ(printer.Print(Delta(0, "b")), "");
  EXPECT_EQ(printer.Print(Finished(1, "y")), "--- 2 of 2: 0 tokens, end: length ---\nxy\n");
  EXPECT_EQ(printer.Print(Finished(0, "")), "--- 1 of 2: 0 tokens, end: length ---\nab\n");
}

TEST(GenerationPrinterTest, TokensHaveTheirProbabilitiesAndBytes) {
  v1::GenerateRequest request;
  request.mutable_output()->set_logprobs(true);
  GenerationPrinter printer(request);
  v1::GenerateResponse delta = Delta(0, "é");
  v1::TokenDetail* detail = delta.mutable_delta()->add_details();
  detail->set_token_id(7);
  detail->set_logprob(-0.6931472F);
  detail->set_rank(1);
  detail->set_token_bytes("\xc3");
  v1::TokenAlternative* alternative = detail->add_alternatives();
  alternative->set_token_id(9);
  alternative->set_logprob(-1.3862944F);
  alternative->set_token_bytes("\x1b[");
  delta.mutable_delta()->add_details()->set_token_id(8);
  EXPECT_EQ(printer.Print(delta), "");
  const std::string text = printer.Print(Finished(0, ""));
  EXPECT_THAT(text, HasSubstr("       7     50.0000%  -0.6931      1  0xc3  9\"\\033[\" 25.00%\n"));
  EXPECT_THAT(text, HasSubstr("       8            -        -      -  \n")) << "not 100 %: nothing is known";
}

}  // namespace
}  // namespace cadre
