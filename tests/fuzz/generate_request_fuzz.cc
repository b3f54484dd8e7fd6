// Everything between the wire and Engine::Submit, over any GenerateRequest. Input: the message, serialized; the mutator
// changes it field by field. What is refused says why, in a way that programs can act on; what is accepted keeps every
// limit, says what was asked for, and can be run.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/v1/generation_service.pb.h"
#include "engine/base/check.h"
#include "engine/sample/token_chooser.h"
#include "engine/text/utf8.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/errors.h"
#include "server/field_support.h"
#include "server/request_limits.h"
#include "server/simulated_tokenizer.h"
#include "server/translate.h"
#include "server/translate_capacity.h"
#include "server/translate_structured.h"
#include "tests/support/message_mutator.h"

namespace cadre {
namespace {

constexpr std::int32_t kVocab = 300;
constexpr std::int32_t kContext = 256;
constexpr std::size_t kMaxInputBytes = 1 << 16;
constexpr std::size_t kMaxConstraintBytes = 2048;  // larger ones are other targets' business
const std::vector<std::int32_t> kEos = {2, 299};

// A model that is served: the tokens are bytes, and some more.
struct Served {
  ModelCard card;
  std::unique_ptr<Tokenizer> tokenizer = *MakeSimulatedTokenizer(kVocab);
  ChatSupport chat;
  ConstraintCache constraints{[this] { return TokenVocabulary::FromTokenizer(*tokenizer, kVocab, kEos); },
                              {.max_bytes = 16 << 20, .max_entries = 32}};

