#include "engine/experts/eviction_policy.h"

#include <algorithm>
#include <compare>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/base/check.h"

namespace cadre {
namespace {

// What every policy remembers of an expert.
struct UseRecord {
  int64_t last_turn = -1;  // of all layers of all steps, see TurnOf; -1: never used
  int64_t last_step = -1;
  int64_t awaited_turn = -1;  // for which it was prefetched
  uint64_t count = 0;         // of uses, in units of kUse, as of `epoch`
  int64_t epoch = 0;          // half-lives that had ended at the last use
};

constexpr uint64_t kUse = uint64_t{1} << 20;  // a use is worth something for 20 half-lives
constexpr int64_t kMaxAge =
    int64_t{1} << 20;  // steps: with counts below kUse * 2 * kMaxHalfLifeSteps no product overflows

uint64_t Decayed(const UseRecord& record, int64_t epoch) {
  const int64_t halvings = epoch - record.epoch;
  return halvings < 64 ? record.count >> halvings : 0;
}

// A moment, as the policies need it.
struct Moment {
  LayerTime time;
  int64_t turn = 0;
  int64_t epoch = 0;
  int64_t num_layers = 0;
  uint64_t full_count = 0;  // of an expert that every step has used, this one included
};

// The ranks: the smallest one gives way. All of an expert's past is in its record.

struct LruRank {
  LruRank(const UseRecord& record, int64_t /*layer*/, const Moment& /*now*/) : last_turn(record.last_turn) {}
  bool operator<(const LruRank& other) const { return last_turn < other.last_turn; }

  int64_t last_turn;
};

struct LfuRank {
  LfuRank(const UseRecord& record, int64_t /*layer*/, const Moment& now)
      : count(Decayed(record, now.epoch)), last_turn(record.last_turn) {}
  bool operator<(const LfuRank& other) const {
    return std::tie(count, last_turn) < std::tie(other.count, other.last_turn);
  }

  uint64_t count;
  int64_t last_turn;
};

struct LfruRank {
  LfruRank(const UseRecord& record, int64_t /*layer*/, const Moment& now)
      : count(Decayed(record, now.epoch)),
        age(static_cast<uint64_t>(std::min(now.time.step - record.last_step, kMaxAge - 1) + 1)),
        last_turn(record.last_turn) {}
  // count / age, multiplied out.
  bool operator<(const LfruRank& other) const {
    const uint64_t here = count * other.age;
    const uint64_t there = other.count * age;
    return here != there ? here < there : last_turn < other.last_turn;
  }

  uint64_t count;
  uint64_t age;
  int64_t last_turn;
};

struct StaleRank {
  StaleRank(const UseRecord& record, int64_t layer, const Moment& now) {
    const bool had_turn = layer <= now.time.layer;
    const bool is_passed = had_turn && record.last_step < now.time.step;
    const int64_t missed_turns = now.time.step - record.last_step - (had_turn ? 0 : 1);
    const int64_t until_turn = layer - now.time.layer + (had_turn ? now.num_layers : 0);
    rank = {!is_passed, -missed_turns, -until_turn};
  }
  bool operator<(const StaleRank& other) const { return rank < other.rank; }

  std::tuple<bool, int64_t, int64_t> rank;
};

struct NextUseRank {
  NextUseRank(const UseRecord& record, int64_t layer, const Moment& now) : last_turn(record.last_turn) {
    const auto count = static_cast<double>(Decayed(record, now.epoch));
    if (count == 0.0) return;  // nobody knows when
    const int64_t until_turn = layer - now.time.layer + (layer <= now.time.layer ? now.num_layers : 0);
    expected = static_cast<double>(until_turn) +
               static_cast<double>(now.num_layers) * (static_cast<double>(now.full_count) - count) / count;
  }
  bool operator<(const NextUseRank& other) const {
    return expected != other.expected ? expected > other.expected : last_turn < other.last_turn;
  }

  double expected = std::numeric_limits<double>::infinity();  // turns until its next use
  int64_t last_turn;
};

template <typename Rank>
class RankingPolicy final : public EvictionPolicy {
 public:
  explicit RankingPolicy(const EvictionPolicyOptions& options)
      : options_(options), records_(static_cast<size_t>(options.num_layers * options.num_experts)) {
    heap_.reserve(kMaxVictims);
  }

  void OnUse(ExpertId expert, const LayerTime& time) override {
    const Moment now = Advance(time);
    UseRecord& record = RecordOf(expert);
    record.last_turn = now.turn;
    record.last_step = time.step;
    record.awaited_turn = -1;
    record.count = Decayed(record, now.epoch) + kUse;
    record.epoch = now.epoch;
  }

  void OnPrefetch(ExpertId expert, const LayerTime& time) override {
    const Moment now = Advance(time);
    const int64_t layer = LayerOf(expert);
    const int64_t step = layer > time.layer ? time.step : time.step + 1;
    RecordOf(expert).awaited_turn = step * now.num_layers + layer;
  }

