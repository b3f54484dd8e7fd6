#include "server/translate.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/utf8.h"
#include "server/errors.h"
#include "server/random_bits.h"
#include "server/request_limits.h"
#include "server/translate_replay.h"

namespace cadre {
namespace {

bool IsRequestId(std::string_view id) {
  return !id.empty() && id.size() <= kMaxRequestIdBytes &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 0x7F; });
}

absl::Status ContextExceeded(std::string field, std::string description, int64_t limit, int64_t actual) {
  ErrorSpec spec{.code = absl::StatusCode::kInvalidArgument, .reason = reason::kContextLengthExceeded};
  spec.message = absl::StrCat(field, ": ", description);
  spec.metadata = {{"field", field}, {"limit", absl::StrCat(limit)}, {"actual", absl::StrCat(actual)}};
  spec.violations.push_back({std::move(field), std::move(description)});
  return MakeError(std::move(spec));
}

absl::StatusOr<std::vector<int32_t>> TranslatePrompt(const v1::GenerateRequest& wire, const ModelCard& card,
                                                     const Tokenizer& tokenizer, const ChatSupport& chat) {
  const int64_t limit = card.max_sequence_tokens() - 1;  // room for one generated token
  std::vector<int32_t> prompt;
  std::string field;
  if (wire.has_text()) {
    field = "text";
    if (wire.text().empty()) return InvalidField(field, "the prompt is empty");
    CADRE_ASSIGN_OR_RETURN(prompt, TokenizeField(wire.text(), wire.prompt(), tokenizer));
  } else if (wire.has_token_ids()) {
    field = "token_ids.ids";
    CADRE_RETURN_IF_ERROR(CheckTokenIds(field, wire.token_ids().ids(), card.limits.vocab_size));
    prompt.assign(wire.token_ids().ids().begin(), wire.token_ids().ids().end());
  } else if (wire.has_chat()) {
    field = "chat";
    CADRE_ASSIGN_OR_RETURN(prompt, TokenizeChat(wire.chat(), wire.prompt(), chat, tokenizer));
  } else {
    return InvalidField("input", "no prompt: set text, token_ids or chat");
  }
  if (wire.prompt().has_truncate_prompt_tokens()) {
    const int32_t keep = wire.prompt().truncate_prompt_tokens();
    if (keep < 1) return InvalidField("prompt.truncate_prompt_tokens", absl::StrCat(keep, " is less than 1"));
    if (prompt.size() > static_cast<size_t>(keep)) prompt.erase(prompt.begin(), prompt.end() - keep);
  }
  if (prompt.empty()) return InvalidField(field, "the prompt has no tokens");
  if (const auto id = std::max_element(prompt.begin(), prompt.end()); *id >= card.limits.vocab_size) {
    // A tokenizer may know more tokens than the model was built for.
    return InvalidField(field,
                        absl::StrCat("token id ", *id, " of the tokenizer is not in the model's vocabulary, [0, ",
                                     card.limits.vocab_size, ")"));
  }
  if (std::ssize(prompt) > limit) {
    return ContextExceeded(field, absl::StrCat("the prompt has ", prompt.size(), " tokens, the limit is ", limit),
                           limit, std::ssize(prompt));
  }
  return prompt;
}

absl::StatusOr<int32_t> TranslateMaxTokens(const v1::StopConditions& wire, const ModelCard& card,
                                           int64_t prompt_tokens) {
  const int64_t limit = card.max_sequence_tokens();
  const int64_t room = limit - prompt_tokens;
  if (!wire.has_max_tokens()) {
    // The model's own default is advice, so it gives way to the context; what a client asks for does not.
    return static_cast<int32_t>(std::min<int64_t>(card.defaults.max_new_tokens.value_or(room), room));
  }
  if (wire.max_tokens() < 1) {
    return InvalidField("stopping.max_tokens", absl::StrCat(wire.max_tokens(), " is less than 1"));
  }
  if (wire.max_tokens() > room) {
    return ContextExceeded("stopping.max_tokens",
                           absl::StrCat(prompt_tokens, " prompt tokens and max_tokens ", wire.max_tokens(),
                                        " together are more than the limit of ", limit),
                           limit, prompt_tokens + wire.max_tokens());
  }
  return wire.max_tokens();
}

