#include "engine/structured/byte_nfa.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace cadre {
namespace {

using Kind = RegexNode::Kind;

// What a state or an edge costs: its part of the expression is written out anew for each repetition.
constexpr int64_t kStepsPerPart = 6;
constexpr std::string_view kShortEscapes = "\b\f\n\r\t";
constexpr std::string_view kShortEscapeLetters = "bfnrt";

CodePointSet EscapedInJson() { return CodePointSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}); }

// The ways to write the characters of a set.
std::vector<ByteRangeSequence> Sequences(const CodePointSet& set, CharacterCode code) {
  const bool is_json = code == CharacterCode::kJsonString;
  const CodePointSet plain = is_json ? set.Minus(EscapedInJson()) : set;
  std::vector<ByteRangeSequence> sequences;
  for (const CodePointRange& range : plain.ranges()) {
    for (ByteRangeSequence& sequence : Utf8Sequences(range)) sequences.push_back(std::move(sequence));
  }
  if (!is_json) return sequences;
  const auto byte = [](char c) { return ByteRange{static_cast<uint8_t>(c), static_cast<uint8_t>(c)}; };
  const CodePointSet escaped = set.Minus(set.Minus(EscapedInJson()));
  for (const CodePointRange& range : escaped.ranges()) {
    for (uint32_t c = range.first; c <= range.last; ++c) {
      const size_t index = kShortEscapes.find(static_cast<char>(c));
      if (c >= 0x20) {
        sequences.push_back({byte('\\'), byte(static_cast<char>(c))});
      } else if (index != std::string_view::npos) {
        sequences.push_back({byte('\\'), byte(kShortEscapeLetters[index])});
      } else {
        const ByteRangeSequence prefix = {byte('\\'), byte('u'), byte('0'), byte('0'), byte(c >= 16 ? '1' : '0')};
        constexpr std::string_view kLower = "0123456789abcdef";
        constexpr std::string_view kUpper = "0123456789ABCDEF";
        ByteRangeSequence lower = prefix;
        lower.push_back(byte(kLower[c % 16]));
        sequences.push_back(std::move(lower));
        if (c % 16 < 10) continue;
        ByteRangeSequence upper = prefix;
        upper.push_back(byte(kUpper[c % 16]));
        sequences.push_back(std::move(upper));
      }
    }
  }
  return sequences;
}

int64_t Saturated(int64_t count) { return std::min(count, kMaxNfaStates + 1); }

// The states that the tree will take, or more than kMaxNfaStates.
int64_t CountStates(const RegexNode& node, CharacterCode code) {
  if (node.kind == Kind::kSet) {
    int64_t count = 2;
    for (const ByteRangeSequence& sequence : Sequences(node.set, code)) count += std::ssize(sequence) - 1;
    return Saturated(count);
  }
  int64_t children = 2;
  for (const auto& child : node.children) children = Saturated(children + CountStates(*child, code));
  if (node.kind != Kind::kRepeat) return children;
  const int64_t copies = std::max<int64_t>(node.max == RegexNode::kNoMax ? node.min + 1 : node.max, 1);
  return Saturated(children * copies + 2);
}

class Builder {
 public:
  Builder(CharacterCode code, ByteNfa* nfa) : code_(code), nfa_(*nfa) {}

  int32_t AddState() {
    nfa_.states.emplace_back();
    return static_cast<int32_t>(nfa_.states.size()) - 1;
  }
  void Jump(int32_t from, int32_t to) { nfa_.states[static_cast<size_t>(from)].jumps.push_back(to); }

  // Adds the part that reads `node` from `from` on; the state behind it.
  int32_t Add(const RegexNode& node, int32_t from) {
    switch (node.kind) {
      case Kind::kSet:
        return AddSet(node.set, from);
      case Kind::kConcat:
        for (const auto& child : node.children) from = Add(*child, from);
        return from;
      case Kind::kAlternate: {
        const int32_t end = AddState();
        for (const auto& child : node.children) {
          const int32_t start = AddState();
          Jump(from, start);
          Jump(Add(*child, start), end);
        }
        return end;
      }
      default:
        return AddRepeat(node, from);
    }
  }

 private:
  int32_t AddSet(const CodePointSet& set, int32_t from) {
    const int32_t end = AddState();
    for (const ByteRangeSequence& sequence : Sequences(set, code_)) {
      int32_t state = from;
      for (size_t i = 0; i < sequence.size(); ++i) {
        const int32_t next = i + 1 == sequence.size() ? end : AddState();
        nfa_.states[static_cast<size_t>(state)].edges.push_back({sequence[i].first, sequence[i].last, next});
        state = next;
      }
    }
    return end;
  }

  int32_t AddRepeat(const RegexNode& node, int32_t from) {
    const RegexNode& child = *node.children.front();
    for (int i = 0; i < node.min; ++i) from = Add(child, from);
    const int32_t end = AddState();
    if (node.max == RegexNode::kNoMax) {
      const int32_t loop = AddState();
      Jump(from, loop);
      Jump(Add(child, loop), loop);
      Jump(loop, end);
      return end;
    }
    // Each optional copy may be the last: straight to the end, so that sets of states stay small.
    for (int i = node.min; i < node.max; ++i) {
      Jump(from, end);
      const int32_t start = AddState();
      Jump(from, start);
      from = Add(child, start);
    }
    Jump(from, end);
    return end;
  }