  Served() {
    card.limits = {.vocab_size = kVocab,
                   .max_model_len = kContext,
                   .num_kv_blocks = 64,
                   .kv_block_size = 16,
                   .num_moe_layers = 2,
                   .num_experts = 4,
                   .top_k = 2,
                   .min_k = 1,
                   .can_replay_routing = true};
    card.engine.eos_token_ids = kEos;
    constexpr char kTemplate[] =
        "{% for m in messages %}{% if m.role == 'bad' %}{{ raise_exception('no ' + m.content) }}{% endif %}"
        "<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    chat.chat_template = std::make_shared<const ChatTemplate>(*ChatTemplate::Parse({kTemplate, "fuzz"}, {}));
  }
};

absl::StatusOr<Request> Translate(const v1::GenerateRequest& wire, Served* served, AnswerKind kind) {
  if (absl::Status status = ChooseRequestId(wire.request_id(), "").status(); !status.ok()) return status;
  if (absl::Status status = RefuseUnsupportedFields(wire); !status.ok()) return status;
  absl::StatusOr<Request> request = TranslateRequest(wire, served->card, *served->tokenizer, served->chat, kind);
  if (!request.ok()) return request;
  if (wire.scheduling().has_capacity()) {
    const absl::StatusOr<CapacityPolicy> capacity =
        TranslateCapacity(wire.scheduling().capacity(), {}, "scheduling.capacity");
    if (!capacity.ok()) return capacity.status();
    request->capacity = *capacity;
  }
  if (absl::Status status = TranslateStructuredOutput(wire, &served->constraints, &*request); !status.ok()) {
    return status;
  }
  return request;
}

// Whether `path` ("stopping.stop_strings[2]") leads to a field, or a oneof, of GenerateRequest.
bool IsFieldPath(std::string_view path) {
  const google::protobuf::Descriptor* message = v1::GenerateRequest::descriptor();
  while (true) {
    const std::size_t size = std::min(path.find('.'), path.size());
    const std::string_view step = path.substr(0, size);
    const std::string name(step.substr(0, step.find('[')));
    const auto* field = message->FindFieldByName(name);
    if (field == nullptr) return size == path.size() && message->FindOneofByName(name) != nullptr;
    if (name.size() < step.size() && (!field->is_repeated() || step.back() != ']')) return false;
    if (size == path.size()) return true;
    message = field->message_type();
    if (message == nullptr) return false;
    path.remove_prefix(size + 1);
  }
}

void CheckRefusal(const absl::Status& status) {
  const google::rpc::Status wire = ToWireStatus(status);
  CADRE_CHECK_LE(wire.ByteSizeLong(), kMaxErrorDetailBytes + 2 * kMaxErrorMessageBytes);
  CADRE_CHECK(!wire.message().empty() && IsValidUtf8(wire.message()));
  google::rpc::ErrorInfo info;
  CADRE_CHECK(wire.details_size() > 0 && wire.details(0).UnpackTo(&info));
  CADRE_CHECK_EQ(info.domain(), std::string(kErrorDomain));
  const std::string field = info.metadata().at("field");
  CADRE_CHECK(IsFieldPath(field));
  CADRE_CHECK(wire.message().find(field) != std::string::npos);
  if (status.code() == absl::StatusCode::kFailedPrecondition) {
    CADRE_CHECK_EQ(info.reason(), std::string(reason::kNoChatTemplate));
    return;
  }
  const bool is_unsupported = status.code() == absl::StatusCode::kUnimplemented;
  CADRE_CHECK(is_unsupported || status.code() == absl::StatusCode::kInvalidArgument);
  CADRE_CHECK_EQ(is_unsupported, info.reason() == reason::kUnsupportedField);
  CADRE_CHECK(is_unsupported || info.reason() == reason::kInvalidField ||
              info.reason() == reason::kContextLengthExceeded);
  google::rpc::BadRequest bad_request;
  CADRE_CHECK(wire.details_size() == 2 && wire.details(1).UnpackTo(&bad_request));
  CADRE_CHECK_EQ(bad_request.field_violations(0).field(), field);
  for (const auto& violation : bad_request.field_violations()) {
    CADRE_CHECK(IsFieldPath(violation.field()) && !violation.description().empty());
  }
}

template <typename T>
bool IsIn(T value, T low, T high) {
  return value >= low && value <= high;  // false for NaN
}

bool AreTokens(const std::vector<std::int32_t>& ids) {
  return std::all_of(ids.begin(), ids.end(), [](std::int32_t id) { return id >= 0 && id < kVocab; });
}

void CheckLimits(const Request& request) {
  const SamplingParams& params = request.sampling;
  CADRE_CHECK(!request.prompt.empty() && AreTokens(request.prompt));
  CADRE_CHECK_GE(params.max_tokens, 1);
  CADRE_CHECK_LE(std::ssize(request.prompt) + params.max_tokens, kContext);
  CADRE_CHECK(IsIn(params.min_tokens, 0, params.max_tokens));
  CADRE_CHECK(params.temperature == 0.0f || IsIn(params.temperature, kMinTemperature, kMaxTemperature));
  CADRE_CHECK(params.top_k >= 0 && params.top_p > 0.0f && params.top_p <= 1.0f && IsIn(params.min_p, 0.0f, 1.0f));
  CADRE_CHECK(IsIn(params.presence_penalty, -kMaxPenalty, kMaxPenalty));
  CADRE_CHECK(IsIn(params.frequency_penalty, -kMaxPenalty, kMaxPenalty));
  CADRE_CHECK(params.repetition_penalty > 0.0f && params.repetition_penalty <= kMaxRepetitionPenalty);
  CADRE_CHECK_LE(params.logit_bias.size(), std::size_t{kMaxLogitBiasEntries});
  std::int32_t last = -1;
  for (const LogitBias& entry : params.logit_bias) {
    CADRE_CHECK(entry.token_id > last && entry.token_id < kVocab && IsIn(entry.bias, -kMaxLogitBias, kMaxLogitBias));
    last = entry.token_id;
  }
  CADRE_CHECK(AreTokens(params.allowed_token_ids) && std::ranges::is_sorted(params.allowed_token_ids));
  CADRE_CHECK(params.stop_token_ids.size() <= std::size_t{kMaxStopTokenIds} && AreTokens(params.stop_token_ids));
  CADRE_CHECK(params.stop_strings.size() <= std::size_t{kMaxStopStrings});
  for (const std::string& stop : params.stop_strings)
    CADRE_CHECK(IsIn(stop.size(), std::size_t{1}, kMaxStopStringBytes));
  CADRE_CHECK(IsIn(params.top_logprobs, 0, kMaxTopLogprobs) && (params.logprobs || params.top_logprobs == 0));
  CADRE_CHECK(IsIn(request.prompt_logprobs.value_or(0), 0, kMaxTopLogprobs));
  CADRE_CHECK(IsIn(request.num_sequences, 1, kMaxSequences));
  CADRE_CHECK(IsIn(request.priority, -kMaxPriority, kMaxPriority) && request.time_limit > absl::ZeroDuration());
  CADRE_CHECK(request.tenant.size() <= kMaxLabelBytes && request.cache_salt.size() <= kMaxLabelBytes);
  if (request.replay != nullptr) {
    const ReplayBounds bounds = {
        .num_layers = 2,
        .num_experts = 4,
        .top_k = 2,
        .min_k = 1,
        .num_positions = static_cast<std::int64_t>(request.prompt.size()) + params.max_tokens - 1};
    CADRE_CHECK(!FindReplayFault(*request.replay, bounds).has_value());
  }
  CADRE_CHECK(request.constraint == nullptr || (!params.ignore_eos && params.allowed_token_ids.empty()));
}

// What was set has arrived.
void CheckFaithful(const v1::GenerateRequest& wire, const Request& request) {
  const SamplingParams& params = request.sampling;
  const v1::SamplingParams& sampling = wire.sampling();
  if (sampling.has_temperature()) {
    CADRE_CHECK_EQ(params.temperature, sampling.temperature() < kMinTemperature ? 0.0f : sampling.temperature());
  }
  if (sampling.has_top_k()) CADRE_CHECK_EQ(params.top_k, std::max(sampling.top_k(), 0));
  if (sampling.has_top_p()) CADRE_CHECK_EQ(params.top_p, sampling.top_p());
  if (sampling.has_min_p()) CADRE_CHECK_EQ(params.min_p, sampling.min_p());
  if (sampling.has_seed()) CADRE_CHECK_EQ(params.seed, sampling.seed());
  if (sampling.has_n()) CADRE_CHECK_EQ(request.num_sequences, sampling.n());
  CADRE_CHECK_EQ(params.logit_bias.size(), sampling.logit_bias().size());
  CADRE_CHECK_EQ(params.allowed_token_ids.size(),
                 std::set(sampling.allowed_token_ids().begin(), sampling.allowed_token_ids().end()).size());
  if (wire.stopping().has_max_tokens()) CADRE_CHECK_EQ(params.max_tokens, wire.stopping().max_tokens());
  CADRE_CHECK_EQ(params.min_tokens, wire.stopping().min_tokens());
  CADRE_CHECK_EQ(params.stop_strings.size(), static_cast<std::size_t>(wire.stopping().stop_strings_size()));
  CADRE_CHECK_EQ(params.ignore_eos, wire.stopping().ignore_eos());
  CADRE_CHECK_EQ(request.prompt_logprobs.has_value(), wire.output().has_prompt_logprobs());
  CADRE_CHECK_EQ(request.tenant, wire.scheduling().tenant());
  CADRE_CHECK_EQ(request.constraint != nullptr, wire.has_structured_output());
  if (wire.has_token_ids() && !wire.prompt().has_truncate_prompt_tokens()) {
    CADRE_CHECK(std::ranges::equal(request.prompt, wire.token_ids().ids()));
  }
}

// The first tokens of the answer, over logits that do not matter.
void Run(const Request& request) {
  const ChoiceRules rules(request, kEos, kVocab);
  TokenChooser chooser(&rules, request.prompt, request.num_sequences - 1);
  Sampler sampler;
  for (int step = 0; step < std::min(request.sampling.max_tokens, 4) && !chooser.done(); ++step) {
    std::vector<float> logits(kVocab);
    for (int i = 0; i < kVocab; ++i) logits[static_cast<std::size_t>(i)] = static_cast<float>(i * 7 % 31) / 4.0f;
    const absl::StatusOr<ChosenToken> chosen = chooser.Choose(logits, &sampler);
    CADRE_CHECK(chosen.ok());
    const bool ends = std::ranges::binary_search(rules.ending_ids(), chosen->token_id);
    CADRE_CHECK(!ends || step >= request.sampling.min_tokens || request.constraint != nullptr);
    if (ends) return;
    chooser.Accept(chosen->token_id);
  }
}

void CheckRequest(const v1::GenerateRequest& wire) {
  static Served& served = *new Served();
  const absl::StatusOr<Request> streamed = Translate(wire, &served, AnswerKind::kStreamed);
  const absl::StatusOr<Request> collected = Translate(wire, &served, AnswerKind::kCollected);
  // One message holds less than a stream.
  CADRE_CHECK(streamed.ok() || !collected.ok());
  if (!collected.ok()) CheckRefusal(collected.status());
  if (!streamed.ok()) {
    CheckRefusal(streamed.status());
    CADRE_CHECK_EQ(streamed.status().message(), collected.status().message());
    return;
  }
  CheckLimits(*streamed);
  CheckFaithful(wire, *streamed);
  Run(*streamed);
}

// The two requests are one message by two names.
void CheckTwin(const v1::GenerateRequest& wire) {
  v1::GenerateTextRequest twin;
  CADRE_CHECK(twin.ParseFromString(wire.SerializeAsString()));
  CADRE_CHECK(RefuseUnsupportedFields(twin) == RefuseUnsupportedFields(wire));
}

bool HasLargeConstraint(const v1::StructuredOutput& wire) { return wire.ByteSizeLong() > kMaxConstraintBytes; }

const std::vector<std::string>& Texts() {
  static const auto& texts = *new std::vector<std::string>{
      "",
      "a",
      "user",
      "bad",
      "tenant-1",
      "\n",
      "\x7F",
      "é日本😀",
      std::string("\0", 1),
      "{}",
      "[]",
      R"({"type":"object","properties":{"a":{"type":"integer","minimum":3}},"required":["a"]})",
      R"({"$ref":"#/$defs/n","$defs":{"n":{"anyOf":[{"type":"null"},{"items":{"$ref":"#/$defs/n"},"type":"array"}]}}})",
      R"({"enum":["a","b",1,null]})",
      R"({"not":{}})",
      R"-({"pattern":"^a(?=b)"})-",
      "(yes|no)+",
      "[a-z]{2,5}\\d*",
      "(a)\\1",
      "(a{1,1000}){1,1000}",
      R"({"type":"function","function":{"name":"f","parameters":{}}})",
      std::string(129, 'x'),
      std::string(1025, 'y'),
  };
  return texts;
}

}  // namespace
}  // namespace cadre

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // Of inputs that are no messages.
  [[maybe_unused]] static auto* const logged_before = google::protobuf::SetLogHandler(nullptr);
  cadre::v1::GenerateRequest wire;
  if (size > cadre::kMaxInputBytes || !wire.ParseFromArray(data, static_cast<int>(size))) return 0;
  if (cadre::HasLargeConstraint(wire.structured_output())) return 0;
  cadre::CheckRequest(wire);
  cadre::CheckTwin(wire);
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int seed) {
  cadre::v1::GenerateRequest wire;
  if (!wire.ParseFromArray(data, static_cast<int>(size))) wire.Clear();
  std::mt19937 random(seed);
  cadre::MutateMessage(&wire, cadre::Texts(), &random);
  const std::size_t mutated_size = wire.ByteSizeLong();
  if (mutated_size > max_size) return size;
  CADRE_CHECK(wire.SerializeToArray(data, static_cast<int>(mutated_size)));
  return mutated_size;
}
