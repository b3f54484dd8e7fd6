#include "engine/structured/token_masks.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

constexpr int64_t kEntryOverheadBytes = 160;

void SetBits(std::span<const int32_t> tokens, std::span<uint64_t> mask) {
  for (const int32_t token : tokens) mask[static_cast<size_t>(token) / 64] |= uint64_t{1} << (token % 64);
}

}  // namespace

absl::Status MaskLimitError(const StepMeter& meter, int64_t max_bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat("finding the tokens that may follow takes more than ",
                   meter.is_exhausted() ? meter.max_steps() : max_bytes, meter.is_exhausted() ? " steps" : " bytes",
                   ": too many alternatives (anyOf, patterns) remain possible for the same text"));
}

TokenMasks::TokenMasks(const TokenVocabulary* vocabulary, GrammarAutomaton* automaton, StepMeter* meter,
                       int64_t max_own_bytes)
    : vocabulary_(*vocabulary), automaton_(*automaton), meter_(*meter), max_own_bytes_(max_own_bytes) {}

absl::Status TokenMasks::Fill(int32_t state, std::span<uint64_t> mask) {
  const Whole* whole = WholeOf(state);
  if (whole == nullptr) {
    CADRE_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, WalkAfresh(vocabulary_.trie(), state));
    std::fill(mask.begin(), mask.end(), 0);
    SetBits(tokens, mask);
    AddEnds(state, mask);
    return absl::OkStatus();
  }
  const TokenSet* inside = whole->inside == nullptr ? nullptr : &whole->inside->tokens;
  if (inside != nullptr && !inside->bits.empty()) {
    std::copy(inside->bits.begin(), inside->bits.end(), mask.begin());
  } else {
    std::fill(mask.begin(), mask.end(), 0);
    if (inside != nullptr) Add(*inside, mask);
  }
  Add(whole->others, mask);
  AddEnds(state, mask);
  return absl::OkStatus();
}

absl::Status TokenMasks::FillFirst(int32_t state, std::span<uint64_t> mask) {
  if (!vocabulary_.has_first_trie()) return Fill(state, mask);
  std::vector<int32_t> tokens;
  if (!Walk(vocabulary_.first_trie(), 0, state, &tokens, nullptr)) {
    CADRE_ASSIGN_OR_RETURN(tokens, WalkAfresh(vocabulary_.first_trie(), state));
  }
  std::fill(mask.begin(), mask.end(), 0);
  SetBits(tokens, mask);
  SetBits(vocabulary_.silent_first(), mask);
  AddEnds(state, mask);
  return absl::OkStatus();
}

void TokenMasks::AddEnds(int32_t state, std::span<uint64_t> mask) const {
  if (automaton_.accepts(state)) SetBits(vocabulary_.end_ids(), mask);
}

void TokenMasks::Add(const TokenSet& set, std::span<uint64_t> mask) {
  SetBits(set.list, mask);
  for (size_t i = 0; i < set.bits.size(); ++i) mask[i] |= set.bits[i];
}

TokenMasks::TokenSet TokenMasks::Pack(std::vector<int32_t> tokens) const {
  TokenSet set;
  if (tokens.size() * sizeof(int32_t) < vocabulary_.num_mask_words() * sizeof(uint64_t)) {
    tokens.shrink_to_fit();
    set.list = std::move(tokens);
  } else {
    set.bits.resize(vocabulary_.num_mask_words());
    SetBits(tokens, set.bits);
  }
  return set;
}

int64_t TokenMasks::MemoryOf(const TokenSet& set) { return std::ssize(set.list) * 4 + std::ssize(set.bits) * 8; }

bool TokenMasks::TakeRun(const TokenTrie& trie, uint32_t node_id, int32_t state, std::vector<int32_t>* tokens) {
  const TokenTrie::Node& node = trie.nodes()[node_id];
  if (node.run_sets == 0 || node.next - node_id == 1) return false;
  for (int set = 0; set < kNumByteRunSets; ++set) {
    if ((node.run_sets >> set & 1) == 0) continue;
    if (!automaton_.HasRun(state, set, node.height, &walk_reach_)) continue;
    const std::span<const int32_t> all = trie.TokensBelow(node_id);
    meter_.Add(std::ssize(all));
    tokens->insert(tokens->end(), all.begin(), all.end());
    return true;
  }
  return false;
}

