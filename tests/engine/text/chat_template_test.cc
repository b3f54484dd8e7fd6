// From the files of a model and a conversation to token ids.
#include "engine/text/chat_template.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_dir.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

// Letters, "<s>" and "[I]" as special tokens, "<t>" as an added one that is not special; BOS in front of every text.
std::unique_ptr<Tokenizer> SmallTokenizer() {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Parse(R"({
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "<": 2, "s": 3, ">": 4, "[": 5, "I": 6, "]": 7, "ab": 8, "t": 9},
              "merges": ["a b"]},
    "added_tokens": [
      {"id": 10, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
       "special": true},
      {"id": 11, "content": "[I]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true,
       "special": true},
      {"id": 12, "content": "<t>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
       "special": false}],
    "normalizer": {"type": "NFC"},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [10], "tokens": ["<s>"]}}},
    "decoder": {"type": "Fuse"}})",
                                                                          "");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

Ids EncodeMarked(std::string_view text, const std::vector<TextSpan>& spans, bool add_special_tokens = false) {
  const absl::StatusOr<Ids> ids = SmallTokenizer()->EncodeMarked(text, spans, add_special_tokens);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : Ids();
}

TEST(EncodeMarkedTest, SpecialTokensOfClientsStayText) {
  EXPECT_THAT(EncodeMarked("<s>a<s>", {}), ElementsAre(10, 0, 10));
  EXPECT_THAT(EncodeMarked("<s>a<s>", {{3, 7}}), ElementsAre(10, 0, 2, 3, 4));
  EXPECT_THAT(EncodeMarked("<s>a<s>", {{0, 3}}), ElementsAre(2, 3, 4, 0, 10));
  EXPECT_THAT(EncodeMarked("[I]a[I]", {{3, 7}}), ElementsAre(11, 0, 5, 6, 7));
  EXPECT_THAT(EncodeMarked("<t>", {{0, 3}}), ElementsAre(12)) << "not a special token";
}

TEST(EncodeMarkedTest, ATokenAcrossASeamIsNone) {
  EXPECT_THAT(EncodeMarked("<s>", {{0, 1}}), ElementsAre(2, 3, 4));
  EXPECT_THAT(EncodeMarked("<s>", {{2, 3}}), ElementsAre(2, 3, 4));
  EXPECT_THAT(EncodeMarked("<s>", {{1, 2}}), ElementsAre(2, 3, 4));
  EXPECT_THAT(EncodeMarked("[I]", {{1, 2}}), ElementsAre(5, 6, 7));
  EXPECT_THAT(EncodeMarked("<<s>", {{0, 1}}), ElementsAre(2, 10)) << "what stands beside it is the template's";
}

TEST(EncodeMarkedTest, TheTextIsNotCutAtTheSeams) {
  EXPECT_THAT(EncodeMarked("ab", {{0, 1}}), ElementsAre(8));
  EXPECT_THAT(EncodeMarked("ab", {{1, 2}}), ElementsAre(8));
}

TEST(EncodeMarkedTest, NormalizingMovesTheSpans) {
  // "a" and a combining ring: one character where the template ends and the client begins.
  EXPECT_THAT(EncodeMarked("a\xCC\x8A[I]", {{1, 3}}), ElementsAre(11)) << "the letter is in no vocabulary";
  EXPECT_THAT(EncodeMarked("[I]b[I]a[I]", {{3, 8}}), ElementsAre(11, 1, 5, 6, 7, 0, 11));
}

TEST(EncodeMarkedTest, ThereIsOneBos) {
  EXPECT_THAT(EncodeMarked("a", {}, true), ElementsAre(10, 0));
  EXPECT_THAT(EncodeMarked("<s>a", {}, true), ElementsAre(10, 0));
  EXPECT_THAT(EncodeMarked("<s>a", {{0, 4}}, true), ElementsAre(10, 2, 3, 4, 0)) << "the client's is text";
}

void Write(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

Conversation Say(std::string_view text) {
  Conversation conversation;
  conversation.messages = {{.role = "user", .content = std::string(text)}};
  return conversation;
}

std::string RenderOk(const ChatTemplate& chat_template, const Conversation& conversation) {
  const absl::StatusOr<jinja::Text> text = chat_template.Render(conversation);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? text->bytes() : "";
}

class ChatTemplateFilesTest : public ::testing::Test {
 protected:
  absl::StatusOr<ChatTemplate> Load(std::string_view choice = "auto") const {
    return ChatTemplate::Load(dir_.path(), *SmallTokenizer(), choice);
  }
  std::string Rendered(const Conversation& conversation, std::string_view choice = "auto") const {
    const absl::StatusOr<ChatTemplate> loaded = Load(choice);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? RenderOk(*loaded, conversation) : "";
  }

  TempDir dir_;
};

TEST_F(ChatTemplateFilesTest, TheOwnFileComesFirst) {
  Write(dir_.path() / "tokenizer_config.json",
        R"({"chat_template": "config {{ bos_token }}{{ eos_token }}", "bos_token": "<s>",
            "eos_token": {"content": "</s>", "lstrip": false}})");
  EXPECT_EQ(Rendered(Say("x")), "config <s></s>");
  EXPECT_EQ(Load()->source(), "tokenizer_config.json");
  Write(dir_.path() / "chat_template.jinja", "file {{ messages[0].content }}{{ eos_token }}\n");
  EXPECT_EQ(Rendered(Say("x")), "file x</s>");
  EXPECT_EQ(Load()->source(), "chat_template.jinja");
}

