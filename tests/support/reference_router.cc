#include "tests/support/reference_router.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/philox.h"

namespace cadre {
namespace {

using Numbers = std::vector<double>;
constexpr double kNever = -std::numeric_limits<double>::infinity();

Numbers Softmax(const Numbers& z) {
  const double largest = *std::max_element(z.begin(), z.end());
  Numbers p;
  for (const double x : z) p.push_back(std::exp(x - largest));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

Numbers Sigmoid(const Numbers& z) {
  Numbers s;
  for (const double x : z) s.push_back(1.0 / (1.0 + std::exp(-x)));
  return s;
}

// Indices in the order of falling values, the lower index first where they are equal.
std::vector<int32_t> Ranking(const Numbers& values) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
  });
  return order;
}

double At(const Numbers& values, int32_t i) { return values[static_cast<size_t>(i)]; }

// The smallest difference between neighbors among the first `count` and the one behind them.
double MarginOf(const Numbers& values, const std::vector<int32_t>& order, int64_t count) {
  double margin = std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < count && i + 1 < static_cast<int64_t>(order.size()); ++i) {
    const auto at = static_cast<size_t>(i);
    margin = std::min(margin, At(values, order[at]) - At(values, order[at + 1]));
  }
  return margin;
}

ReferenceChoice Best(const Numbers& c, int64_t k) {
  const std::vector<int32_t> order = Ranking(c);
  return {.ids = {order.begin(), order.begin() + k}, .weights = {}, .margin = MarginOf(c, order, k)};
}

void TakeWeights(ReferenceChoice* choice, const Numbers& s) {
  for (const int32_t id : choice->ids) choice->weights.push_back(At(s, id));
}
void DivideBySum(Numbers* weights, double epsilon) {
  const double sum = std::accumulate(weights->begin(), weights->end(), epsilon);
  for (double& w : *weights) w /= sum;
}
void Scale(const nlohmann::json& scheme, Numbers* weights) {
  for (double& w : *weights) w *= scheme.value("scaling_factor", 1.0);
}

// Softmax before the choice: all experts share 1. After it: the chosen do.
ReferenceChoice SoftmaxTopK(const nlohmann::json& scheme, const Numbers& z, int64_t family_k) {
  ReferenceChoice choice = Best(z, scheme.value("top_k", family_k));
  if (scheme.value("normalize", "after") == "before") {
    TakeWeights(&choice, Softmax(z));
  } else {
    TakeWeights(&choice, z);
    choice.weights = Softmax(choice.weights);
  }
  Scale(scheme, &choice.weights);
  return choice;
}

// Wang et al. 2024: the bias chooses, the score weighs.
ReferenceChoice SigmoidBias(const nlohmann::json& scheme, const Numbers& z, Numbers bias, int64_t family_k) {
  const Numbers s = Sigmoid(z);
  bias.resize(z.size());
  Numbers c;
  for (size_t e = 0; e < z.size(); ++e) c.push_back(s[e] + bias[e]);
  ReferenceChoice choice = Best(c, scheme.value("top_k", family_k));
  TakeWeights(&choice, s);
  if (scheme.value("renormalize", true)) DivideBySum(&choice.weights, 1e-20);
  Scale(scheme, &choice.weights);
  return choice;
}

// DeepSeek-V2 and V3: experts outside of the best groups cannot be chosen.
ReferenceChoice GroupLimited(const nlohmann::json& scheme, const Numbers& z, Numbers bias, int64_t family_k) {
  const bool is_sigmoid = scheme.value("score", "softmax") == "sigmoid";
  const Numbers s = is_sigmoid ? Sigmoid(z) : Softmax(z);
  bias.resize(z.size());
  Numbers c;
  for (size_t e = 0; e < z.size(); ++e) c.push_back(s[e] + bias[e]);
  const size_t num_groups = scheme.at("num_groups").get<size_t>();
  const size_t size = z.size() / num_groups;
  const bool is_max = scheme.value("group_score", is_sigmoid ? "top2-sum" : "max") == "max";
  Numbers of_groups;
  for (size_t g = 0; g < num_groups; ++g) {
    Numbers members(c.begin() + static_cast<std::ptrdiff_t>(g * size),
                    c.begin() + static_cast<std::ptrdiff_t>((g + 1) * size));
    std::sort(members.begin(), members.end(), std::greater<>());
    of_groups.push_back(is_max || size == 1 ? members[0] : members[0] + members[1]);
  }
  const ReferenceChoice kept = Best(of_groups, scheme.at("kept_groups").get<int64_t>());
  Numbers allowed(z.size(), kNever);
  for (const int32_t g : kept.ids) {
    for (size_t e = static_cast<size_t>(g) * size; e < (static_cast<size_t>(g) + 1) * size; ++e) allowed[e] = c[e];
  }
  ReferenceChoice choice = Best(allowed, scheme.value("top_k", family_k));
  choice.margin = std::min(choice.margin, kept.margin);
  TakeWeights(&choice, s);
  if (scheme.value("renormalize", is_sigmoid)) DivideBySum(&choice.weights, is_sigmoid ? 1e-20 : 0.0);
  Scale(scheme, &choice.weights);
  return choice;
}