bool TokenMasks::Walk(const TokenTrie& trie, uint32_t root, int32_t state, std::vector<int32_t>* tokens,
                      Inside* exits) {
  const std::span<const TokenTrie::Node> nodes = trie.nodes();
  const size_t root_depth = nodes[root].depth;
  path_.assign(1, state);
  for (uint32_t i = root + 1; i < nodes[root].next;) {
    const TokenTrie::Node& node = nodes[i];
    const size_t depth = node.depth - root_depth;
    meter_.Add(1);
    if (automaton_.is_full() || meter_.is_exhausted()) return false;
    path_.resize(depth);
    if (TakeRun(trie, i, path_.back(), tokens)) {
      i = node.next;
      continue;
    }
    const int32_t next = automaton_.Next(path_.back(), node.byte);
    if (next == GrammarAutomaton::kUnfinished) return false;
    if (next == GrammarAutomaton::kDead) {
      i = node.next;
      continue;
    }
    const std::span<const int32_t> here = trie.TokensAt(i);
    tokens->insert(tokens->end(), here.begin(), here.end());
    walk_reach_ = std::max(walk_reach_, automaton_.reach(next));
    if (exits != nullptr && node.next - i > 1) AddExit(i, automaton_.escapes(next), exits);
    path_.push_back(next);
    i = automaton_.has_next(next) ? i + 1 : node.next;
  }
  return true;
}

absl::StatusOr<std::vector<int32_t>> TokenMasks::WalkAfresh(const TokenTrie& trie, int32_t state) const {
  const std::span<const TokenTrie::Node> nodes = trie.nodes();
  std::vector<int32_t> path = {state};
  std::unique_ptr<GrammarAutomaton> automaton = StartAgain(automaton_, &path);
  std::vector<int32_t> tokens;
  for (uint32_t i = 1; i < nodes[0].next;) {
    const TokenTrie::Node& node = nodes[i];
    path.resize(node.depth);
    meter_.Add(1);
    int32_t next = automaton->Next(path.back(), node.byte);
    if (next == GrammarAutomaton::kUnfinished && !meter_.is_exhausted()) {
      automaton = StartAgain(*automaton, &path);
      next = automaton->Next(path.back(), node.byte);
    }
    if (next == GrammarAutomaton::kUnfinished || meter_.is_exhausted()) return MaskLimitError(meter_, max_own_bytes_);
    if (next == GrammarAutomaton::kDead) {
      i = node.next;
      continue;
    }
    const std::span<const int32_t> here = trie.TokensAt(i);
    tokens.insert(tokens.end(), here.begin(), here.end());
    path.push_back(next);
    i = automaton->has_next(next) ? i + 1 : node.next;
  }
  return tokens;
}

std::unique_ptr<GrammarAutomaton> TokenMasks::StartAgain(const GrammarAutomaton& full,
                                                         std::vector<int32_t>* path) const {
  auto fresh = std::make_unique<GrammarAutomaton>(&automaton_.grammar(), &meter_);
  GrammarAutomaton::Imported imported;
  for (int32_t& state : *path) state = fresh->Import(full, state, &imported);
  fresh->LimitMemory(max_own_bytes_);
  return fresh;
}

void TokenMasks::AddExit(uint32_t node, std::span<const int32_t> escapes, Inside* exits) {
  if (escapes.empty()) return;
  std::vector<std::vector<int32_t>>& sets = exits->escape_sets;
  meter_.Add(std::ssize(sets) + std::ssize(escapes));
  const auto known = std::find_if(sets.begin(), sets.end(), [&](const std::vector<int32_t>& set) {
    return std::equal(set.begin(), set.end(), escapes.begin(), escapes.end());
  });
  const auto index = static_cast<uint32_t>(known - sets.begin());
  if (known == sets.end()) sets.emplace_back(escapes.begin(), escapes.end());
  exits->exits.push_back({node, index});
}

