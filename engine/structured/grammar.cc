#include "engine/structured/grammar.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace cadre {

int64_t Grammar::memory_bytes() const {
  return std::ssize(byte_edges_) * int64_t{sizeof(ByteEdge)} + std::ssize(call_edges_) * int64_t{sizeof(CallEdge)} +
         int64_t{4} * (std::ssize(jumps_) + std::ssize(need_) + 3 * std::ssize(first_jump_)) + std::ssize(accepts_) / 8;
}

void Grammar::FindClasses() {
  std::array<bool, 257> is_first = {};
  is_first[0] = true;
  for (const ByteEdge& edge : byte_edges_) {
    is_first[edge.first] = true;
    is_first[size_t{edge.last} + 1] = true;
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    if (is_first[byte]) class_bytes_.push_back(static_cast<uint8_t>(byte));
    class_of_[byte] = static_cast<int32_t>(class_bytes_.size()) - 1;
  }
}

int32_t GrammarBuilder::AddState() {
  if (std::ssize(states_) >= kMaxGrammarStates) {
    is_too_large_ = true;
    return 0;
  }
  states_.emplace_back();
  return static_cast<int32_t>(states_.size()) - 1;
}

void GrammarBuilder::AddBytes(int32_t from, uint8_t first, uint8_t last, int32_t to) {
  if (!is_too_large_) at(from).bytes.push_back({first, last, to});
}

int32_t GrammarBuilder::AddText(int32_t from, std::string_view text) {
  for (const char c : text) {
    const int32_t next = AddState();
    AddBytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), next);
    from = next;
  }
  return from;
}

void GrammarBuilder::AddJump(int32_t from, int32_t to) {
  if (!is_too_large_) at(from).jumps.push_back(to);
}

void GrammarBuilder::AddCall(int32_t from, int32_t rule, int32_t to) {
  if (!is_too_large_) at(from).calls.push_back({rule, to});
}

void GrammarBuilder::AddDfa(int32_t from, const ByteDfa& dfa, int32_t to) {
  if (dfa.empty()) return;
  std::vector<int32_t> ids(dfa.states().size());
  for (int32_t& id : ids) id = AddState();
  for (size_t i = 0; i < ids.size(); ++i) {
    const ByteDfa::State& state = dfa.states()[i];
    for (const ByteDfa::Edge& edge : state.edges) {
      AddBytes(ids[i], edge.first, edge.last, ids[static_cast<size_t>(edge.to)]);
    }
    if (state.accepts) AddJump(ids[i], to);
  }
  AddJump(from, ids[0]);
}

void GrammarBuilder::SetReturn(int32_t state) {
  if (!is_too_large_) at(state).returns = true;
}

bool GrammarBuilder::IsTail(const Call& call) const {
  const State& to = at(call.to);
  return to.returns && to.bytes.empty() && to.calls.empty() && to.jumps.empty();
}

void GrammarBuilder::KeepSpelled(const ByteSet& spelled) {
  if (spelled.all()) return;
  for (State& state : states_) {
    std::vector<Grammar::ByteEdge> kept;
    for (const Grammar::ByteEdge& edge : state.bytes) {
      for (int byte = edge.first; byte <= edge.last; ++byte) {
        if (!spelled[static_cast<size_t>(byte)]) continue;
        const auto b = static_cast<uint8_t>(byte);
        const bool goes_on = byte > edge.first && !kept.empty() && kept.back().last + 1 == byte;
        if (goes_on) {
          kept.back().last = b;
        } else {
          kept.push_back({b, b, edge.to});
        }
      }
    }
    state.bytes = std::move(kept);
  }
}

// Backward from the returns, in rounds: round k finds the states that need k calls to be open at once. A call edge is
// usable from the round on in which its callee is known; a tail call costs nothing.
std::vector<int32_t> GrammarBuilder::ComputeNeeds() const {
  struct Source {
    int32_t from;
    int32_t callee;  // -1: no call
    bool is_tail;
  };
  std::vector<std::vector<Source>> sources(states_.size());                    // by target
  std::vector<std::vector<std::pair<int32_t, Call>>> callers(states_.size());  // by callee
  for (size_t i = 0; i < states_.size(); ++i) {
    const auto from = static_cast<int32_t>(i);
    for (const auto& edge : states_[i].bytes) sources[static_cast<size_t>(edge.to)].push_back({from, -1, false});
    for (const int32_t to : states_[i].jumps) sources[static_cast<size_t>(to)].push_back({from, -1, false});
    for (const Call& call : states_[i].calls) {
      sources[static_cast<size_t>(call.to)].push_back({from, call.callee, IsTail(call)});
      callers[static_cast<size_t>(call.callee)].push_back({from, call});
    }
  }
  std::vector<int32_t> needs(states_.size(), kDeadLimit);
  std::vector<int32_t> work;
  std::vector<int32_t> found_last;  // in the round before
  for (int32_t round = 0; round <= kMaxCallDepth; ++round) {
    const auto find = [&](int32_t state) {
      if (needs[static_cast<size_t>(state)] != kDeadLimit) return;
      needs[static_cast<size_t>(state)] = round;
      work.push_back(state);
    };
    if (round == 0) {
      for (size_t i = 0; i < states_.size(); ++i) {
        if (states_[i].returns) find(static_cast<int32_t>(i));
      }
    }
    for (const int32_t callee : found_last) {
      for (const auto& [from, call] : callers[static_cast<size_t>(callee)]) {
        if (needs[static_cast<size_t>(call.to)] <= round) find(from);
      }
    }
    for (size_t i = 0; i < work.size(); ++i) {
      const auto state = static_cast<size_t>(work[i]);
      for (const Source& source : sources[state]) {
        const int32_t callee_need = source.callee < 0 ? -1 : needs[static_cast<size_t>(source.callee)];
        if (source.callee < 0 || callee_need + (source.is_tail ? 0 : 1) <= round) find(source.from);
      }
      // A callee found in this round serves tail calls at once.
      for (const auto& [from, call] : callers[state]) {
        if (IsTail(call)) find(from);
      }
    }
    if (work.empty() && round > 0) break;
    found_last = std::exchange(work, {});
  }
  return needs;
}

