// The device's sampler against the reference and the host's: the same chain, the same draw, and log probabilities.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/sample/log_softmax.h"
#include "engine/sample/philox.h"
#include "engine/sample/token_chooser.h"
#include "kernels/device.h"
#include "tests/support/fake_constraint.h"
#include "tests/support/reference_sampler.h"
#include "tests/support/test_target.h"

namespace cadre {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kMaxExtras = 1 << 16;
// What a draw may miss a token's share of [0, 1) by: weights are good to 2^-22.
constexpr double kDrawError = 1e-6;

template <typename T>
T Pick(std::mt19937& random, std::initializer_list<T> values) {
  return *(values.begin() + static_cast<std::ptrdiff_t>(random() % values.size()));
}

// What a device chose for the rows of one call.
struct Sampled {
  std::vector<int32_t> tokens;
  std::vector<int32_t> ranks;
  std::vector<float> logprobs;
  std::vector<int32_t> alternatives;
  std::vector<float> logits;  // afterwards

  DeviceChoice Row(size_t row) const {
    constexpr size_t kAlternatives = kMaxAlternatives;
    return {.token = tokens[row],
            .rank = ranks[row],
            .logprobs = std::span(logprobs).subspan(row * (1 + kAlternatives), 1 + kAlternatives),
            .alternatives = std::span(alternatives).subspan(row * kAlternatives, kAlternatives)};
  }
};

// A row to choose from, and where its sequence stands.
struct Case {
  std::vector<float> logits;
  ReferenceState state;
  std::vector<int32_t> permitted;  // by a constraint; empty: none
};

class Chooser {
 public:
  explicit Chooser(const Case& c) : vocab_size_(static_cast<int32_t>(c.logits.size())) {
    Request request;
    request.prompt = c.state.prompt;
    request.sampling = c.state.params;
    if (!c.permitted.empty()) {
      request.constraint = std::make_shared<FakeConstraint>(
          vocab_size_, [permitted = c.permitted](const std::vector<int32_t>&) { return permitted; });
    }
    rules_ = std::make_unique<ChoiceRules>(request, c.state.eos_token_ids, vocab_size_);
    chooser_ = std::make_unique<TokenChooser>(rules_.get(), request.prompt, static_cast<int32_t>(c.state.sequence));
    for (const int32_t token : c.state.output) chooser_->Accept(token);
  }
  std::optional<SampleRow> Plan(std::vector<int32_t>* extras, size_t max_extras = kMaxExtras) {
    return chooser_->PlanChoice(vocab_size_, max_extras, extras);
  }
  absl::StatusOr<ChosenToken> Adopt(const DeviceChoice& choice) const { return chooser_->Adopt(choice, vocab_size_); }
  absl::StatusOr<ChosenToken> Choose(std::vector<float> logits) { return chooser_->Choose(logits, &sampler_); }

 private:
  int32_t vocab_size_;
  std::unique_ptr<ChoiceRules> rules_;
  std::unique_ptr<TokenChooser> chooser_;
  Sampler sampler_;
};

class DeviceSamplingTest : public ::testing::TestWithParam<TestTarget> {
 protected:
  void SetUp() override {
    device_ = GetParam().make_for_model(1);
    if (!device_->ops().can_sample(1)) GTEST_SKIP() << "the host samples";
  }

  // Rows of one vocabulary, in one call. `rows` says what is wanted of each.
  Sampled Run(const std::vector<std::vector<float>>& logits, const std::vector<SampleRow>& rows,
              const std::vector<int32_t>& extras) {
    const auto n = static_cast<int64_t>(rows.size());
    const auto vocab_size = static_cast<int64_t>(logits.front().size());
    Sampled sampled;
    for (const std::vector<float>& row : logits) {
      sampled.logits.insert(sampled.logits.end(), row.begin(), row.end());
    }
    const Held rows_on_device = Send(DType::kI32, {n, kSampleRowWords}, rows.data());
    const Held extras_on_device = Send(DType::kI32, {static_cast<int64_t>(extras.size())}, extras.data());
    const Held logits_on_device = Send(DType::kF32, {n, vocab_size}, sampled.logits.data());
    sampled.tokens.assign(rows.size(), kPadding);
    sampled.ranks.resize(rows.size());
    sampled.logprobs.resize(rows.size() * (1 + kMaxAlternatives));
    sampled.alternatives.resize(rows.size() * kMaxAlternatives);
    const Held tokens = Send(DType::kI32, {n}, sampled.tokens.data());
    const Held ranks = Send(DType::kI32, {n}, sampled.ranks.data());
    const Held logprobs = Send(DType::kF32, {n, 1 + kMaxAlternatives}, sampled.logprobs.data());
    const Held alternatives = Send(DType::kI32, {n, kMaxAlternatives}, sampled.alternatives.data());
    device_->ops().Sample({tokens.view, ranks.view, logprobs.view, alternatives.view}, logits_on_device.view,
                          rows_on_device.view, extras_on_device.view);
    device_->CopyToHost(sampled.tokens.data(), tokens.view);
    device_->CopyToHost(sampled.ranks.data(), ranks.view);
    device_->CopyToHost(sampled.logprobs.data(), logprobs.view);
    device_->CopyToHost(sampled.alternatives.data(), alternatives.view);
    device_->CopyToHost(sampled.logits.data(), logits_on_device.view);
    EXPECT_TRUE(device_->Synchronize().ok());
    return sampled;
  }