const TokenMasks::KnownInside* TokenMasks::InsideOf(int32_t abstract) {
  if (const auto found = inside_.find(abstract); found != inside_.end()) return &found->second;
  auto inside = std::make_shared<Inside>();
  std::vector<int32_t> tokens;
  walk_reach_ = automaton_.reach(abstract);
  if (!Walk(vocabulary_.trie(), 0, abstract, &tokens, inside.get())) return nullptr;
  inside->tokens = Pack(std::move(tokens));
  if (last_inside_ == nullptr || *last_inside_ != *inside) {
    memory_bytes_ += MemoryOf(inside->tokens) + std::ssize(inside->exits) * int64_t{sizeof(Exit)};
    for (const std::vector<int32_t>& set : inside->escape_sets)
      memory_bytes_ += kEntryOverheadBytes / 4 + 4 * std::ssize(set);
    last_inside_ = std::move(inside);
  }
  memory_bytes_ += kEntryOverheadBytes;
  return &inside_.emplace(abstract, KnownInside{last_inside_, walk_reach_}).first->second;
}

const TokenMasks::Whole* TokenMasks::WholeOf(int32_t state) {
  if (const auto found = whole_.find(state); found != whole_.end()) return &found->second;
  Whole whole;
  std::vector<int32_t> others;
  const KnownInside* known = InsideOf(automaton_.Abstract(state));
  if (known == nullptr) return nullptr;
  if (automaton_.max_depth(state) + known->reach <= kMaxCallDepth) {
    whole.inside = known->inside;
    std::vector<int32_t> resumed;  // by escape set
    for (const std::vector<int32_t>& set : known->inside->escape_sets) {
      resumed.push_back(automaton_.Resume(state, set));
      if (resumed.back() == GrammarAutomaton::kUnfinished) return nullptr;
    }
    for (const Exit& exit : known->inside->exits) {
      const int32_t behind = resumed[exit.escape_set];
      if (behind == GrammarAutomaton::kDead) continue;
      if (!Walk(vocabulary_.trie(), exit.node, behind, &others, nullptr)) return nullptr;
    }
  } else {
    // So deep that the limit may cut off what an unknown caller would allow.
    if (!Walk(vocabulary_.trie(), 0, state, &others, nullptr)) return nullptr;
  }
  whole.others = Pack(std::move(others));
  memory_bytes_ += kEntryOverheadBytes + MemoryOf(whole.others);
  return &whole_.emplace(state, std::move(whole)).first->second;
}

absl::Status TokenMasks::Prepare(int64_t max_states, int64_t max_work, int64_t max_mask_work) {
  std::vector<int32_t> states = {automaton_.Start()};
  absl::flat_hash_set<int32_t> seen(states.begin(), states.end());
  const int64_t last_step = meter_.steps() + max_work;
  for (size_t i = 0; i < states.size() && meter_.steps() < last_step && !automaton_.is_full(); ++i) {
    meter_.Limit(max_mask_work);
    const bool is_whole = WholeOf(states[i]) != nullptr;
    if (meter_.is_exhausted()) return MaskLimitError(meter_, max_own_bytes_);
    if (!is_whole) return WalkAfresh(vocabulary_.trie(), states[i]).status();
    if (std::ssize(states) >= max_states) continue;
    meter_.Limit(max_mask_work);
    for (int byte = 0; byte < 256 && meter_.steps() < last_step; ++byte) {
      const int32_t next = automaton_.Next(states[i], static_cast<uint8_t>(byte));
      if (next == GrammarAutomaton::kUnfinished) break;
      if (next != GrammarAutomaton::kDead && seen.insert(next).second) states.push_back(next);
    }
    if (meter_.is_exhausted()) return MaskLimitError(meter_, max_own_bytes_);
    meter_.Add(256);
  }
  return absl::OkStatus();
}

}  // namespace cadre
