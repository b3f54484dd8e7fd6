#include "server/translate_sampling.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "server/errors.h"
#include "server/proto_time.h"
#include "server/random_bits.h"
#include "server/request_limits.h"
#include "server/translate.h"

namespace cadre {
namespace {

// `value` must be in [low, high], or in (low, high] when `excludes_low`.
template <typename T>
absl::Status CheckRange(std::string field, T value, T low, T high, bool excludes_low = false) {
  const bool is_inside = excludes_low ? value > low && value <= high : value >= low && value <= high;
  if (is_inside) return absl::OkStatus();  // false for NaN
  return InvalidField(std::move(field),
                      absl::StrCat(value, " is not in ", excludes_low ? "(" : "[", low, ", ", high, "]"));
}

absl::Status CheckCount(std::string field, int count, int limit, absl::string_view what) {
  if (count <= limit) return absl::OkStatus();
  return InvalidField(std::move(field), absl::StrCat(count, " ", what, ", the limit is ", limit));
}

absl::Status TranslateFilters(const v1::SamplingParams& wire, const GenerationDefaults& defaults,
                              SamplingParams* params) {
  params->temperature = wire.has_temperature() ? wire.temperature() : defaults.temperature;
  params->top_k = wire.has_top_k() ? wire.top_k() : defaults.top_k;
  params->top_p = wire.has_top_p() ? wire.top_p() : defaults.top_p;
  params->min_p = wire.has_min_p() ? wire.min_p() : defaults.min_p;
  params->seed = wire.has_seed() ? wire.seed() : RandomBits();

  // The model's defaults were checked when it was loaded.
  if (wire.has_temperature()) {
    CADRE_RETURN_IF_ERROR(CheckRange("sampling.temperature", wire.temperature(), 0.0f, kMaxTemperature));
  }
  if (wire.has_top_p()) {
    CADRE_RETURN_IF_ERROR(CheckRange("sampling.top_p", wire.top_p(), 0.0f, 1.0f, /*excludes_low=*/true));
  }
  if (wire.has_min_p()) CADRE_RETURN_IF_ERROR(CheckRange("sampling.min_p", wire.min_p(), 0.0f, 1.0f));
  if (params->top_k < -1) {
    return InvalidField("sampling.top_k", absl::StrCat(params->top_k, " is less than 0 (0 or -1: keep all tokens)"));
  }
  params->top_k = std::max(params->top_k, 0);
  if (params->temperature < kMinTemperature) params->temperature = 0;
  return absl::OkStatus();
}

absl::Status TranslatePenalties(const v1::SamplingParams& wire, const GenerationDefaults& defaults,
                                SamplingParams* params) {
  params->presence_penalty = wire.presence_penalty();
  params->frequency_penalty = wire.frequency_penalty();
  params->repetition_penalty = wire.has_repetition_penalty() ? wire.repetition_penalty() : defaults.repetition_penalty;
  CADRE_RETURN_IF_ERROR(CheckRange("sampling.presence_penalty", wire.presence_penalty(), -kMaxPenalty, kMaxPenalty));
  CADRE_RETURN_IF_ERROR(CheckRange("sampling.frequency_penalty", wire.frequency_penalty(), -kMaxPenalty, kMaxPenalty));
  return CheckRange("sampling.repetition_penalty", params->repetition_penalty, 0.0f, kMaxRepetitionPenalty,
                    /*excludes_low=*/true);
}

absl::Status TranslateLogitBias(const v1::SamplingParams& wire, int32_t vocab_size, SamplingParams* params) {
  CADRE_RETURN_IF_ERROR(
      CheckCount("sampling.logit_bias", static_cast<int>(wire.logit_bias().size()), kMaxLogitBiasEntries, "entries"));
  for (const auto& [id, bias] : wire.logit_bias()) params->logit_bias.push_back({.token_id = id, .bias = bias});
  // The wire's map has no order; errors and answers do.
  std::ranges::sort(params->logit_bias, {}, &LogitBias::token_id);
  for (const LogitBias& entry : params->logit_bias) {
    if (entry.token_id < 0 || entry.token_id >= vocab_size) {
      return InvalidField("sampling.logit_bias",
                          absl::StrCat("token id ", entry.token_id, " is not in [0, ", vocab_size, ")"));
    }
    CADRE_RETURN_IF_ERROR(CheckRange(absl::StrCat("sampling.logit_bias[", entry.token_id, "]"), entry.bias,
                                     -kMaxLogitBias, kMaxLogitBias));
  }
  return absl::OkStatus();
}

absl::Status TranslateAllowedIds(const v1::SamplingParams& wire, int32_t vocab_size, SamplingParams* params) {
  const auto& ids = wire.allowed_token_ids();
  CADRE_RETURN_IF_ERROR(CheckCount("sampling.allowed_token_ids", ids.size(), kMaxAllowedTokenIds, "ids"));
  CADRE_RETURN_IF_ERROR(CheckTokenIds("sampling.allowed_token_ids", ids, vocab_size));
  params->allowed_token_ids.assign(ids.begin(), ids.end());
  std::sort(params->allowed_token_ids.begin(), params->allowed_token_ids.end());
  params->allowed_token_ids.erase(std::unique(params->allowed_token_ids.begin(), params->allowed_token_ids.end()),
                                  params->allowed_token_ids.end());
  return absl::OkStatus();
}

absl::Status TranslateStops(const v1::StopConditions& wire, bool wants_text, int32_t vocab_size,
                            SamplingParams* params) {
  CADRE_RETURN_IF_ERROR(CheckCount("stopping.stop_strings", wire.stop_strings_size(), kMaxStopStrings, "strings"));
  if (wire.stop_strings_size() > 0 && !wants_text) {
    return InvalidField("stopping.stop_strings", "stop strings need output.text, which is false");
  }
  for (int i = 0; i < wire.stop_strings_size(); ++i) {
    const std::string& stop = wire.stop_strings(i);
    std::string field = absl::StrCat("stopping.stop_strings[", i, "]");
    if (stop.empty()) return InvalidField(std::move(field), "is empty");
    if (stop.size() > kMaxStopStringBytes) {
      return InvalidField(std::move(field), absl::StrCat(stop.size(), " bytes, the limit is ", kMaxStopStringBytes));
    }
    params->stop_strings.push_back(stop);
  }
  CADRE_RETURN_IF_ERROR(CheckCount("stopping.stop_token_ids", wire.stop_token_ids_size(), kMaxStopTokenIds, "ids"));
  CADRE_RETURN_IF_ERROR(CheckTokenIds("stopping.stop_token_ids", wire.stop_token_ids(), vocab_size));
  params->stop_token_ids.assign(wire.stop_token_ids().begin(), wire.stop_token_ids().end());
  params->ignore_eos = wire.ignore_eos();
  params->include_stop_string = wire.include_stop_string();
  params->min_tokens = wire.min_tokens();
  if (wire.min_tokens() < 0) {
    return InvalidField("stopping.min_tokens", absl::StrCat(wire.min_tokens(), " is less than 0"));
  }
  return absl::OkStatus();
}

// Before min_tokens no end is chosen, so there must be something else.
absl::Status CheckNotOnlyEnds(const SamplingParams& params, const std::vector<int32_t>& eos_token_ids) {
  if (params.allowed_token_ids.empty() || params.min_tokens == 0) return absl::OkStatus();
  const auto ends = [&](int32_t id) {
    const auto has = [id](const std::vector<int32_t>& ids) {
      return std::find(ids.begin(), ids.end(), id) != ids.end();
    };
    return has(params.stop_token_ids) || (!params.ignore_eos && has(eos_token_ids));
  };
  if (!std::ranges::all_of(params.allowed_token_ids, ends)) return absl::OkStatus();
  return InvalidField(
      "sampling.allowed_token_ids",
      absl::StrCat("holds only end-of-sequence and stop tokens, and stopping.min_tokens is ", params.min_tokens));
}

absl::Status TranslateOutput(const v1::OutputOptions& wire, Request* request) {
  SamplingParams* params = &request->sampling;
  if (wire.has_skip_special_tokens()) params->skip_special_tokens = wire.skip_special_tokens();
  params->logprobs = wire.logprobs();
  params->top_logprobs = wire.top_logprobs();
  request->echo = wire.echo();
  CADRE_RETURN_IF_ERROR(CheckRange("output.top_logprobs", wire.top_logprobs(), 0, kMaxTopLogprobs));
  if (wire.top_logprobs() > 0 && !wire.logprobs()) {
    return InvalidField("output.top_logprobs",
                        absl::StrCat(wire.top_logprobs(), " alternatives need output.logprobs, which is false"));
  }
  if (!wire.has_prompt_logprobs()) return absl::OkStatus();
  request->prompt_logprobs = wire.prompt_logprobs();
  return CheckRange("output.prompt_logprobs", wire.prompt_logprobs(), 0, kMaxTopLogprobs);
}

absl::Status CheckLabel(std::string field, const std::string& label) {
  const bool is_visible = std::all_of(label.begin(), label.end(), [](char c) { return c > ' ' && c < 0x7F; });
  if (is_visible && label.size() <= kMaxLabelBytes) return absl::OkStatus();
  return InvalidField(std::move(field), absl::StrCat(Excerpt(label), " (", label.size(), " bytes) is not up to ",
                                                     kMaxLabelBytes, " visible ASCII characters"));
}

absl::Status TranslateTimeLimit(const google::protobuf::Duration& wire, Request* request) {
  // Proto's own bounds: ten thousand years, and nanoseconds of the seconds' sign.
  constexpr int64_t kMaxSeconds = 315'576'000'000;
  const bool is_valid = wire.seconds() >= 0 && wire.seconds() <= kMaxSeconds && wire.nanos() >= 0 &&
                        wire.nanos() < 1'000'000'000 && (wire.seconds() > 0 || wire.nanos() > 0);
  if (!is_valid) {
    return InvalidField("scheduling.time_limit",
                        absl::StrCat(wire.seconds(), " s and ", wire.nanos(),
                                     " ns is not a positive duration of at most ", kMaxSeconds, " s"));
  }
  request->time_limit = FromProto(wire);
  return absl::OkStatus();
}

absl::Status TranslateScheduling(const v1::SchedulingOptions& wire, Request* request) {
  CADRE_RETURN_IF_ERROR(CheckRange("scheduling.priority", wire.priority(), -kMaxPriority, kMaxPriority));
  CADRE_RETURN_IF_ERROR(CheckLabel("scheduling.tenant", wire.tenant()));
  CADRE_RETURN_IF_ERROR(CheckLabel("scheduling.cache_salt", wire.cache_salt()));
  request->priority = wire.priority();
  request->tenant = wire.tenant();
  request->cache_salt = wire.cache_salt();
  return wire.has_time_limit() ? TranslateTimeLimit(wire.time_limit(), request) : absl::OkStatus();
}

// Bytes that one token may take, on its way out, with so many alternatives (-1: without details).
int64_t TokenAnswerBytes(int32_t num_alternatives, bool has_token_bytes) {
  if (num_alternatives < 0 && !has_token_bytes) return kAnswerBytesPerToken;
  return kAnswerBytesPerToken + kAnswerBytesPerDetail * (1 + std::max(num_alternatives, 0));
}

}  // namespace

absl::Status TranslateOptions(const v1::GenerateRequest& wire, const ModelCard& card, Request* request) {
  const int32_t vocab_size = card.limits.vocab_size;
  SamplingParams* params = &request->sampling;
  request->wants_text = wire.output().has_text() ? wire.output().text() : true;
  CADRE_RETURN_IF_ERROR(TranslateFilters(wire.sampling(), card.defaults, params));
  CADRE_RETURN_IF_ERROR(TranslatePenalties(wire.sampling(), card.defaults, params));
  CADRE_RETURN_IF_ERROR(TranslateLogitBias(wire.sampling(), vocab_size, params));
  CADRE_RETURN_IF_ERROR(TranslateAllowedIds(wire.sampling(), vocab_size, params));
  if (wire.sampling().has_n()) {
    CADRE_RETURN_IF_ERROR(CheckRange("sampling.n", wire.sampling().n(), 1, kMaxSequences));
    request->num_sequences = wire.sampling().n();
  }
  CADRE_RETURN_IF_ERROR(TranslateStops(wire.stopping(), request->wants_text, vocab_size, params));
  CADRE_RETURN_IF_ERROR(CheckNotOnlyEnds(*params, card.engine.eos_token_ids));
  CADRE_RETURN_IF_ERROR(TranslateOutput(wire.output(), request));
  return TranslateScheduling(wire.scheduling(), request);
}

absl::Status CheckAnswer(const Request& request, bool has_token_bytes, AnswerKind kind) {
  const SamplingParams& params = request.sampling;
  if (params.min_tokens > params.max_tokens) {
    return InvalidField("stopping.min_tokens",
                        absl::StrCat(params.min_tokens, " is not in [0, ", params.max_tokens, "], max_tokens"));
  }
  const int64_t n = request.num_sequences;
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  const int64_t output_bytes = TokenAnswerBytes(params.logprobs ? params.top_logprobs : -1, has_token_bytes);
  const int64_t copies = kind == AnswerKind::kStreamedBySequence ? n : 1;
  const int64_t prompt_bytes =
      request.prompt_logprobs ? copies * prompt_tokens * TokenAnswerBytes(*request.prompt_logprobs, has_token_bytes)
                              : 0;
  // The prompt is repeated for each sequence at once.
  const int64_t echo_bytes =
      request.echo ? n * prompt_tokens *
                         TokenAnswerBytes(params.logprobs ? request.prompt_logprobs.value_or(0) : -1, has_token_bytes)
                   : 0;
  if (prompt_bytes + echo_bytes > kMaxAnswerBytes) {
    return InvalidField(request.prompt_logprobs ? "output.prompt_logprobs" : "output.echo",
                        absl::StrCat(prompt_tokens, " prompt tokens may take ", prompt_bytes + echo_bytes,
                                     " bytes of the answer, the limit is ", kMaxAnswerBytes));
  }
  if (kind != AnswerKind::kCollected) return absl::OkStatus();
  const int64_t total = prompt_bytes + echo_bytes + n * params.max_tokens * output_bytes;
  if (total <= kMaxAnswerBytes) return absl::OkStatus();
  return InvalidField("stopping.max_tokens",
                      absl::StrCat(params.max_tokens, " tokens of ", n, " sequences may take ", total,
                                   " bytes in one message, the limit is ", kMaxAnswerBytes, "; Generate streams them"));
}

}  // namespace cadre