  // Of one case alone.
  absl::StatusOr<ChosenToken> ChooseAlone(const Case& c) {
    Chooser chooser(c);
    std::vector<int32_t> extras;
    const std::optional<SampleRow> row = chooser.Plan(&extras);
    CADRE_CHECK(row.has_value());
    const Sampled sampled = Run({c.logits}, {*row}, extras);
    EXPECT_EQ(std::memcmp(sampled.logits.data(), c.logits.data(), c.logits.size() * sizeof(float)), 0)
        << "the logits were not changed back";
    return chooser.Adopt(sampled.Row(0));
  }

  // The choice must be the reference's, or have the draw within kDrawError of its share. Returns whether it is the
  // reference's.
  bool Check(const Case& c) {
    const absl::StatusOr<ChosenToken> chosen = ChooseAlone(c);
    EXPECT_TRUE(chosen.ok()) << chosen.status();
    if (!chosen.ok()) return false;
    const std::vector<double> distribution = ReferenceDistribution(ReferenceEdits(c.logits, c.state), c.state.params);
    const double u = UniformDraw(c.state.params.seed, c.state.sequence, c.state.output.size());
    const int32_t expected = ReferenceDraw(distribution, u);
    if (chosen->token_id != expected) {
      const auto token = static_cast<size_t>(chosen->token_id);
      double before = 0.0;
      for (size_t i = 0; i < token; ++i) before += distribution[i];
      EXPECT_GE(u, before - kDrawError) << "token " << token << " instead of " << expected;
      EXPECT_LE(u, before + distribution[token] + kDrawError) << "token " << token << " instead of " << expected;
      EXPECT_GT(c.state.params.temperature, 0.0f);
    }
    if (c.state.params.logprobs) CheckLogprob(c, *chosen);
    return chosen->token_id == expected;
  }

  // Against the host's, which has tests of its own.
  static void CheckLogprob(const Case& c, const ChosenToken& chosen) {
    const SamplingParams& params = c.state.params;
    const TokenLogprob expected = *DescribeToken(c.logits, chosen.token_id, params.top_logprobs);
    const auto expect_near = [](float actual, float wanted) {
      const double bound = std::isinf(wanted) ? 0.0 : 1e-6 * (1.0 + std::abs(static_cast<double>(wanted)));
      EXPECT_TRUE(actual == wanted || std::abs(actual - wanted) <= bound) << actual << " for " << wanted;
    };
    ASSERT_TRUE(chosen.logprob.has_value());
    EXPECT_EQ(chosen.logprob->rank, expected.rank);
    expect_near(chosen.logprob->logprob, expected.logprob);
    ASSERT_EQ(chosen.logprob->alternatives.size(), expected.alternatives.size());
    for (size_t i = 0; i < expected.alternatives.size(); ++i) {
      EXPECT_EQ(chosen.logprob->alternatives[i].token_id, expected.alternatives[i].token_id) << "alternative " << i;
      expect_near(chosen.logprob->alternatives[i].logprob, expected.alternatives[i].logprob);
    }
  }

  std::unique_ptr<Device> device_;

