// What is learned from the choices of single tokens, which sums over steps do not tell: which experts are used
// together, which follow each other from layer to layer, and which kinds of tokens go where. Choices of some steps
// only, so that looking costs next to nothing.
#ifndef CADRE_ENGINE_EXPERTS_ROUTING_PROFILE_H_
#define CADRE_ENGINE_EXPERTS_ROUTING_PROFILE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace cadre {

struct ProfileShape {
  int32_t num_layers = 0;  // MoE layers
  int32_t num_experts = 0;
  int32_t num_classes = 0;  // of tokens
};

struct ProfileOptions {
  // The choices of one step in so many are looked at: chosen by chance, so that no rhythm of the load is missed.
  // 0: of none.
  int32_t sample_steps = 0;
  // Pairs of experts are not counted where that would take more memory.
  int64_t max_pair_bytes = int64_t{32} << 20;
};

// Two experts, and how often. Of co-activation first < second, in one layer; of transitions `first` is in the layer and
// `second` in the next one.
struct ExpertPair {
  int32_t first = 0;
  int32_t second = 0;
  int64_t count = 0;

  bool operator==(const ExpertPair&) const = default;
};

// Additions for one step: 5 to 9 thousandths of a second, as most of them miss the caches. With 48 layers and 8 experts
// for each token these are 390 tokens.
inline constexpr int64_t kMaxAdditions = int64_t{1} << 21;

// A copy.
struct ProfileCounts {
  ProfileShape shape;
  int64_t tokens = 0;                      // that were looked at
  std::vector<int64_t> assignments;        // [layers, experts] that were computed
  std::vector<int64_t> class_tokens;       // [classes]
  std::vector<int64_t> class_assignments;  // [classes, layers, experts]
  bool has_pairs = false;
  // By layer, the most frequent ones, falling; ties by first, then second.
  std::vector<std::vector<ExpertPair>> co_activation;  // [layers]
  std::vector<std::vector<ExpertPair>> transitions;    // [layers - 1]
};

// Observe and WantsStep are called by one thread, Counts by any at any time: it never makes the other wait. A copy that
// is made during Observe may have some counts of a step and not others.
class RoutingProfile {
 public:
  RoutingProfile(const ProfileShape& shape, const ProfileOptions& options);

  // Memory of all counters, as the options have it.
  static int64_t Bytes(const ProfileShape& shape, const ProfileOptions& options);

  bool counts_pairs() const { return !pairs_.empty(); }
  // Whether the choices of the step that comes next are wanted. Once for each step.
  bool WantsStep();
  // `expert_ids` [layers, T, K], negative where an assignment was lost or there was none; the class of each of the T
  // tokens, < num_classes. Of a step that would take more than kMaxAdditions, every n-th token is looked at.
  void Observe(std::span<const int32_t> expert_ids, std::span<const uint8_t> classes);

  // At most `max_pairs` of each layer.
  ProfileCounts Counts(size_t max_pairs) const;

 private:
  // One writer: an addition is a load and a store.
  using Counter = std::atomic<int64_t>;
  using PairCounter = std::atomic<uint32_t>;  // stays at its largest value

  size_t CoActivationCell(size_t layer, size_t low, size_t high) const;
  size_t TransitionCell(size_t layer, size_t from, size_t to) const;
  void CountPairs(size_t layer, std::span<const int32_t> before, std::span<const int32_t> chosen);

  const ProfileShape shape_;
  const ProfileOptions options_;
  uint64_t num_steps_ = 0;
  Counter tokens_{0};
  std::vector<Counter> assignments_;
  std::vector<Counter> class_tokens_;
  std::vector<Counter> class_assignments_;
  std::vector<PairCounter> pairs_;  // co-activation of all layers, then transitions; empty: not counted
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_ROUTING_PROFILE_H_