TEST_F(ChatTemplateFilesTest, ConversationsWithFunctionsHaveATemplateOfTheirOwn) {
  Write(dir_.path() / "tokenizer_config.json",
        R"({"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"},
                              {"name": "rag", "template": "{% broken"}]})");
  Conversation conversation = Say("x");
  EXPECT_EQ(Rendered(conversation), "plain");
  conversation.tools = {*jinja::ReadJson("{}")};
  EXPECT_EQ(Rendered(conversation), "tools");
}

TEST_F(ChatTemplateFilesTest, ErrorsNameFileAndLine) {
  EXPECT_EQ(Load().status().code(), absl::StatusCode::kNotFound);
  Write(dir_.path() / "chat_template.jinja", "\n\n{{ 1 + }}");
  EXPECT_THAT(std::string(Load().status().message()), HasSubstr("chat_template.jinja: line 3: "));
  Write(dir_.path() / "own.jinja", "{% include 'x' %}");
  const std::string own = (dir_.path() / "own.jinja").string();
  EXPECT_EQ(Load(own).status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Load(own).status().message()), HasSubstr("own.jinja: line 1: the tag 'include'"));
  EXPECT_EQ(Load("/does/not/exist").status().code(), absl::StatusCode::kNotFound);
  std::filesystem::remove(dir_.path() / "chat_template.jinja");
  Write(dir_.path() / "tokenizer_config.json", R"({"chat_template": 7})");
  EXPECT_THAT(std::string(Load().status().message()), HasSubstr("tokenizer_config.json: chat_template"));
  Write(dir_.path() / "tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": ""}]})");
  EXPECT_THAT(std::string(Load().status().message()), HasSubstr("\"default\""));
}

TEST_F(ChatTemplateFilesTest, BuiltInFormats) {
  Write(dir_.path() / "tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": "</s>"})");
  Conversation conversation = Say(" hi ");
  conversation.messages.insert(conversation.messages.begin(), {.role = "system", .content = "be kind"});
  conversation.messages.push_back({.role = "assistant", .content = "yo"});
  conversation.messages.push_back({.role = "user", .content = "?"});
  EXPECT_EQ(Rendered(conversation, "chatml"),
            "<s><|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\n hi "
            "<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
            "<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(Rendered(conversation, "mistral"), "<s>[INST] be kind\n\n hi  [/INST] yo</s>[INST] ? [/INST]");
  EXPECT_EQ(
      Rendered(conversation, "llama3"),
      "<s><|start_header_id|>system<|end_header_id|>\n\nbe kind<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
      "hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nyo<|eot_id|><|start_header_id|>user<|end_header_id|"
      ">"
      "\n\n?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(Rendered(conversation, "deepseek"),
            "<s>be kind<｜User｜> hi <｜Assistant｜>yo</s><｜User｜>?<｜Assistant｜>");
  conversation.tools = {*jinja::ReadJson("{}")};
  EXPECT_EQ(Load("chatml")->Render(conversation).status().code(), absl::StatusCode::kInvalidArgument);
}

absl::StatusOr<ChatTemplate> FromText(std::string_view source) {
  return ChatTemplate::Parse({std::string(source), "test"}, {{"eos_token", "</s>"}});
}

constexpr std::string_view kPlain =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

TEST(ChatTemplateTest, TheLastMessageIsContinued) {
  const absl::StatusOr<ChatTemplate> chat_template = FromText(kPlain);
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  Conversation conversation = Say("q");
  EXPECT_EQ(RenderOk(*chat_template, conversation), "<user>q</s><assistant>");
  conversation.messages.push_back({.role = "assistant", .content = "The answer is "});
  conversation.add_generation_prompt = false;
  conversation.continue_final_message = true;
  EXPECT_EQ(RenderOk(*chat_template, conversation), "<user>q</s><assistant>The answer is ");
  const absl::StatusOr<ChatTemplate> trimming = FromText("{% for m in messages %}{{ m.content | trim }}|{% endfor %}");
  EXPECT_EQ(RenderOk(*trimming, conversation), "q|The answer is");
  const absl::StatusOr<ChatTemplate> hiding = FromText("{{ messages[0].content }}");
  EXPECT_EQ(hiding->Render(conversation).status().code(), absl::StatusCode::kFailedPrecondition);
}

Conversation CallAFunction() {
  Conversation conversation = Say("q");
  const std::string arguments = R"({"x": 1})";
  conversation.messages.push_back(
      {.role = "assistant", .tool_calls = {{"id1", "f", arguments, *jinja::ReadJson(arguments)}}});
  conversation.messages.push_back({.role = "tool", .content = "r"});
  return conversation;
}

