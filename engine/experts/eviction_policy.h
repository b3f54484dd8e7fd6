// Which expert gives way when another needs its slot.
#ifndef CADRE_ENGINE_EXPERTS_EVICTION_POLICY_H_
#define CADRE_ENGINE_EXPERTS_EVICTION_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "engine/experts/expert_id.h"

namespace cadre {

// Where in its steps a model is. Steps count from 0 and never fall; within a step layers only rise.
struct LayerTime {
  int64_t step = 0;
  int32_t layer = 0;  // of those that have experts
};

// What makes an expert give way, most important first. All of them: experts that were prefetched for a layer which is
// still to come go last, and of equals the one with the lowest id goes.
enum class EvictionPolicyKind {
  kLru,  // its last use is the longest ago (step and layer)
  // It was used least: a use counts 1, and half of that for every half-life that ended since. Of equals the last use.
  kLfu,
  // The smallest count (that of kLfu) / (steps since its last use + 1): both often and lately used experts stay.
  kLfru,
  // First those that were not used in this step, whose layer has had its turn in it: they cannot be wanted before the
  // next step. Then the most turns of its layer that went by since its last use; then the layer whose turn comes last,
  // which is the optimum where steps repeat each other and is where kLru fails. After Least-Stale of SpecMD
  // (arXiv 2602.03921), which knows the two classes.
  kLeastStale,
  // Its next use is expected farthest in the future: Belady's rule, with what is known of the future. A model comes to
  // layer m after d turns, and needs the expert then with the probability p, so that its next use is expected after
  // d + L (1 / p - 1) turns of L layers. p is the count (that of kLfu) / that of an expert which every step uses. Where
  // every step needs nearly all experts, d decides: a part of them stays, whoever else passes through. Where it needs
  // few, p does.
  kNextUse,
};

struct EvictionPolicyOptions {
  int64_t num_experts = 0;        // of a layer: E
  int64_t num_layers = 0;         // with experts
  int64_t half_life_steps = 256;  // of the counts of kLfu, kLfru and kNextUse; half-lives end at multiples of it
};

inline constexpr int64_t kMaxHalfLifeSteps = int64_t{1} << 20;
inline constexpr size_t kMaxVictims = 32;

// A pure state machine, in integers and single divisions of doubles: what it decides follows from the calls alone, the
// same on every machine. Not thread-safe. REQUIRES of all calls: experts are in [0, num_layers * num_experts), and time
// does not go back.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  // A step needed `expert`, whether or not it had a slot. Once per expert, layer and step.
  virtual void OnUse(ExpertId expert, const LayerTime& now) = 0;
  // `expert` was given a slot before any step needed it: for the next turn of its layer, in this step or the next one.
  virtual void OnPrefetch(ExpertId expert, const LayerTime& now) = 0;
  // The one of `candidates` that gives way; O(candidates), without allocation. REQUIRES: candidates is not empty, ids
  // rise. What the layer `now` needs was told by OnUse before.
  virtual ExpertId ChooseVictim(std::span<const ExpertId> candidates, const LayerTime& now) = 0;
  // The same for several: writes to `victims` who gives way first, who next and so on, and says how many: as many as
  // there is room for, or candidates. As long as nothing is used or prefetched, one after the other of ChooseVictim
  // says the same. REQUIRES: as ChooseVictim, and victims.size() <= kMaxVictims.
  virtual size_t ChooseVictims(std::span<const ExpertId> candidates, const LayerTime& now,
                               std::span<ExpertId> victims) = 0;
};

// REQUIRES: at least one layer and expert, half_life_steps in [1, kMaxHalfLifeSteps].
std::unique_ptr<EvictionPolicy> CreateEvictionPolicy(EvictionPolicyKind kind, const EvictionPolicyOptions& options);

inline constexpr EvictionPolicyKind kEvictionPolicies[] = {EvictionPolicyKind::kLru, EvictionPolicyKind::kLfu,
                                                           EvictionPolicyKind::kLfru, EvictionPolicyKind::kLeastStale,
                                                           EvictionPolicyKind::kNextUse};
// "lru", "lfu", "lfru", "least-stale", "next-use"
std::string_view EvictionPolicyName(EvictionPolicyKind kind);
// The one of that name, if there is one.
std::optional<EvictionPolicyKind> FindEvictionPolicy(std::string_view name);

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_EVICTION_POLICY_H_