  const CharacterCode code_;
  ByteNfa& nfa_;
};

// Sets of NFA states become DFA states.
class Determinizer {
 public:
  explicit Determinizer(const ByteNfa& nfa) : nfa_(nfa), work_(nfa.work), mark_(nfa.states.size(), 0) { FindClasses(); }

  absl::StatusOr<ByteDfa> Run() {
    Intern({nfa_.start});
    for (size_t i = 0; i < states_.size(); ++i) {
      Expand(i);
      if (std::ssize(states_) > kMaxDfaStates) {
        return absl::ResourceExhaustedError(absl::StrCat("the expression needs more than ", kMaxDfaStates, " states"));
      }
      if (work_ > kMaxDfaWork) {
        return absl::ResourceExhaustedError(
            absl::StrCat("the expression needs more than ", kMaxDfaWork, " steps to compile"));
      }
    }
    return ByteDfa(std::move(states_), work_);
  }

 private:
  // Bytes that no edge tells apart.
  void FindClasses() {
    std::vector<bool> is_first(257, false);
    is_first[0] = true;
    for (const ByteNfa::State& state : nfa_.states) {
      for (const ByteDfa::Edge& edge : state.edges) {
        is_first[edge.first] = true;
        is_first[size_t{edge.last} + 1] = true;
      }
    }
    for (int byte = 0; byte < 256; ++byte) {
      if (is_first[static_cast<size_t>(byte)]) class_first_.push_back(byte);
      class_of_[byte] = static_cast<int>(class_first_.size()) - 1;
    }
    targets_.resize(class_first_.size());
  }

  // The id of the DFA state for these NFA states and what they jump to.
  int32_t Intern(const std::vector<int32_t>& seeds) {
    ++generation_;
    std::vector<int32_t> closure;
    const auto visit = [&](int32_t state) {
      if (mark_[static_cast<size_t>(state)] == generation_) return;
      mark_[static_cast<size_t>(state)] = generation_;
      closure.push_back(state);
    };
    for (const int32_t seed : seeds) visit(seed);
    for (size_t i = 0; i < closure.size(); ++i) {
      const std::vector<int32_t>& jumps = nfa_.states[static_cast<size_t>(closure[i])].jumps;
      work_ += 1 + std::ssize(jumps);
      for (const int32_t jump : jumps) visit(jump);
    }
    // Only what reads bytes or accepts tells sets apart.
    std::erase_if(closure, [this](int32_t state) {
      return nfa_.states[static_cast<size_t>(state)].edges.empty() && state != nfa_.accept;
    });
    std::sort(closure.begin(), closure.end());
    const auto [found, is_new] = ids_.try_emplace(closure, static_cast<int32_t>(states_.size()));
    if (is_new) {
      states_.emplace_back().accepts = std::binary_search(closure.begin(), closure.end(), nfa_.accept);
      sets_.push_back(std::move(closure));
    }
    return found->second;
  }

  void Expand(size_t index) {
    for (std::vector<int32_t>& targets : targets_) targets.clear();
    for (const int32_t state : sets_[index]) {
      for (const ByteDfa::Edge& edge : nfa_.states[static_cast<size_t>(state)].edges) {
        for (int c = class_of_[edge.first]; c <= class_of_[edge.last]; ++c) {
          targets_[static_cast<size_t>(c)].push_back(edge.to);
          ++work_;
        }
      }
    }
    std::vector<ByteDfa::Edge> edges;
    for (size_t c = 0; c < targets_.size(); ++c) {
      if (targets_[c].empty()) continue;
      const int32_t to = Intern(targets_[c]);
      const auto first = static_cast<uint8_t>(class_first_[c]);
      const auto last = static_cast<uint8_t>(c + 1 < targets_.size() ? class_first_[c + 1] - 1 : 255);
      if (!edges.empty() && edges.back().to == to && edges.back().last + 1 == first) {
        edges.back().last = last;
      } else {
        edges.push_back({first, last, to});
      }
    }
    states_[index].edges = std::move(edges);
  }

  const ByteNfa& nfa_;
  int64_t work_;
  std::vector<int> class_first_;  // [classes] first byte of each
  int class_of_[256];
  std::vector<uint32_t> mark_;  // [NFA states] the last closure that has it
  uint32_t generation_ = 0;
  std::vector<std::vector<int32_t>> targets_;  // [classes]
  std::vector<ByteDfa::State> states_;
  std::vector<std::vector<int32_t>> sets_;  // [DFA states] NFA states of each
  absl::flat_hash_map<std::vector<int32_t>, int32_t> ids_;
};

}  // namespace

absl::StatusOr<ByteNfa> BuildNfa(const RegexNode& tree, CharacterCode code) {
  if (CountStates(tree, code) > kMaxNfaStates) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the expression, its repetitions written out, needs more than ", kMaxNfaStates, " states"));
  }
  ByteNfa nfa;
  Builder builder(code, &nfa);
  nfa.start = builder.AddState();
  nfa.accept = builder.Add(tree, nfa.start);
  int64_t num_parts = std::ssize(nfa.states);
  for (const ByteNfa::State& state : nfa.states) num_parts += std::ssize(state.edges) + std::ssize(state.jumps);
  nfa.work = kStepsPerPart * num_parts;
  return nfa;
}

absl::StatusOr<ByteDfa> Determinize(const ByteNfa& nfa) { return Determinizer(nfa).Run(); }

}  // namespace cadre
