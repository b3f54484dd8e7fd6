#include "engine/experts/routing_profile.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "engine/base/check.h"

namespace cadre {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

void Increment(std::atomic<int64_t>& counter) { counter.store(counter.load(kRelaxed) + 1, kRelaxed); }

void Increment(std::atomic<uint32_t>& counter) {
  const uint32_t count = counter.load(kRelaxed);
  if (count != std::numeric_limits<uint32_t>::max()) counter.store(count + 1, kRelaxed);
}

std::vector<int64_t> Copy(const std::vector<std::atomic<int64_t>>& counters) {
  std::vector<int64_t> copy(counters.size());
  for (size_t i = 0; i < copy.size(); ++i) copy[i] = counters[i].load(kRelaxed);
  return copy;
}

// Finalizer of SplitMix64.
constexpr uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

size_t Cells(const ProfileShape& shape) {
  return static_cast<size_t>(shape.num_layers) * static_cast<size_t>(shape.num_experts);
}

// In one layer: E (E - 1) / 2 unordered pairs.
size_t CoActivationCells(const ProfileShape& shape) {
  const auto experts = static_cast<size_t>(shape.num_experts);
  return experts < 2 ? 0 : experts * (experts - 1) / 2;
}

size_t PairCells(const ProfileShape& shape, const ProfileOptions& options) {
  if (options.sample_steps == 0 || shape.num_layers == 0) return 0;
  const auto layers = static_cast<size_t>(shape.num_layers);
  const auto experts = static_cast<size_t>(shape.num_experts);
  const size_t cells = layers * CoActivationCells(shape) + (layers - 1) * experts * experts;
  return static_cast<int64_t>(cells * sizeof(uint32_t)) <= options.max_pair_bytes ? cells : 0;
}

// In one layer, for its assignments by themselves and by class, pairs and transitions.
size_t AdditionsPerToken(size_t top_k) { return 2 * top_k + top_k * top_k / 2 + top_k * top_k; }

// Every how many-th token is looked at.
size_t Stride(size_t num_tokens, size_t additions_per_token) {
  const size_t at_once =
      std::max<size_t>(1, static_cast<size_t>(kMaxAdditions) / std::max<size_t>(1, additions_per_token));
  return (num_tokens + at_once - 1) / at_once;
}

// The most frequent of the pairs that `for_each_pair` tells, at most `count` of them.
template <typename ForEachPair>
std::vector<ExpertPair> MostFrequent(size_t count, const ForEachPair& for_each_pair) {
  std::vector<ExpertPair> pairs;
  if (count == 0) return pairs;
  for_each_pair([&pairs](const ExpertPair& pair) {
    if (pair.count > 0) pairs.push_back(pair);
  });
  const auto end = pairs.begin() + static_cast<std::ptrdiff_t>(std::min(count, pairs.size()));
  std::partial_sort(pairs.begin(), end, pairs.end(), [](const ExpertPair& a, const ExpertPair& b) {
    return std::tie(b.count, a.first, a.second) < std::tie(a.count, b.first, b.second);
  });
  pairs.erase(end, pairs.end());
  return pairs;
}

}  // namespace

RoutingProfile::RoutingProfile(const ProfileShape& shape, const ProfileOptions& options)
    : shape_(shape),
      options_(options),
      assignments_(options.sample_steps == 0 ? 0 : Cells(shape)),
      class_tokens_(static_cast<size_t>(shape.num_classes)),
      class_assignments_(options.sample_steps == 0 ? 0 : class_tokens_.size() * Cells(shape)),
      pairs_(PairCells(shape, options)) {
  CADRE_CHECK_GE(shape.num_layers, 0);
  CADRE_CHECK_GE(options.sample_steps, 0);
}

int64_t RoutingProfile::Bytes(const ProfileShape& shape, const ProfileOptions& options) {
  if (options.sample_steps == 0) return 0;
  const size_t cells = Cells(shape) * (1 + static_cast<size_t>(shape.num_classes));
  return static_cast<int64_t>(cells * sizeof(Counter) + PairCells(shape, options) * sizeof(PairCounter));
}

bool RoutingProfile::WantsStep() {
  if (options_.sample_steps == 0 || shape_.num_layers == 0) return false;
  return Mix(num_steps_++) % static_cast<uint64_t>(options_.sample_steps) == 0;
}

size_t RoutingProfile::CoActivationCell(size_t layer, size_t low, size_t high) const {
  return layer * CoActivationCells(shape_) + high * (high - 1) / 2 + low;
}