absl::Status CheckRoutedExperts(const Request& request, const ModelCard& card) {
  if (!request.wants_routed_experts) return absl::OkStatus();
  const int64_t tokens = std::ssize(request.prompt) + request.sampling.max_tokens;
  const int64_t choices_of_token = int64_t{card.limits.num_moe_layers} * card.limits.top_k;
  const int64_t choices = tokens * request.num_sequences * choices_of_token;
  const int64_t limit = card.limits.min_k == kAlwaysTopK ? kMaxRoutedChoices : kMaxVaryingRoutedChoices;
  if (choices <= limit) return absl::OkStatus();
  return InvalidField("output.routed_experts", absl::StrCat("prompt and max_tokens are ", tokens, " tokens of ",
                                                            request.num_sequences, " sequences with ", choices_of_token,
                                                            " choices each: ", choices, ", the limit is ", limit));
}

}  // namespace

absl::StatusOr<std::string> ChooseRequestId(std::string_view from_client, std::string_view from_metadata) {
  if (!from_client.empty()) {
    if (IsRequestId(from_client)) return std::string(from_client);
    return InvalidField("request_id",
                        absl::StrCat(Excerpt(from_client), " (", from_client.size(), " bytes) is not 1 to ",
                                     kMaxRequestIdBytes, " visible ASCII characters"));
  }
  if (IsRequestId(from_metadata)) return std::string(from_metadata);
  return absl::StrFormat("%016x", RandomBits());
}

absl::StatusOr<Request> TranslateRequest(const v1::GenerateRequest& wire, const ModelCard& card,
                                         const Tokenizer& tokenizer, const ChatSupport& chat, AnswerKind kind) {
  Request request;
  // Cheap checks first: a request that is refused costs no tokenizing.
  CADRE_RETURN_IF_ERROR(TranslateOptions(wire, card, &request));
  if (wire.stopping().has_max_tokens()) {
    CADRE_RETURN_IF_ERROR(TranslateMaxTokens(wire.stopping(), card, /*prompt_tokens=*/1).status());
  }
  CADRE_ASSIGN_OR_RETURN(request.prompt, TranslatePrompt(wire, card, tokenizer, chat));
  CADRE_ASSIGN_OR_RETURN(request.sampling.max_tokens,
                         TranslateMaxTokens(wire.stopping(), card, std::ssize(request.prompt)));
  CADRE_RETURN_IF_ERROR(CheckAnswer(request, wire.output().token_bytes(), kind));
  request.wants_routed_experts = wire.output().routed_experts();
  CADRE_RETURN_IF_ERROR(CheckRoutedExperts(request, card));
  if (wire.has_replay_routing()) CADRE_RETURN_IF_ERROR(TranslateReplay(wire.replay_routing(), card, &request));
  return request;
}

absl::StatusOr<std::vector<int32_t>> TokenizeField(std::string_view text, const v1::PromptOptions& options,
                                                   const Tokenizer& tokenizer) {
  if (text.size() > kMaxPromptBytes) {
    return InvalidField("text", absl::StrCat(text.size(), " bytes, the limit is ", kMaxPromptBytes));
  }
  EncodeOptions encode_options;
  if (options.has_add_special_tokens()) encode_options.add_special_tokens = options.add_special_tokens();
  encode_options.parse_special = options.parse_special();
  absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(text, encode_options);
  if (!ids.ok()) return InvalidField("text", std::string(ids.status().message()));
  return ids;
}

absl::Status CheckTokenIds(std::string_view field, const google::protobuf::RepeatedField<int32_t>& ids,
                           int32_t vocab_size) {
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_size) continue;
    return InvalidField(absl::StrCat(ToAbsl(field), "[", i, "]"),
                        absl::StrCat(ids[i], " is not in [0, ", vocab_size, ")"));
  }
  return absl::OkStatus();
}

}  // namespace cadre
