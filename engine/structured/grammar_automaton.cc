#include "engine/structured/grammar_automaton.h"

#include <algorithm>
#include <utility>

namespace cadre {
namespace {

constexpr int64_t kStateOverheadBytes = 320;
// What a state costs beside the places that are visited, and an automaton beside its states.
constexpr int64_t kStepsPerState = 16;
constexpr int64_t kStepsPerAutomaton = 512;
constexpr int64_t kClearedPerStep = 16;
constexpr int64_t kLeastRoomBytes = 16 << 10;

}  // namespace

GrammarAutomaton::GrammarAutomaton(const Grammar* grammar, StepMeter* meter)
    : grammar_(*grammar),
      meter_(*meter),
      stacks_(meter),
      stacks_at_(static_cast<size_t>(grammar->num_states()), CallStacks::kNone) {
  for (int set = 0; set < kNumByteRunSets; ++set) {
    std::vector<uint8_t>& bytes = set_bytes_.emplace_back();
    std::vector<bool> is_known(grammar_.class_bytes().size(), false);
    for (int byte = 0; byte < 256; ++byte) {
      const auto b = static_cast<uint8_t>(byte);
      const auto byte_class = static_cast<size_t>(grammar_.class_of(b));
      if (!IsInByteRunSet(set, b) || is_known[byte_class]) continue;
      is_known[byte_class] = true;
      bytes.push_back(b);
    }
  }
  memory_bytes_ = int64_t{4} * grammar_.num_states();
  meter_.Add(kStepsPerAutomaton + grammar_.num_states() / kClearedPerStep);
}

void GrammarAutomaton::LimitMemory(int64_t max_bytes) {
  max_bytes_ = std::max(max_bytes, std::min(2 * memory_bytes() + kLeastRoomBytes, kSmallAutomatonBytes));
  stacks_.LimitMemory(max_bytes_);
}

int32_t GrammarAutomaton::Start() {
  if (start_ != kUnknown) return start_;
  Visit(grammar_.start(), CallStacks::kRoot);
  const int32_t start = Finish();
  if (start != kUnfinished) start_ = start;
  return start;
}

int32_t GrammarAutomaton::Next(int32_t state, uint8_t byte) {
  const auto byte_class = static_cast<size_t>(grammar_.class_of(byte));
  if (const int32_t known = at(state).next[byte_class]; known != kUnknown) return known;
  if (must_stop()) return kUnfinished;
  for (const auto& [place, stacks] : at(state).places) {
    if (must_stop()) break;
    meter_.Add(std::ssize(grammar_.byte_edges(place)));
    for (const Grammar::ByteEdge& edge : grammar_.byte_edges(place)) {
      if (edge.first <= byte && byte <= edge.last) Visit(edge.to, stacks);
    }
  }
  const int32_t next = Finish();
  if (next != kUnfinished) at(state).next[byte_class] = next;
  return next;
}

void GrammarAutomaton::Visit(int32_t grammar_state, int32_t stacks) {
  if (must_stop()) return;
  meter_.Add(1);
  const int32_t need = grammar_.Need(grammar_state);
  new_reach_ = std::max(new_reach_, stacks_.max_depth(stacks) + need);
  stacks = stacks_.KeepShallow(stacks, kMaxCallDepth - need);
  if (stacks == CallStacks::kNone) return;
  int32_t& slot = stacks_at_[static_cast<size_t>(grammar_state)];
  if (slot == CallStacks::kNone) {
    visited_.push_back(grammar_state);
  } else {
    stacks = stacks_.Union(slot, stacks);
    if (stacks == slot) return;
  }
  slot = stacks;
  work_.push_back(grammar_state);
}

void GrammarAutomaton::Return(int32_t stacks) {
  // By index: the frames may move while sets are made.
  for (size_t i = 0; i < stacks_.frames(stacks).size(); ++i) {
    const auto [frame, below] = stacks_.frames(stacks)[i];
    if (!CallStacks::IsMark(frame)) {
      Visit(frame, below);
    } else if (frame == CallStacks::kRootMark) {
      new_accepts_ = true;
    } else {
      new_escapes_.push_back(CallStacks::UnknownIndex(frame));
    }
  }
}

void GrammarAutomaton::Expand(int32_t grammar_state) {
  const int32_t stacks = stacks_at_[static_cast<size_t>(grammar_state)];
  if (grammar_.returns(grammar_state)) Return(stacks);
  for (const int32_t to : grammar_.jumps(grammar_state)) Visit(to, stacks);
  for (const Grammar::CallEdge& call : grammar_.call_edges(grammar_state)) {
    new_reach_ = std::max(new_reach_, stacks_.max_depth(stacks) + call.need);
    const int32_t usable = stacks_.KeepShallow(stacks, kMaxCallDepth - call.need);
    if (usable == CallStacks::kNone) continue;
    Visit(call.callee, call.is_tail ? usable : stacks_.Push(call.to, usable));
  }
}

int32_t GrammarAutomaton::Finish() {
  while (!work_.empty() && !must_stop()) {
    const int32_t state = work_.back();
    work_.pop_back();
    Expand(state);
  }
  work_.clear();
  Key key = {.places = {}, .escapes = std::exchange(new_escapes_, {}), .accepts = std::exchange(new_accepts_, false)};
  const int32_t reach = std::exchange(new_reach_, 0);
  for (const int32_t state : visited_) {
    int32_t& slot = stacks_at_[static_cast<size_t>(state)];
    if (!grammar_.byte_edges(state).empty()) key.places.emplace_back(state, slot);
    slot = CallStacks::kNone;
  }
  meter_.Add(kStepsPerState + std::ssize(key.places) + std::ssize(key.escapes));
  visited_.clear();
  if (must_stop()) return kUnfinished;
  std::sort(key.places.begin(), key.places.end());
  std::sort(key.escapes.begin(), key.escapes.end());
  key.escapes.erase(std::unique(key.escapes.begin(), key.escapes.end()), key.escapes.end());
  if (key.places.empty() && key.escapes.empty() && !key.accepts) return kDead;
  const int32_t id = Intern(key);
  at(id).reach = std::max(at(id).reach, reach);
  return id;
}

int32_t GrammarAutomaton::Intern(const Key& key) {
  if (const auto found = ids_.find(key); found != ids_.end()) return found->second;
  const auto id = static_cast<int32_t>(states_.size());
  State& state = states_.emplace_back();
  state.places = key.places;
  state.escapes = key.escapes;
  state.accepts = key.accepts;
  for (const Place& place : state.places) {
    state.max_depth = std::max(state.max_depth, stacks_.max_depth(place.second));
  }
  state.next.assign(grammar_.class_bytes().size(), kUnknown);
  memory_bytes_ +=
      kStateOverheadBytes + 2 * std::ssize(key.places) * int64_t{sizeof(Place)} + 4 * std::ssize(state.next);
  ids_.emplace(key, id);
  return id;
}

int32_t GrammarAutomaton::CommonNext(int32_t state, int set) {
  const auto s = static_cast<size_t>(set);
  if (at(state).runs[s].next != kUnknown) return at(state).runs[s].next;
  int32_t common = kUnknown;
  for (const uint8_t byte : set_bytes_[s]) {
    const int32_t next = Next(state, byte);
    if (next == kUnfinished) return kUnfinished;
    if (next == kDead || (common != kUnknown && next != common)) {
      common = kDead;
      break;
    }
    common = next;
  }
  at(state).runs[s].next = common;
  return common;
}

bool GrammarAutomaton::HasRun(int32_t state, int set, int32_t length, int32_t* reach) {
  const auto s = static_cast<size_t>(set);
  if (const Run& run = at(state).runs[s]; run.length < length && !run.is_whole) {
    std::vector<int32_t>& path = run_path_;
    path.assign(1, state);
    while (std::ssize(path) <= length) {
      meter_.Add(1);
      const int32_t next = CommonNext(path.back(), set);
      if (next == kUnfinished) return false;
      if (next == kDead) break;
      path.push_back(next);
      if (next == path[path.size() - 2]) path.resize(static_cast<size_t>(length) + 1, next);
    }
    const bool is_whole = std::ssize(path) <= length;
    int32_t path_reach = 0;
    for (size_t i = path.size(); i-- > 0;) {
      path_reach = std::max(path_reach, at(path[i]).reach);
      Run& known = at(path[i]).runs[s];
      const auto steps = static_cast<int32_t>(path.size() - 1 - i);
      if (steps < known.length) continue;
      known.length = steps;
      known.reach = path_reach;
      known.is_whole = is_whole;
    }
  }
  const Run& run = at(state).runs[s];
  if (run.length < length) return false;
  *reach = std::max(*reach, run.reach);
  return true;
}

int32_t GrammarAutomaton::Abstract(int32_t state) {
  if (at(state).abstract != kUnknown) return at(state).abstract;
  meter_.Add(std::ssize(at(state).places));
  std::vector<int32_t> callers;
  absl::flat_hash_map<int32_t, int32_t> indices;  // of callers
  Key key = {.places = at(state).places, .escapes = {}, .accepts = at(state).accepts};
  for (auto& [place, stacks] : key.places) {
    if (stacks == CallStacks::kRoot) continue;
    const auto [index, is_new] = indices.try_emplace(stacks, static_cast<int32_t>(callers.size()));
    if (is_new) callers.push_back(stacks);
    stacks = stacks_.Unknown(index->second);
  }
  std::sort(key.places.begin(), key.places.end());
  const int32_t abstract = Intern(key);
  memory_bytes_ += 4 * std::ssize(callers);
  at(state).abstract = abstract;
  at(state).callers = std::move(callers);
  return abstract;
}

int32_t GrammarAutomaton::Resume(int32_t state, std::span<const int32_t> indices) {
  for (const int32_t index : indices) Return(at(state).callers[static_cast<size_t>(index)]);
  return Finish();
}

int32_t GrammarAutomaton::Import(const GrammarAutomaton& other, int32_t state, Imported* imported) {
  if (const auto found = imported->states.find(state); found != imported->states.end()) return found->second;
  Key key = {.places = other.at(state).places, .escapes = other.at(state).escapes, .accepts = other.at(state).accepts};
  for (auto& [place, stacks] : key.places) stacks = stacks_.Import(other.stacks_, stacks, &imported->stacks);
  meter_.Add(kStepsPerState + std::ssize(key.places));
  std::sort(key.places.begin(), key.places.end());
  const int32_t id = Intern(key);
  imported->states[state] = id;
  return id;
}

}  // namespace cadre