// Each template sees a call whose message has no content in the form that it was written for.
TEST(ChatTemplateTest, ToolCallsTakeTheFormThatTheTemplateWants) {
  const std::string_view dict = R"({% for m in messages %}{% for t in m.tool_calls or [] %}{{ t.function.name }}
{{- t.function.arguments | tojson }}{% endfor %}{{ m.content }};{% endfor %})";
  EXPECT_EQ(RenderOk(*FromText(dict), CallAFunction()), R"(q;f{"x": 1};r;)");
  const std::string_view text = R"({% for m in messages %}{% for t in m.tool_calls or [] %}
{{- t.function.name + t.function.arguments }}{% endfor %}{{ m.content }};{% endfor %})";
  EXPECT_EQ(RenderOk(*FromText(text), CallAFunction()), R"(q;f{"x": 1};r;)");
  const std::string_view printed = R"({% for m in messages %}{% for t in m.tool_calls or [] %}
{{- t.function.name }}{{ t.function.arguments }}{% endfor %}{{ m.content }};{% endfor %})";
  EXPECT_EQ(RenderOk(*FromText(printed), CallAFunction()), R"(q;f{"x": 1};r;)") << "not as Python prints a dict";
  const std::string_view none =
      R"({% for m in messages %}{% if m.content is none %}{{ m.tool_calls[0].function | tojson }}
{%- else %}{{ m.content }}{% endif %};{% endfor %})";
  EXPECT_EQ(RenderOk(*FromText(none), CallAFunction()), R"(q;{"name": "f", "arguments": {"x": 1}};r;)");
  const std::string_view empty = R"({% for m in messages %}{{ m.content + '' }}{% for t in m.tool_calls or [] %}
{{- t.function | tojson }}{% endfor %};{% endfor %})";
  EXPECT_EQ(RenderOk(*FromText(empty), CallAFunction()), R"(q;{"name": "f", "arguments": {"x": 1}};r;)");
}

// What is said around calls is not lost because a template knows of none.
TEST(ChatTemplateTest, ATemplateWithoutCallsRendersMessagesWithoutContent) {
  const std::string_view added = "{% for m in messages %}{{ m['role'] + ':' + m['content'] }};{% endfor %}";
  EXPECT_EQ(RenderOk(*FromText(added), CallAFunction()), "user:q;assistant:;tool:r;");
  const std::string_view json = "{% for m in messages %}{{ m.content | tojson }};{% endfor %}";
  EXPECT_EQ(RenderOk(*FromText(json), CallAFunction()), R"("q";"";"r";)");
  const std::string_view printed = "{% for m in messages %}{{ m.content }}{{ m.content is defined }};{% endfor %}";
  EXPECT_EQ(RenderOk(*FromText(printed), CallAFunction()), "qTrue;False;rTrue;");
}

TEST(ChatTemplateTest, EverythingOfTheConversationIsTheClients) {
  Conversation conversation = CallAFunction();
  conversation.messages[0].role = "<s>";
  conversation.tools = {*jinja::ReadJson(R"({"<s>": "<s>"})")};
  conversation.documents = {*jinja::ReadJson(R"({"t": "<s>"})")};
  ASSERT_TRUE(conversation.arguments.Set(jinja::Value::String("x"), *jinja::ReadJson("\"<s>\"")).ok());
  conversation.messages[1].tool_calls[0].name = "<s>";
  conversation.messages[1].reasoning_content = "<s>";
  const absl::StatusOr<ChatTemplate> chat_template =
      FromText("<s>{{ messages | tojson }}{{ tools | tojson }}{{ documents }}{{ x }}");
  const absl::StatusOr<jinja::Text> text = chat_template->Render(conversation);
  ASSERT_TRUE(text.ok()) << text.status();
  int num_tokens = 0;
  for (std::size_t at = text->bytes().find("<s>"); at != std::string::npos; at = text->bytes().find("<s>", at + 1)) {
    EXPECT_EQ(text->IsClient(at), at != 0) << at;
    ++num_tokens;
  }
  EXPECT_EQ(num_tokens, 9);
}

// "<|" + role + "|>" is a token of some models, and nothing that a client can use to make up another one.
TEST(ChatTemplateTest, TemplatesMakeTokensOfTheRolesTheyKnow) {
  const absl::StatusOr<ChatTemplate> chat_template =
      FromText("{% for m in messages %}{{ '<' + m.role + '>' + m.content }}{% endfor %}");
  for (const auto& [role, is_client] :
       {std::pair("user", false), std::pair("assistant", false), std::pair("s", true), std::pair("User", true),
        std::pair("user ", true), std::pair("user><s", true)}) {
    Conversation conversation = Say("");
    conversation.messages[0].role = role;
    const absl::StatusOr<jinja::Text> text = chat_template->Render(conversation);
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_EQ(!text->client_spans().empty(), is_client) << role;
  }
}

}  // namespace
}  // namespace cadre
