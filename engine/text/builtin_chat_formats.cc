#include "engine/text/builtin_chat_formats.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace cadre {
namespace {

// <|im_start|>role, the text, <|im_end|>.
constexpr std::string_view kChatml = R"({%- if tools -%}
  {{- raise_exception('the built-in format chatml has no functions: start the server with another template') -}}
{%- endif -%}
{{- bos_token if adds_bos and bos_token is defined -}}
{%- for message in messages -%}
  {{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ '<|im_end|>\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\n' if add_generation_prompt -}}
)";

// [INST] text [/INST] answer</s>. The system's text stands before the first user's.
constexpr std::string_view kMistral = R"({%- if tools -%}
  {{- raise_exception('the built-in format mistral has no functions: start the server with another template') -}}
{%- endif -%}
{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {%- set ns.system = ns.system ~ message.content ~ '\n\n' -%}
  {%- elif message.role == 'user' -%}
    {{- '[INST] ' ~ ns.system ~ message.content ~ ' [/INST]' -}}
    {%- set ns.system = '' -%}
  {%- elif message.role == 'assistant' -%}
    {{- ' ' ~ message.content ~ eos_token -}}
  {%- else -%}
    {{- raise_exception('the built-in format mistral knows system, user and assistant, not ' ~ message.role) -}}
  {%- endif -%}
{%- endfor -%}
)";

// A header with the role, an empty line, the text, <|eot_id|>.
constexpr std::string_view kLlama3 = R"({%- if tools -%}
  {{- raise_exception('the built-in format llama3 has no functions: start the server with another template') -}}
{%- endif -%}
{{- bos_token -}}
{%- for message in messages -%}
  {{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\n\n' ~ message.content | trim ~ '<|eot_id|>' -}}
{%- endfor -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' if add_generation_prompt -}}
)";

// The system's text, then <｜User｜>text<｜Assistant｜>answer<｜end▁of▁sentence｜>.
constexpr std::string_view kDeepseek = R"({%- if tools -%}
  {{- raise_exception('the built-in format deepseek has no functions: start the server with another template') -}}
{%- endif -%}
{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages if message.role == 'system' -%}
  {%- set ns.system = ns.system ~ ('\n\n' if ns.system) ~ message.content -%}
{%- endfor -%}
{{- ns.system -}}
{%- for message in messages if message.role != 'system' -%}
  {%- if message.role == 'user' -%}
    {{- '<｜User｜>' ~ message.content -}}
  {%- elif message.role == 'assistant' -%}
    {{- '<｜Assistant｜>' ~ message.content ~ eos_token -}}
  {%- else -%}
    {{- raise_exception('the built-in format deepseek knows system, user and assistant, not ' ~ message.role) -}}
  {%- endif -%}
{%- endfor -%}
{{- '<｜Assistant｜>' if add_generation_prompt -}}
)";

constexpr BuiltinChatFormat kFormats[] = {
    {"chatml", kChatml, {"<|im_start|>", "<|im_end|>"}},
    {"llama3", kLlama3, {"<|start_header_id|>", "<|eot_id|>"}},
    {"deepseek", kDeepseek, {"<｜User｜>", "<｜Assistant｜>"}},
    {"mistral", kMistral, {"[INST]", "[/INST]"}},
};

bool HasToken(const Tokenizer& tokenizer, std::string_view token) { return tokenizer.TokenToId(token).has_value(); }

}  // namespace

std::span<const BuiltinChatFormat> BuiltinChatFormats() { return kFormats; }

const BuiltinChatFormat* FindBuiltinChatFormat(std::string_view name) {
  const auto* const found = std::find_if(std::begin(kFormats), std::end(kFormats),
                                         [name](const BuiltinChatFormat& format) { return format.name == name; });
  return found == std::end(kFormats) ? nullptr : found;
}

const BuiltinChatFormat* RecognizeChatFormat(const Tokenizer& tokenizer) {
  const auto* const found =
      std::find_if(std::begin(kFormats), std::end(kFormats), [&tokenizer](const BuiltinChatFormat& format) {
        return HasToken(tokenizer, format.marks[0]) && HasToken(tokenizer, format.marks[1]);
      });
  return found == std::end(kFormats) ? nullptr : found;
}

}  // namespace cadre