 private:
  struct Held {
    DeviceBuffer buffer;
    View view;
  };
  Held Send(DType dtype, Shape shape, const void* values) {
    const size_t bytes = std::max<size_t>(4, static_cast<size_t>(shape.num_elements()) * DTypeBytes(dtype));
    absl::StatusOr<DeviceBuffer> buffer = device_->Allocate(bytes);
    CADRE_CHECK(buffer.ok());
    Held held{.buffer = *std::move(buffer), .view = {}};
    held.view = held.buffer.view(dtype, shape);
    device_->CopyToDevice(held.view, values);
    EXPECT_TRUE(device_->Synchronize().ok());
    return held;
  }
};

std::vector<int32_t> RandomIds(std::mt19937& random, size_t max_count, size_t vocab_size) {
  std::vector<int32_t> ids;
  for (size_t i = random() % (max_count + 1); i > 0; --i) ids.push_back(static_cast<int32_t>(random() % vocab_size));
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

std::vector<float> RandomLogits(std::mt19937& random, size_t vocab_size) {
  const auto scale = Pick(random, {0.0f, 0.01f, 1.0f, 3.0f, 300.0f});
  const auto grid = Pick(random, {0.0f, 0.0f, 0.5f, 4.0f});  // ties
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> logits(vocab_size);
  for (float& logit : logits) {
    logit = normal(random) * scale;
    if (grid > 0.0f) logit = std::round(logit / grid) * grid;
    if (random() % 50 == 0) logit = Pick(random, {-kInfinity, -0.0f, 1e-40f, -1e38f});
  }
  if (random() % 20 == 0) logits[random() % vocab_size] = kInfinity;
  return logits;
}

Case RandomCase(std::mt19937& random, size_t vocab_size) {
  Case c;
  c.logits = RandomLogits(random, vocab_size);
  SamplingParams& params = c.state.params;
  params.temperature = Pick(random, {0.0f, 0.2f, 1.0f, 1.0f, 3.0f, 1e-6f});
  params.top_k = Pick(random, {0, 0, 1, 7, 50, 1500});
  params.top_p = Pick(random, {1.0f, 0.95f, 0.5f, 1e-6f});
  params.min_p = Pick(random, {0.0f, 0.0f, 0.1f, 1.0f});
  params.seed = random();
  params.presence_penalty = Pick(random, {0.0f, 0.7f});
  params.frequency_penalty = Pick(random, {0.0f, 0.4f, -0.5f});
  params.repetition_penalty = Pick(random, {1.0f, 1.3f, 0.5f});
  params.min_tokens = Pick(random, {0, 0, 20});
  params.ignore_eos = random() % 4 == 0;
  params.stop_token_ids = RandomIds(random, 3, vocab_size);
  std::erase(params.stop_token_ids, 0);
  for (const int32_t id : RandomIds(random, 6, vocab_size)) {
    params.logit_bias.push_back({id, Pick(random, {-100.0f, -1.5f, 3.0f})});
  }
  if (random() % 3 == 0) {
    params.allowed_token_ids = RandomIds(random, 40, vocab_size);
    params.allowed_token_ids.push_back(0);
  }
  params.logprobs = random() % 2 == 0;
  params.top_logprobs = params.logprobs ? Pick(random, {0, 1, 20}) : 0;
  if (vocab_size > 5) c.state.eos_token_ids = {3, 5};
  c.state.sequence = static_cast<uint32_t>(random() % 4);
  for (size_t i = random() % 30; i > 0; --i) c.state.prompt.push_back(static_cast<int32_t>(random() % vocab_size));
  if (random() % 3 == 0) {
    c.permitted = RandomIds(random, 60, vocab_size);
    c.permitted.insert(c.permitted.begin(), 0);
    c.permitted.erase(std::unique(c.permitted.begin(), c.permitted.end()), c.permitted.end());
    c.state.permits = [ids = c.permitted](int32_t id) { return std::ranges::find(ids, id) != ids.end(); };
  }
  for (size_t i = random() % 10; i > 0; --i) {
    const auto& from = c.permitted;
    c.state.output.push_back(from.empty() ? static_cast<int32_t>(random() % vocab_size) : from[random() % from.size()]);
  }
  // Token 0 may always be chosen: its own logit must be one.
  c.logits[0] = 0.25f;
  return c;
}

TEST_P(DeviceSamplingTest, ChoosesAsTheReferenceDoes) {
  std::mt19937 random(11);
  int num_equal = 0;
  constexpr int kNumCases = 400;
  for (int i = 0; i < kNumCases; ++i) {
    SCOPED_TRACE(testing::Message() << "case " << i);
    num_equal += Check(RandomCase(random, Pick<size_t>(random, {1, 2, 31, 33, 257, 1000, 3001})));
    if (HasFailure()) return;
  }
  EXPECT_GE(num_equal, kNumCases - 4) << "near the edge of a draw, and nowhere else";
}

// More equal logits than a list holds: the cut goes through them by id, whatever the bits of the logit are.
TEST_P(DeviceSamplingTest, CutsThroughTiesByTheLowestIds) {
  for (const float tie : {1.0f, 3.0f, -0.75f, -24.0f, 0.0f}) {
    SCOPED_TRACE(testing::Message() << "logits of " << tie);
    Case c;
    c.logits.assign(5000, tie);
    c.state.params.temperature = 1.0f;
    // All equal, and shares that are whole numbers of tokens: one too many or too few would show.
    c.state.params.top_p = 0.5f;
    for (uint64_t seed = 0; seed < 5; ++seed) {
      c.state.params.seed = seed;
      EXPECT_TRUE(Check(c));
    }
    c.logits[4321] = tie + 0x1p-19f;
    for (const auto& [top_k, top_p] : {std::pair(1200, 1.0f), std::pair(0, 0.5f), std::pair(3000, 0.5f)}) {
      c.state.params.top_k = top_k;
      c.state.params.top_p = top_p;
      const double kept = std::round((top_k > 0 ? top_k : 5000) * static_cast<double>(top_p));
      for (uint64_t seed = 0; seed < 5; ++seed) {
        c.state.params.seed = seed;
        EXPECT_TRUE(Check(c)) << "top_k " << top_k << ", top_p " << top_p;
        const auto chosen = ChooseAlone(c);
        ASSERT_TRUE(chosen.ok());
        EXPECT_TRUE(chosen->token_id < kept || chosen->token_id == 4321);
      }
    }
  }
}

// More logits in one bin, all different and not in the order of ids, than a list holds.
TEST_P(DeviceSamplingTest, NarrowsCrowdsDown) {
  Case c;
  c.logits.resize(4099);
  for (size_t i = 0; i < c.logits.size(); ++i) {
    c.logits[i] = -4.0f - static_cast<float>(i * 1000 % c.logits.size()) * 0x1p-21f;
  }
  c.state.params.temperature = 1e-4f;
  for (const int32_t top_k : {0, 1100, 2500, 4098}) {
    c.state.params.top_k = top_k;
    for (uint64_t seed = 0; seed < 6; ++seed) {
      c.state.params.seed = seed;
      c.state.params.top_p = seed % 2 == 0 ? 1.0f : 0.7f;
      EXPECT_TRUE(Check(c)) << "top_k " << top_k;
    }
  }
}

// One token far above all others: what is left for the rest of a list is farther off than bins tell apart.
TEST_P(DeviceSamplingTest, FindsItsWayAmongTokensThatAreFarOff) {
  std::mt19937 random(12);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  Case c;
  c.logits.resize(5000);
  for (float& logit : c.logits) logit = normal(random);
  c.logits[17] = 60.0f;
  c.state.params.logprobs = true;
  c.state.params.top_logprobs = 20;
  c.state.params.temperature = 40.0f;
  for (const int32_t top_k : {0, 2, 50, 1500, 4999}) {
    c.state.params.top_k = top_k;
    for (uint64_t seed = 0; seed < 4; ++seed) {
      c.state.params.seed = seed;
      c.state.params.top_p = seed % 2 == 0 ? 1.0f : 0.7f;
      EXPECT_TRUE(Check(c)) << "top_k " << top_k << ", seed " << seed;
    }
  }
}

TEST_P(DeviceSamplingTest, TellsWhatIsWrongAsTheHostDoes) {
  Case nan;
  nan.logits = {0.0f, 1.0f, std::nanf(""), 2.0f};
  nan.state.params.allowed_token_ids = {1};  // which does not hide it
  Case nothing;
  nothing.logits = {-kInfinity, -kInfinity};
  Case hidden;
  hidden.logits = {1.0f, -kInfinity, -kInfinity};
  hidden.state.params.allowed_token_ids = {2};
  for (Case* c : {&nan, &nothing, &hidden}) {
    for (const float temperature : {0.0f, 1.0f}) {
      c->state.params.temperature = temperature;
      c->state.params.logprobs = temperature == 0.0f;
      const absl::Status expected = Chooser(*c).Choose(c->logits).status();
      EXPECT_FALSE(expected.ok());
      EXPECT_EQ(ChooseAlone(*c).status(), expected);
    }
  }
}

TEST_P(DeviceSamplingTest, RowsDoNotDependOnTheirCompany) {
  std::mt19937 random(5);
  std::vector<Case> cases;
  for (int i = 0; i < 9; ++i) cases.push_back(RandomCase(random, 600));
  std::vector<std::vector<float>> logits;
  std::vector<SampleRow> rows;
  std::vector<int32_t> extras;
  for (const Case& c : cases) {
    logits.push_back(c.logits);
    rows.push_back(*Chooser(c).Plan(&extras));
  }
  const SampleRow unwanted;
  logits.insert(logits.begin() + 3, std::vector<float>(600, std::nanf("")));
  rows.insert(rows.begin() + 3, unwanted);
  const Sampled together = Run(logits, rows, extras);
  EXPECT_EQ(together.tokens[3], kPadding) << "nothing is written of a row that wants nothing";
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i == 3) continue;
    const Sampled alone = Run({logits[i]}, {rows[i]}, extras);
    EXPECT_EQ(alone.tokens[0], together.tokens[i]);
    EXPECT_EQ(alone.ranks[0], together.ranks[i]);
    const DeviceChoice a = alone.Row(0);
    const DeviceChoice b = together.Row(i);
    EXPECT_EQ(std::memcmp(a.logprobs.data(), b.logprobs.data(), a.logprobs.size_bytes()), 0);
    EXPECT_TRUE(std::ranges::equal(a.alternatives, b.alternatives));
  }
}

