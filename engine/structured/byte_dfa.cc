#include "engine/structured/byte_dfa.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/structured/byte_nfa.h"

namespace cadre {
namespace {

using Edge = ByteDfa::Edge;
using State = ByteDfa::State;

// What combining two automata costs, however small they are.
constexpr int64_t kOperationSteps = 32;
// What reading an expression costs: fixed, and for each byte.
constexpr int64_t kExpressionSteps = 400;
constexpr int64_t kStepsPerExpressionByte = 20;

absl::Status TooManyStates() {
  return absl::ResourceExhaustedError(
      absl::StrCat("the combined expressions need more than ", kMaxDfaStates, " states"));
}

absl::Status TooMuchWork() {
  return absl::ResourceExhaustedError(
      absl::StrCat("the expression needs more than ", kMaxDfaWork, " steps to compile"));
}

int32_t NextOrDead(const ByteDfa& dfa, int32_t state, uint8_t byte) {
  return state == ByteDfa::kDead ? ByteDfa::kDead : dfa.Next(state, byte);
}

void AppendEdge(uint8_t byte, int32_t to, std::vector<Edge>* edges) {
  if (!edges->empty() && edges->back().to == to && edges->back().last + 1 == byte) {
    edges->back().last = byte;
  } else {
    edges->push_back({byte, byte, to});
  }
}

// The states that are pairs, from the pair of starts on. With `b_excludes`, b's texts are taken away; it may die then.
absl::StatusOr<ByteDfa> Product(const ByteDfa& a, const ByteDfa& b, bool b_excludes) {
  if (a.empty() || (b.empty() && !b_excludes)) return ByteDfa({}, kOperationSteps);
  using Pair = std::pair<int32_t, int32_t>;
  const Pair start = {0, b.empty() ? ByteDfa::kDead : 0};
  absl::flat_hash_map<Pair, int32_t> ids = {{start, 0}};
  std::vector<Pair> pairs = {start};
  std::vector<State> states(1);
  int64_t work = kOperationSteps;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const auto [in_a, in_b] = pairs[i];
    const bool b_accepts = in_b != ByteDfa::kDead && b.states()[static_cast<size_t>(in_b)].accepts;
    states[i].accepts = a.states()[static_cast<size_t>(in_a)].accepts && b_accepts != b_excludes;
    std::vector<Edge> edges;
    for (const Edge& edge : a.states()[static_cast<size_t>(in_a)].edges) {
      work += edge.last - edge.first + 1;
      for (int byte = edge.first; byte <= edge.last; ++byte) {
        const Pair next = {edge.to, NextOrDead(b, in_b, static_cast<uint8_t>(byte))};
        if (next.second == ByteDfa::kDead && !b_excludes) continue;
        const auto [found, is_new] = ids.try_emplace(next, static_cast<int32_t>(pairs.size()));
        if (is_new) {
          if (std::ssize(pairs) >= kMaxDfaStates) return TooManyStates();
          pairs.push_back(next);
          states.emplace_back();
        }
        AppendEdge(static_cast<uint8_t>(byte), found->second, &edges);
      }
    }
    states[i].edges = std::move(edges);
  }
  return ByteDfa(std::move(states), work);
}

// Where inside a character of the code kJsonString a text is.
enum class Place : uint8_t { kBetween, kUtf8One, kUtf8Two, kUtf8Three, kBackslash, kHex4, kHex3, kHex2, kHex1 };

Place NextPlace(Place place, uint8_t byte) {
  switch (place) {
    case Place::kBetween:
      if (byte == '\\') return Place::kBackslash;
      if (byte < 0x80) return Place::kBetween;
      return byte >= 0xF0 ? Place::kUtf8Three : byte >= 0xE0 ? Place::kUtf8Two : Place::kUtf8One;
    case Place::kUtf8Three:
      return Place::kUtf8Two;
    case Place::kUtf8Two:
      return Place::kUtf8One;
    case Place::kBackslash:
      return byte == 'u' ? Place::kHex4 : Place::kBetween;
    case Place::kHex4:
      return Place::kHex3;
    case Place::kHex3:
      return Place::kHex2;
    case Place::kHex2:
      return Place::kHex1;
    default:
      return Place::kBetween;
  }
}

// Where a text stands in an automaton, and how long it is.
struct LengthKey {
  int32_t state;
  int32_t count;  // characters begun; stops at `min` when there is no maximum
  Place place;
  bool operator==(const LengthKey&) const = default;

  template <typename H>
  friend H AbslHashValue(H hash, const LengthKey& key) {
    return H::combine(std::move(hash), key.state, key.count, key.place);
  }
};

}  // namespace

ByteDfa::ByteDfa(std::vector<State> states, int64_t work) : states_(std::move(states)), work_(work) { Trim(); }

ByteDfa ByteDfa::FromTexts(const std::vector<std::string>& texts) {
  struct Node {
    std::map<uint8_t, int32_t> children;
    bool accepts = false;
  };
  std::vector<Node> trie(1);
  for (const std::string& text : texts) {
    size_t node = 0;
    for (const char c : text) {
      const auto [found, is_new] =
          trie[node].children.try_emplace(static_cast<uint8_t>(c), static_cast<int32_t>(trie.size()));
      node = static_cast<size_t>(found->second);
      if (is_new) trie.emplace_back();
    }
    trie[node].accepts = true;
  }
  std::vector<State> states(trie.size());
  for (size_t i = 0; i < trie.size(); ++i) {
    states[i].accepts = trie[i].accepts;
    for (const auto& [byte, child] : trie[i].children) states[i].edges.push_back({byte, byte, child});
  }
  return ByteDfa(std::move(states));
}