// Shazeer et al. 2017, with one deviation for all experts: the noise of an expert comes from a block of Philox words
// that four experts share, by Box and Muller.
ReferenceChoice NoisyTopK(const nlohmann::json& scheme, Numbers z, const RoutedRow& row, int64_t family_k) {
  for (size_t e = 0; e < z.size(); ++e) {
    const PhiloxCounter words = Philox4x32(
        {static_cast<uint32_t>(row.position), static_cast<uint32_t>(e / 4), static_cast<uint32_t>(row.layer), 1},
        {static_cast<uint32_t>(row.seed), static_cast<uint32_t>(row.seed >> 32)});
    const size_t pair = e % 4 / 2 * 2;
    const double first = static_cast<double>((words[pair] >> 8) + 1) / 16777216.0;
    const double second = static_cast<double>(words[pair + 1] >> 8) / 16777216.0;
    const double angle = 2.0 * std::acos(-1.0) * second;
    const double normal = std::sqrt(-2.0 * std::log(first)) * (e % 2 == 0 ? std::cos(angle) : std::sin(angle));
    z[e] += scheme.value("noise", 1.0) * normal;
  }
  ReferenceChoice choice = Best(z, scheme.value("top_k", family_k));
  TakeWeights(&choice, z);
  choice.weights = Softmax(choice.weights);
  Scale(scheme, &choice.weights);
  return choice;
}