// Tokens come as often as the distribution says: chi-square over many seeds.
TEST_P(DeviceSamplingTest, DrawsAreDistributedAsTheySay) {
  constexpr size_t kNumTokens = 12;
  constexpr size_t kNumDraws = 1500;
  constexpr size_t kRows = 100;
  std::mt19937 random(8);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  Case c;
  for (size_t i = 0; i < kNumTokens; ++i) c.logits.push_back(normal(random));
  c.state.params.temperature = 0.8f;
  c.state.params.top_p = 0.9f;
  const std::vector<double> distribution = ReferenceDistribution(c.logits, c.state.params);
  std::vector<int> counts(kNumTokens, 0);
  for (size_t first = 0; first < kNumDraws; first += kRows) {
    std::vector<SampleRow> rows;
    std::vector<int32_t> extras;
    for (size_t i = 0; i < kRows; ++i) {
      c.state.params.seed = first + i;
      rows.push_back(*Chooser(c).Plan(&extras));
    }
    const Sampled sampled = Run(std::vector<std::vector<float>>(kRows, c.logits), rows, extras);
    for (const int32_t token : sampled.tokens) ++counts.at(static_cast<size_t>(token));
  }
  double chi_square = 0.0;
  int degrees = -1;
  for (size_t i = 0; i < kNumTokens; ++i) {
    if (distribution[i] == 0.0) {
      EXPECT_EQ(counts[i], 0) << "token " << i;
      continue;
    }
    const double expected = distribution[i] * kNumDraws;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    ++degrees;
  }
  // Far beyond what one in a million fair samplers shows with so many degrees of freedom.
  EXPECT_LT(chi_square, degrees + 5.0 * std::sqrt(2.0 * degrees) + 12.0);
}

TEST(PlanChoiceTest, LeavesToTheHostWhatHasNoRoom) {
  Case c;
  c.logits.resize(100);
  c.state.params.allowed_token_ids = {1, 2};
  c.state.params.logit_bias = {{3, 1.0f}, {4, 1.0f}};
  constexpr size_t kWords = 4 + 2 * 3;
  std::vector<int32_t> extras(5, 7);
  EXPECT_FALSE(Chooser(c).Plan(&extras, 5 + kWords - 1).has_value());
  EXPECT_EQ(extras, std::vector<int32_t>(5, 7));
  const std::optional<SampleRow> row = Chooser(c).Plan(&extras, 5 + kWords);
  ASSERT_TRUE(row.has_value());
  EXPECT_EQ(extras.size(), 5 + kWords);
  EXPECT_EQ(row->mask, 5);
  EXPECT_EQ(extras[5], 6);
  EXPECT_EQ(row->edits, 9);
  EXPECT_EQ(row->num_biased, 2);
}

INSTANTIATE_TEST_SUITE_P(All, DeviceSamplingTest, testing::ValuesIn(TestTargets()),
                         [](const testing::TestParamInfo<TestTarget>& target) { return target.param.name; });

}  // namespace
}  // namespace cadre