size_t RoutingProfile::TransitionCell(size_t layer, size_t from, size_t to) const {
  const auto experts = static_cast<size_t>(shape_.num_experts);
  return static_cast<size_t>(shape_.num_layers) * CoActivationCells(shape_) + (layer * experts + from) * experts + to;
}

void RoutingProfile::CountPairs(size_t layer, std::span<const int32_t> before, std::span<const int32_t> chosen) {
  for (size_t i = 0; i < chosen.size(); ++i) {
    if (chosen[i] < 0) continue;
    const auto expert = static_cast<size_t>(chosen[i]);
    for (size_t j = 0; j < i; ++j) {
      // Two places of one token may lead to one expert where assignments are rerouted: no pair.
      if (chosen[j] < 0 || chosen[j] == chosen[i]) continue;
      const auto other = static_cast<size_t>(chosen[j]);
      Increment(pairs_[CoActivationCell(layer, std::min(expert, other), std::max(expert, other))]);
    }
    for (const int32_t from : before) {
      if (from >= 0) Increment(pairs_[TransitionCell(layer - 1, static_cast<size_t>(from), expert)]);
    }
  }
}

void RoutingProfile::Observe(std::span<const int32_t> expert_ids, std::span<const uint8_t> classes) {
  const auto layers = static_cast<size_t>(shape_.num_layers);
  const auto experts = static_cast<size_t>(shape_.num_experts);
  const size_t num_tokens = classes.size();
  if (num_tokens == 0 || layers == 0) return;
  CADRE_CHECK_EQ(expert_ids.size() % (layers * num_tokens), size_t{0});
  const size_t top_k = expert_ids.size() / (layers * num_tokens);
  const size_t stride = Stride(num_tokens, layers * AdditionsPerToken(top_k));
  int64_t num_observed = 0;
  for (size_t token = 0; token < num_tokens; token += stride, ++num_observed) {
    CADRE_CHECK_LT(int32_t{classes[token]}, shape_.num_classes);
    Increment(class_tokens_[classes[token]]);
  }
  for (size_t layer = 0; layer < layers; ++layer) {
    for (size_t token = 0; token < num_tokens; token += stride) {
      const std::span<const int32_t> chosen = expert_ids.subspan((layer * num_tokens + token) * top_k, top_k);
      for (const int32_t id : chosen) {
        if (id < 0) continue;
        CADRE_CHECK_LT(id, shape_.num_experts);
        const size_t cell = layer * experts + static_cast<size_t>(id);
        Increment(assignments_[cell]);
        Increment(class_assignments_[classes[token] * layers * experts + cell]);
      }
      if (pairs_.empty()) continue;
      std::span<const int32_t> before;
      if (layer > 0) before = expert_ids.subspan(((layer - 1) * num_tokens + token) * top_k, top_k);
      CountPairs(layer, before, chosen);
    }
  }
  tokens_.store(tokens_.load(kRelaxed) + num_observed, kRelaxed);
}

ProfileCounts RoutingProfile::Counts(size_t max_pairs) const {
  ProfileCounts counts = {.shape = shape_,
                          .tokens = tokens_.load(kRelaxed),
                          .assignments = Copy(assignments_),
                          .class_tokens = Copy(class_tokens_),
                          .class_assignments = Copy(class_assignments_),
                          .has_pairs = !pairs_.empty(),
                          .co_activation = {},
                          .transitions = {}};
  if (pairs_.empty()) return counts;
  const auto layers = static_cast<size_t>(shape_.num_layers);
  const auto experts = static_cast<size_t>(shape_.num_experts);
  const auto pair = [this](size_t first, size_t second, size_t cell) {
    return ExpertPair{static_cast<int32_t>(first), static_cast<int32_t>(second), pairs_[cell].load(kRelaxed)};
  };
  for (size_t layer = 0; layer < layers; ++layer) {
    counts.co_activation.push_back(MostFrequent(max_pairs, [&](const auto& tell) {
      for (size_t high = 1; high < experts; ++high) {
        for (size_t low = 0; low < high; ++low) tell(pair(low, high, CoActivationCell(layer, low, high)));
      }
    }));
    if (layer + 1 == layers) break;
    counts.transitions.push_back(MostFrequent(max_pairs, [&](const auto& tell) {
      for (size_t from = 0; from < experts; ++from) {
        for (size_t to = 0; to < experts; ++to) tell(pair(from, to, TransitionCell(layer, from, to)));
      }
    }));
  }
  return counts;
}

}  // namespace cadre