int32_t ByteDfa::Next(int32_t state, uint8_t byte) const {
  const std::vector<Edge>& edges = states_[static_cast<size_t>(state)].edges;
  const auto edge =
      std::lower_bound(edges.begin(), edges.end(), byte, [](const Edge& e, uint8_t b) { return e.last < b; });
  return edge != edges.end() && edge->first <= byte ? edge->to : kDead;
}

bool ByteDfa::Accepts(std::string_view text) const {
  if (empty()) return false;
  int32_t state = 0;
  for (const char c : text) {
    state = Next(state, static_cast<uint8_t>(c));
    if (state == kDead) return false;
  }
  return states_[static_cast<size_t>(state)].accepts;
}

void ByteDfa::Trim() {
  std::vector<std::vector<int32_t>> sources(states_.size());
  std::vector<int32_t> alive;
  std::vector<bool> is_alive(states_.size(), false);
  for (size_t i = 0; i < states_.size(); ++i) {
    for (const Edge& edge : states_[i].edges) sources[static_cast<size_t>(edge.to)].push_back(static_cast<int32_t>(i));
    if (!states_[i].accepts) continue;
    is_alive[i] = true;
    alive.push_back(static_cast<int32_t>(i));
  }
  for (size_t i = 0; i < alive.size(); ++i) {
    for (const int32_t source : sources[static_cast<size_t>(alive[i])]) {
      if (is_alive[static_cast<size_t>(source)]) continue;
      is_alive[static_cast<size_t>(source)] = true;
      alive.push_back(source);
    }
  }
  if (states_.empty() || !is_alive[0]) {
    states_.clear();
    return;
  }
  std::vector<int32_t> new_ids(states_.size(), kDead);
  std::vector<State> kept;
  for (size_t i = 0; i < states_.size(); ++i) {
    if (!is_alive[i]) continue;
    new_ids[i] = static_cast<int32_t>(kept.size());
    kept.push_back(std::move(states_[i]));
  }
  for (State& state : kept) {
    for (Edge& edge : state.edges) edge.to = new_ids[static_cast<size_t>(edge.to)];
    std::erase_if(state.edges, [](const Edge& edge) { return edge.to == kDead; });
  }
  states_ = std::move(kept);
}

absl::StatusOr<ByteDfa> CompileRegex(const RegexNode& tree, CharacterCode code) {
  CADRE_ASSIGN_OR_RETURN(const ByteNfa nfa, BuildNfa(tree, code));
  return Determinize(nfa);
}

absl::StatusOr<ByteDfa> CompileRegex(std::string_view pattern, RegexExtent extent, CharacterCode code) {
  CADRE_ASSIGN_OR_RETURN(const RegexTree regex, ParseRegex(pattern, extent));
  CADRE_ASSIGN_OR_RETURN(ByteDfa dfa, CompileRegex(*regex.tree, code));
  dfa.AddWork(kExpressionSteps + kStepsPerExpressionByte * std::ssize(pattern));
  for (const LookAhead& look_ahead : regex.look_aheads) {
    CADRE_ASSIGN_OR_RETURN(const ByteDfa seen, CompileRegex(*look_ahead.tree, code));
    const int64_t work = dfa.work() + seen.work();
    CADRE_ASSIGN_OR_RETURN(dfa, look_ahead.is_negative ? Subtract(dfa, seen) : Intersect(dfa, seen));
    dfa.AddWork(work);
    if (dfa.work() > kMaxDfaWork) return TooMuchWork();
    if (dfa.empty()) break;
  }
  return dfa;
}

absl::StatusOr<ByteDfa> Intersect(const ByteDfa& a, const ByteDfa& b) { return Product(a, b, /*b_excludes=*/false); }

absl::StatusOr<ByteDfa> Subtract(const ByteDfa& a, const ByteDfa& b) { return Product(a, b, /*b_excludes=*/true); }

absl::StatusOr<ByteDfa> LimitLength(const ByteDfa& dfa, int32_t min, int32_t max) {
  if (dfa.empty()) return dfa;
  absl::flat_hash_map<LengthKey, int32_t> ids;
  std::vector<LengthKey> keys = {{0, 0, Place::kBetween}};
  ids[keys[0]] = 0;
  std::vector<State> states(1);
  int64_t work = kOperationSteps;
  for (size_t i = 0; i < keys.size(); ++i) {
    const LengthKey key = keys[i];
    const State& source = dfa.states()[static_cast<size_t>(key.state)];
    states[i].accepts = source.accepts && key.count >= min;
    std::vector<Edge> edges;
    for (const Edge& edge : source.edges) {
      work += edge.last - edge.first + 1;
      for (int byte = edge.first; byte <= edge.last; ++byte) {
        LengthKey next = {edge.to, key.count, NextPlace(key.place, static_cast<uint8_t>(byte))};
        if (key.place == Place::kBetween) ++next.count;
        if (max != kNoLengthLimit && next.count > max) continue;
        if (max == kNoLengthLimit) next.count = std::min(next.count, min);
        const auto [found, is_new] = ids.try_emplace(next, static_cast<int32_t>(keys.size()));
        if (is_new) {
          if (std::ssize(keys) >= kMaxDfaStates) return TooManyStates();
          keys.push_back(next);
          states.emplace_back();
        }
        AppendEdge(static_cast<uint8_t>(byte), found->second, &edges);
      }
    }
    states[i].edges = std::move(edges);
  }
  return ByteDfa(std::move(states), work);
}

}  // namespace cadre