// Roller et al. 2021: the experts with the highest hash of token, layer and expert, in equal parts.
ReferenceChoice Hash(const nlohmann::json& scheme, size_t num_experts, const RoutedRow& row) {
  const auto seed = scheme.value("hash_seed", uint64_t{0});
  Numbers hashes;
  for (size_t e = 0; e < num_experts; ++e) {
    const PhiloxCounter words = Philox4x32(
        {static_cast<uint32_t>(row.token), static_cast<uint32_t>(e / 4), static_cast<uint32_t>(row.layer), 2},
        {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    hashes.push_back(static_cast<double>(words[e % 4] >> 8));
  }
  ReferenceChoice choice = Best(hashes, scheme.value("top_k", 1));
  choice.weights.assign(choice.ids.size(), 1.0 / static_cast<double>(choice.ids.size()));
  return choice;
}

// Huang et al. 2024: the smallest set of the most probable experts that is probable enough.
ReferenceChoice TopP(const nlohmann::json& scheme, const Numbers& z) {
  const Numbers p = Softmax(z);
  const auto num_experts = static_cast<int64_t>(z.size());
  const int64_t most = scheme.value("k_max", num_experts);
  const int64_t fewest = scheme.value("k_min", int64_t{1});
  const double wanted = scheme.at("p").get<double>();
  ReferenceChoice choice = Best(p, most);
  const double margin = choice.margin;
  double sum = 0.0;
  double closest = std::numeric_limits<double>::infinity();
  int64_t count = 0;
  for (const int32_t id : choice.ids) {
    if (count >= fewest && sum >= wanted) break;
    sum += At(p, id);
    ++count;
    closest = std::min(closest, std::abs(sum - wanted));
  }
  choice.ids.resize(static_cast<size_t>(count));
  choice.margin = std::min(margin, closest);
  TakeWeights(&choice, p);
  if (scheme.value("renormalize", false)) DivideBySum(&choice.weights, 0.0);
  Scale(scheme, &choice.weights);
  return choice;
}

// All experts that are probable enough, within bounds.
ReferenceChoice Threshold(const nlohmann::json& scheme, const Numbers& z) {
  const Numbers p = Softmax(z);
  const auto num_experts = static_cast<int64_t>(z.size());
  const double tau = scheme.at("tau").get<double>();
  int64_t count = 0;
  double closest = std::numeric_limits<double>::infinity();
  for (const double probability : p) {
    count += probability >= tau ? 1 : 0;
    closest = std::min(closest, std::abs(probability - tau));
  }
  count = std::max(count, scheme.value("k_min", int64_t{1}));
  ReferenceChoice choice = Best(p, std::min(count, scheme.value("k_max", num_experts)));
  choice.margin = std::min(choice.margin, closest);
  TakeWeights(&choice, p);
  if (scheme.value("renormalize", false)) DivideBySum(&choice.weights, 0.0);
  Scale(scheme, &choice.weights);
  return choice;
}

// The K most probable experts with their probabilities.
ReferenceChoice MostProbable(const Numbers& z, int64_t k) {
  ReferenceChoice choice = Best(z, k);
  TakeWeights(&choice, Softmax(z));
  return choice;
}

}  // namespace

// Zhou et al. 2022: by column.
std::vector<ReferenceChoice> ReferenceExpertChoice(const nlohmann::json& scheme,
                                                   const std::vector<std::vector<double>>& logits) {
  const size_t num_rows = logits.size();
  const size_t num_experts = logits[0].size();
  std::vector<Numbers> p;
  for (const Numbers& z : logits) p.push_back(Softmax(z));
  const double share = std::ceil(scheme.value("capacity_factor", 2.0) * static_cast<double>(num_rows) /
                                 static_cast<double>(num_experts));
  const auto places = std::min(static_cast<int64_t>(num_rows), std::max<int64_t>(1, static_cast<int64_t>(share)));
  std::vector<std::vector<std::pair<double, int32_t>>> takers(num_rows);  // falling probability, expert
  double margin = std::numeric_limits<double>::infinity();
  for (size_t e = 0; e < num_experts; ++e) {
    Numbers column;
    for (size_t t = 0; t < num_rows; ++t) column.push_back(p[t][e]);
    const std::vector<int32_t> order = Ranking(column);
    if (places < static_cast<int64_t>(num_rows)) {
      margin = std::min(
          margin, At(column, order[static_cast<size_t>(places) - 1]) - At(column, order[static_cast<size_t>(places)]));
    }
    for (int64_t i = 0; i < places; ++i) {
      const int32_t t = order[static_cast<size_t>(i)];
      takers[static_cast<size_t>(t)].emplace_back(-At(column, t), static_cast<int32_t>(e));
    }
  }
  std::vector<ReferenceChoice> choices(num_rows);
  const auto most = scheme.value("k_max", num_experts);
  for (size_t t = 0; t < num_rows; ++t) {
    std::sort(takers[t].begin(), takers[t].end());
    for (size_t j = 0; j + 1 < takers[t].size(); ++j) {
      margin = std::min(margin, takers[t][j + 1].first - takers[t][j].first);
    }
    if (takers[t].size() > most) takers[t].resize(most);
    for (const auto& [negative, e] : takers[t]) {
      choices[t].ids.push_back(e);
      choices[t].weights.push_back(-negative);
    }
    Scale(scheme, &choices[t].weights);
  }
  for (ReferenceChoice& choice : choices) choice.margin = margin;
  return choices;
}

ReferenceChoice ReferenceRoute(const nlohmann::json& scheme, const std::vector<double>& logits,
                               const std::vector<double>& bias, int64_t family_k, const RoutedRow& row) {
  const auto name = scheme.at("scheme").get<std::string>();
  if (name == "softmax-top-k") return SoftmaxTopK(scheme, logits, family_k);
  if (name == "sigmoid-bias") return SigmoidBias(scheme, logits, bias, family_k);
  if (name == "group-limited") return GroupLimited(scheme, logits, bias, family_k);
  if (name == "switch") return MostProbable(logits, 1);
  if (name == "gshard") {
    ReferenceChoice choice = MostProbable(logits, 2);
    DivideBySum(&choice.weights, 0.0);
    return choice;
  }
  if (name == "noisy-top-k") return NoisyTopK(scheme, logits, row, family_k);
  if (name == "hash") return Hash(scheme, logits.size(), row);
  if (name == "top-p") return TopP(scheme, logits);
  if (name == "threshold") return Threshold(scheme, logits);
  if (name == "dense") return MostProbable(logits, static_cast<int64_t>(logits.size()));
  return {};
}

}  // namespace cadre