// A start that can be reached from itself by calls and jumps alone; -1 when there is none. Only what stands in front
// of the first byte counts, and no rule that is called returns without one: a rule that can be empty is never called.
int32_t GrammarBuilder::FindLeftRecursion() const {
  enum class Color : uint8_t { kWhite, kGray, kBlack };
  std::vector<Color> colors(states_.size(), Color::kWhite);
  struct Frame {
    int32_t state;
    size_t next;  // edge to look at: jumps, then calls
  };
  std::vector<Frame> stack;
  for (size_t root = 0; root < states_.size(); ++root) {
    if (colors[root] != Color::kWhite) continue;
    colors[root] = Color::kGray;
    stack.push_back({static_cast<int32_t>(root), 0});
    while (!stack.empty()) {
      Frame& frame = stack.back();
      const State& state = at(frame.state);
      if (frame.next == state.jumps.size() + state.calls.size()) {
        colors[static_cast<size_t>(frame.state)] = Color::kBlack;
        stack.pop_back();
        continue;
      }
      const size_t edge = frame.next++;
      const int32_t to = edge < state.jumps.size() ? state.jumps[edge] : state.calls[edge - state.jumps.size()].callee;
      Color& color = colors[static_cast<size_t>(to)];
      if (color == Color::kGray) return to;
      if (color == Color::kBlack) continue;
      color = Color::kGray;
      stack.push_back({to, 0});
    }
  }
  return -1;
}

Grammar GrammarBuilder::Pack(int32_t start, const std::vector<int32_t>& needs) const {
  const auto is_live = [&](int32_t state) { return needs[static_cast<size_t>(state)] != kDeadLimit; };
  // Number what can be reached and completed, in the order in which it is found.
  std::vector<int32_t> new_ids(states_.size(), -1);
  std::vector<int32_t> order;
  const auto reach = [&](int32_t state) {
    if (!is_live(state) || new_ids[static_cast<size_t>(state)] >= 0) return;
    new_ids[static_cast<size_t>(state)] = static_cast<int32_t>(order.size());
    order.push_back(state);
  };
  const auto id = [&](int32_t state) { return new_ids[static_cast<size_t>(state)]; };
  reach(start);
  for (size_t i = 0; i < order.size(); ++i) {
    const State& state = at(order[i]);
    for (const auto& edge : state.bytes) reach(edge.to);
    for (const int32_t to : state.jumps) reach(to);
    for (const Call& call : state.calls) {
      if (!is_live(call.callee) || !is_live(call.to)) continue;
      reach(call.callee);
      reach(call.to);
    }
  }
  Grammar grammar;
  grammar.start_ = 0;
  for (const int32_t old_id : order) {
    const State& state = at(old_id);
    grammar.accepts_.push_back(state.returns);
    grammar.need_.push_back(needs[static_cast<size_t>(old_id)]);
    grammar.first_byte_edge_.push_back(static_cast<int32_t>(grammar.byte_edges_.size()));
    grammar.first_call_edge_.push_back(static_cast<int32_t>(grammar.call_edges_.size()));
    grammar.first_jump_.push_back(static_cast<int32_t>(grammar.jumps_.size()));
    for (const auto& edge : state.bytes) {
      if (is_live(edge.to)) grammar.byte_edges_.push_back({edge.first, edge.last, id(edge.to)});
    }
    for (const int32_t to : state.jumps) {
      if (is_live(to)) grammar.jumps_.push_back(id(to));
    }
    for (const Call& call : state.calls) {
      if (!is_live(call.callee) || !is_live(call.to)) continue;
      const bool is_tail = IsTail(call);
      const int32_t callee_need = needs[static_cast<size_t>(call.callee)] + (is_tail ? 0 : 1);
      const int32_t need = std::max(callee_need, needs[static_cast<size_t>(call.to)]);
      grammar.call_edges_.push_back({id(call.callee), id(call.to), need, is_tail});
    }
  }
  grammar.first_byte_edge_.push_back(static_cast<int32_t>(grammar.byte_edges_.size()));
  grammar.first_call_edge_.push_back(static_cast<int32_t>(grammar.call_edges_.size()));
  grammar.first_jump_.push_back(static_cast<int32_t>(grammar.jumps_.size()));
  grammar.FindClasses();
  return grammar;
}

absl::StatusOr<Grammar> GrammarBuilder::Build(int32_t start, const ByteSet& spelled, int32_t* left_recursive_rule) {
  if (is_too_large_) {
    return absl::ResourceExhaustedError(absl::StrCat("the grammar needs more than ", kMaxGrammarStates, " states"));
  }
  if (left_recursive_rule != nullptr) *left_recursive_rule = FindLeftRecursion();
  if (FindLeftRecursion() >= 0) return absl::InvalidArgumentError("a rule that begins with itself");
  KeepSpelled(spelled);
  const std::vector<int32_t> needs = ComputeNeeds();
  if (needs[static_cast<size_t>(start)] == kDeadLimit) {
    return absl::InvalidArgumentError("nothing conforms, or the tokens of the model cannot spell it");
  }
  return Pack(start, needs);
}

}  // namespace cadre
