// Every sampling parameter over hostile rows of logits, against the reference. Input: bytes read one by one as the
// vocabulary, the parameters, the prompt and then steps, each a row made of the bytes that are left.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <span>
#include <vector>

#include "engine/base/check.h"
#include "engine/sample/token_chooser.h"
#include "tests/support/reference_sampler.h"

namespace cadre {
namespace {

class Bytes {
 public:
  explicit Bytes(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  std::uint8_t Next() { return next_ < bytes_.size() ? bytes_[next_++] : 0; }
  bool empty() const { return next_ >= bytes_.size(); }

 private:
  std::span<const std::uint8_t> bytes_;
  std::size_t next_ = 0;
};

float PickLogit(Bytes* bytes) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr std::array<float, 8> kSpecial = {0.0f,
                                             -0.0f,
                                             kInf,
                                             -kInf,
                                             kMax,
                                             -kMax,
                                             std::numeric_limits<float>::denorm_min(),
                                             std::numeric_limits<float>::quiet_NaN()};
  const std::uint8_t byte = bytes->Next();
  if (byte >= 248) return kSpecial[byte - 248];
  return (static_cast<float>(byte) - 124.0f) / 8.0f;
}

std::vector<std::int32_t> PickIds(Bytes* bytes, std::int32_t vocab_size, std::size_t max_count) {
  std::set<std::int32_t> ids;
  for (std::size_t i = bytes->Next() % (max_count + 1); i > 0; --i) ids.insert(bytes->Next() % vocab_size);
  return {ids.begin(), ids.end()};
}

template <std::size_t N>
float Pick(Bytes* bytes, const std::array<float, N>& values) {
  return values[bytes->Next() % N];
}

SamplingParams PickParams(Bytes* bytes, std::int32_t vocab_size) {
  SamplingParams params;
  params.temperature = Pick(bytes, std::array{0.0f, 1e-4f, 0.3f, 1.0f, 10.0f});
  params.top_k = bytes->Next();
  params.top_p = Pick(bytes, std::array{1.0f, 0.99f, 0.5f, 1e-30f});
  params.min_p = Pick(bytes, std::array{0.0f, 0.1f, 1.0f});
  params.seed = bytes->Next();
  params.presence_penalty = Pick(bytes, std::array{0.0f, 2.0f, -2.0f});
  params.frequency_penalty = Pick(bytes, std::array{0.0f, 2.0f, -0.5f});
  params.repetition_penalty = Pick(bytes, std::array{1.0f, 10.0f, 0.5f, 1e-45f});
  params.min_tokens = bytes->Next() % 8;
  params.ignore_eos = bytes->Next() % 2 == 0;
  params.stop_token_ids = PickIds(bytes, vocab_size, 3);
  params.allowed_token_ids = PickIds(bytes, vocab_size, 16);
  for (const std::int32_t id : PickIds(bytes, vocab_size, 8)) {
    params.logit_bias.push_back({id, Pick(bytes, std::array{100.0f, -100.0f, 0.5f})});
  }
  params.logprobs = bytes->Next() % 2 == 0;
  params.top_logprobs = bytes->Next() % 21;
  return params;
}

void CheckLogprob(const TokenLogprob& found, const TokenLogprob& expected) {
  const auto is_near = [](float a, float b) {
    return a == b || std::abs(a - b) <= 1e-5f * std::max(1.0f, std::abs(b));
  };
  CADRE_CHECK_EQ(found.rank, expected.rank);
  CADRE_CHECK(is_near(found.logprob, expected.logprob));
  CADRE_CHECK_EQ(found.alternatives.size(), expected.alternatives.size());
  for (std::size_t i = 0; i < found.alternatives.size(); ++i) {
    CADRE_CHECK_EQ(found.alternatives[i].token_id, expected.alternatives[i].token_id);
    CADRE_CHECK(is_near(found.alternatives[i].logprob, expected.alternatives[i].logprob));
  }
}

// The chosen token is one that the reference leaves; at a cut by top_p, sums in another order may differ by a rounding.
void CheckChoice(std::int32_t token, const std::vector<float>& edited, SamplingParams params) {
  if (ReferenceDistribution(edited, params)[static_cast<std::size_t>(token)] > 0.0) return;
  params.top_p = std::min(params.top_p * (1.0f + 1e-6f), 1.0f);
  params.min_p *= 1.0f - 1e-6f;
  CADRE_CHECK_GT(ReferenceDistribution(edited, params)[static_cast<std::size_t>(token)], 0.0);
}

void Run(Bytes* bytes) {
  const std::int32_t vocab_size = 1 + bytes->Next() % 200;
  Request request;
  request.sampling = PickParams(bytes, vocab_size);
  for (int i = bytes->Next() % 8; i >= 0; --i) request.prompt.push_back(bytes->Next() % vocab_size);
  const std::vector<std::int32_t> eos = PickIds(bytes, vocab_size, 2);
  const std::int32_t index = bytes->Next() % 128;
  const ChoiceRules rules(request, eos, vocab_size);
  TokenChooser chooser(&rules, request.prompt, index);
  ReferenceState state{.params = request.sampling, .eos_token_ids = eos, .prompt = request.prompt, .output = {}};
  Sampler sampler;
  for (int step = 0; step < 8 && !bytes->empty(); ++step) {
    std::vector<float> row(static_cast<std::size_t>(vocab_size));
    for (float& logit : row) logit = PickLogit(bytes);
    const std::vector<float> edited = ReferenceEdits(row, state);
    const bool is_broken = std::any_of(row.begin(), row.end(), [](float z) { return std::isnan(z); }) ||
                           std::all_of(edited.begin(), edited.end(), [](float z) { return std::isinf(z) && z < 0.0f; });
    std::vector<float> scratch = row;
    const absl::StatusOr<ChosenToken> chosen = chooser.Choose(scratch, &sampler);
    CADRE_CHECK_EQ(chosen.ok(), !is_broken);
    if (!chosen.ok()) return;
    CheckChoice(chosen->token_id, edited, request.sampling);
    if (chosen->logprob) {
      CheckLogprob(*chosen->logprob, ReferenceLogprob(row, chosen->token_id, request.sampling.top_logprobs));
    }
    chooser.Accept(chosen->token_id);
    state.output.push_back(chosen->token_id);
  }
}

}  // namespace
}  // namespace cadre

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cadre::Bytes bytes(std::span(data, std::min<std::size_t>(size, 4096)));
  cadre::Run(&bytes);
  return 0;
}