  ExpertId ChooseVictim(std::span<const ExpertId> candidates, const LayerTime& time) override {
    CADRE_CHECK(!candidates.empty());
    const Moment now = Advance(time);
    ExpertId victim = candidates.front();
    auto least = RankOf(victim, now);
    for (const ExpertId expert : candidates.subspan(1)) {
      const auto rank = RankOf(expert, now);
      if (!(rank < least)) continue;
      victim = expert;
      least = rank;
    }
    return victim;
  }

  size_t ChooseVictims(std::span<const ExpertId> candidates, const LayerTime& time,
                       std::span<ExpertId> victims) override {
    CADRE_CHECK(!candidates.empty());
    CADRE_CHECK_LE(victims.size(), kMaxVictims);
    if (victims.empty()) return 0;
    const Moment now = Advance(time);
    heap_.clear();  // of the first ones so far, the last of them on top
    for (const ExpertId expert : candidates) {
      const Candidate candidate{RankOf(expert, now), expert};
      if (heap_.size() == victims.size()) {
        if (!(candidate < heap_.front())) continue;
        std::pop_heap(heap_.begin(), heap_.end());
        heap_.pop_back();
      }
      heap_.push_back(candidate);
      std::push_heap(heap_.begin(), heap_.end());
    }
    std::sort_heap(heap_.begin(), heap_.end());
    for (size_t i = 0; i < heap_.size(); ++i) victims[i] = heap_[i].expert;
    return heap_.size();
  }

 private:
  struct Candidate {
    std::pair<bool, Rank> rank;
    ExpertId expert;

    bool operator<(const Candidate& other) const {
      if (rank < other.rank) return true;
      return !(other.rank < rank) && expert < other.expert;
    }
  };

  int64_t LayerOf(ExpertId expert) const { return expert / options_.num_experts; }

  UseRecord& RecordOf(ExpertId expert) {
    CADRE_CHECK_GE(expert, 0);
    CADRE_CHECK_LT(static_cast<size_t>(expert), records_.size());
    return records_[static_cast<size_t>(expert)];
  }

  std::pair<bool, Rank> RankOf(ExpertId expert, const Moment& now) {
    const UseRecord& record = RecordOf(expert);
    return {record.awaited_turn > now.turn, Rank(record, LayerOf(expert), now)};
  }

  Moment Advance(const LayerTime& time) {
    CADRE_CHECK_GE(time.step, 0);
    CADRE_CHECK_GE(time.layer, 0);
    CADRE_CHECK_LT(time.layer, options_.num_layers);
    const int64_t turn = time.step * options_.num_layers + time.layer;
    CADRE_CHECK_GE(turn, turn_);
    turn_ = turn;
    const int64_t epoch = time.step / options_.half_life_steps;
    return {time, turn, epoch, options_.num_layers, FullCount(time.step, epoch)};
  }

  // A use in each step, halved with every half-life that has ended.
  uint64_t FullCount(int64_t step, int64_t epoch) const {
    const auto half_life = static_cast<uint64_t>(options_.half_life_steps) * kUse;
    const uint64_t before = half_life - (epoch < 64 ? half_life >> epoch : 0);
    return before + static_cast<uint64_t>(step % options_.half_life_steps + 1) * kUse;
  }

  const EvictionPolicyOptions options_;
  std::vector<UseRecord> records_;  // by expert
  std::vector<Candidate> heap_;     // of one choice
  int64_t turn_ = 0;                // the latest that was named
};

}  // namespace

std::unique_ptr<EvictionPolicy> CreateEvictionPolicy(EvictionPolicyKind kind, const EvictionPolicyOptions& options) {
  CADRE_CHECK_GE(options.num_experts, 1);
  CADRE_CHECK_GE(options.num_layers, 1);
  CADRE_CHECK_GE(options.half_life_steps, 1);
  CADRE_CHECK_LE(options.half_life_steps, kMaxHalfLifeSteps);
  switch (kind) {
    case EvictionPolicyKind::kLru:
      return std::make_unique<RankingPolicy<LruRank>>(options);
    case EvictionPolicyKind::kLfu:
      return std::make_unique<RankingPolicy<LfuRank>>(options);
    case EvictionPolicyKind::kLfru:
      return std::make_unique<RankingPolicy<LfruRank>>(options);
    case EvictionPolicyKind::kLeastStale:
      return std::make_unique<RankingPolicy<StaleRank>>(options);
    case EvictionPolicyKind::kNextUse:
      return std::make_unique<RankingPolicy<NextUseRank>>(options);
  }
  CADRE_CHECK(false);
}

std::string_view EvictionPolicyName(EvictionPolicyKind kind) {
  switch (kind) {
    case EvictionPolicyKind::kLru:
      return "lru";
    case EvictionPolicyKind::kLfu:
      return "lfu";
    case EvictionPolicyKind::kLfru:
      return "lfru";
    case EvictionPolicyKind::kLeastStale:
      return "least-stale";
    case EvictionPolicyKind::kNextUse:
      return "next-use";
  }
  CADRE_CHECK(false);
}

std::optional<EvictionPolicyKind> FindEvictionPolicy(std::string_view name) {
  for (const EvictionPolicyKind kind : kEvictionPolicies) {
    if (EvictionPolicyName(kind) == name) return kind;
  }
  return std::nullopt;
}

}  // namespace cadre
