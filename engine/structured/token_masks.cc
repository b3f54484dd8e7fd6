#include "engine/structured/token_masks.h"

#include <algorithm>
#include <utility>

namespace cadre {
namespace {

constexpr int64_t kEntryOverheadBytes = 160;

void SetBits(std::span<const int32_t> tokens, std::span<uint64_t> mask) {
  for (const int32_t token : tokens) mask[static_cast<size_t>(token) / 64] |= uint64_t{1} << (token % 64);
}

}  // namespace

TokenMasks::TokenMasks(const TokenVocabulary* vocabulary, GrammarAutomaton* automaton)
    : vocabulary_(*vocabulary), automaton_(*automaton) {}

void TokenMasks::Fill(int32_t state, std::span<uint64_t> mask) {
  const Whole& whole = WholeOf(state);
  const TokenSet* inside = whole.inside == GrammarAutomaton::kDead ? nullptr : &InsideOf(whole.inside).tokens;
  if (inside != nullptr && !inside->bits.empty()) {
    std::copy(inside->bits.begin(), inside->bits.end(), mask.begin());
  } else {
    std::fill(mask.begin(), mask.end(), 0);
    if (inside != nullptr) Add(*inside, mask);
  }
  Add(whole.others, mask);
  AddEnds(state, mask);
}

void TokenMasks::FillFirst(int32_t state, std::span<uint64_t> mask) {
  if (!vocabulary_.has_first_trie()) return Fill(state, mask);
  std::vector<int32_t> tokens;
  Walk(vocabulary_.first_trie(), 0, state, &tokens, nullptr);
  std::fill(mask.begin(), mask.end(), 0);
  SetBits(tokens, mask);
  SetBits(vocabulary_.silent_first(), mask);
  AddEnds(state, mask);
}

void TokenMasks::AddEnds(int32_t state, std::span<uint64_t> mask) const {
  if (automaton_.accepts(state)) SetBits(vocabulary_.end_ids(), mask);
}

void TokenMasks::Add(const TokenSet& set, std::span<uint64_t> mask) {
  SetBits(set.list, mask);
  for (size_t i = 0; i < set.bits.size(); ++i) mask[i] |= set.bits[i];
}

TokenMasks::TokenSet TokenMasks::Pack(std::vector<int32_t> tokens) {
  TokenSet set;
  if (tokens.size() * sizeof(int32_t) < vocabulary_.num_mask_words() * sizeof(uint64_t)) {
    tokens.shrink_to_fit();
    set.list = std::move(tokens);
  } else {
    set.bits.resize(vocabulary_.num_mask_words());
    SetBits(tokens, set.bits);
  }
  memory_bytes_ += kEntryOverheadBytes + std::ssize(set.list) * 4 + std::ssize(set.bits) * 8;
  return set;
}

bool TokenMasks::TakeRun(const TokenTrie& trie, uint32_t node_id, int32_t state, std::vector<int32_t>* tokens,
                         Inside* exits) {
  const TokenTrie::Node& node = trie.nodes()[node_id];
  if (node.run_sets == 0 || node.next - node_id == 1) return false;
  for (int set = 0; set < kNumByteRunSets; ++set) {
    if ((node.run_sets >> set & 1) == 0) continue;
    const GrammarAutomaton::Run& run = automaton_.RunOf(state, set);
    if (run.length < node.height) continue;
    const std::span<const int32_t> all = trie.TokensBelow(node_id);
    tokens->insert(tokens->end(), all.begin(), all.end());
    if (exits != nullptr) exits->reach = std::max(exits->reach, run.reach);
    return true;
  }
  return false;
}

void TokenMasks::Walk(const TokenTrie& trie, uint32_t root, int32_t state, std::vector<int32_t>* tokens,
                      Inside* exits) {
  const std::span<const TokenTrie::Node> nodes = trie.nodes();
  const size_t root_depth = nodes[root].depth;
  path_.assign(1, state);
  for (uint32_t i = root + 1; i < nodes[root].next;) {
    const TokenTrie::Node& node = nodes[i];
    const size_t depth = node.depth - root_depth;
    path_.resize(depth);
    if (TakeRun(trie, i, path_.back(), tokens, exits)) {
      i = node.next;
      continue;
    }
    const int32_t next = automaton_.Next(path_.back(), node.byte);
    if (next == GrammarAutomaton::kDead) {
      i = node.next;
      continue;
    }
    const std::span<const int32_t> here = trie.TokensAt(i);
    tokens->insert(tokens->end(), here.begin(), here.end());
    if (exits != nullptr) {
      exits->reach = std::max(exits->reach, automaton_.reach(next));
      const std::span<const int32_t> escapes = automaton_.escapes(next);
      if (!escapes.empty() && node.next - i > 1) exits->exits.push_back({i, {escapes.begin(), escapes.end()}});
    }
    path_.push_back(next);
    i = automaton_.has_next(next) ? i + 1 : node.next;
  }
}

const TokenMasks::Inside& TokenMasks::InsideOf(int32_t abstract) {
  if (const auto found = inside_.find(abstract); found != inside_.end()) return found->second;
  Inside inside = {.tokens = {}, .exits = {}, .reach = automaton_.reach(abstract)};
  std::vector<int32_t> tokens;
  Walk(vocabulary_.trie(), 0, abstract, &tokens, &inside);
  inside.tokens = Pack(std::move(tokens));
  memory_bytes_ += std::ssize(inside.exits) * int64_t{sizeof(Exit) + sizeof(int32_t)};
  return inside_.emplace(abstract, std::move(inside)).first->second;
}

const TokenMasks::Whole& TokenMasks::WholeOf(int32_t state) {
  if (const auto found = whole_.find(state); found != whole_.end()) return found->second;
  Whole whole;
  std::vector<int32_t> others;
  const int32_t abstract = automaton_.Abstract(state);
  const Inside& inside = InsideOf(abstract);
  if (automaton_.max_depth(state) + inside.reach <= kMaxCallDepth) {
    whole.inside = abstract;
    std::vector<int32_t> last_escapes;
    int32_t resumed = GrammarAutomaton::kDead;
    for (const Exit& exit : inside.exits) {
      if (resumed == GrammarAutomaton::kDead || exit.escapes != last_escapes) {
        last_escapes = exit.escapes;
        resumed = automaton_.Resume(state, last_escapes);
      }
      if (resumed != GrammarAutomaton::kDead) Walk(vocabulary_.trie(), exit.node, resumed, &others, nullptr);
    }
  } else {
    // So deep that the limit may cut off what an unknown caller would allow.
    Walk(vocabulary_.trie(), 0, state, &others, nullptr);
  }
  whole.others = Pack(std::move(others));
  return whole_.emplace(state, std::move(whole)).first->second;
}

}  // namespace cadre
