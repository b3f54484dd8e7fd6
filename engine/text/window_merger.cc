#include "engine/text/window_merger.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <limits>

namespace cadre {
namespace {

constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

std::uint64_t CandidateOf(std::uint32_t rank, std::uint32_t position) { return std::uint64_t{rank} << 32 | position; }
std::uint32_t RankOf(std::uint64_t candidate) { return static_cast<std::uint32_t>(candidate >> 32); }
std::uint32_t PositionOf(std::uint64_t candidate) { return static_cast<std::uint32_t>(candidate); }

}  // namespace

void WindowMerger::Merge(std::span<const std::int32_t> symbols, std::vector<Token>* tokens) {
  LinkNodes(symbols);
  if (symbols.size() <= kMaxInBlocks && !table_.keeps_left()) {
    MergeInBlocks();
  } else {
    MergeWithHeap();
  }
  tokens->clear();
  for (std::uint32_t i = 0; i != kNone; i = nodes_[i].next) tokens->push_back({nodes_[i].id, i});
}

void WindowMerger::LinkNodes(std::span<const std::int32_t> symbols) {
  const auto size = static_cast<std::uint32_t>(symbols.size());
  nodes_.resize(size);
  for (std::uint32_t i = 0; i + 1 < size; ++i) {
    const MergeTable::Merge merge = table_.Find(symbols[i], symbols[i + 1]);
    nodes_[i] = {symbols[i], merge.merged_id, merge.rank, i == 0 ? kNone : i - 1, i + 1};
  }
  nodes_[size - 1] = {symbols[size - 1], -1, MergeTable::kNoRank, size == 1 ? kNone : size - 2, kNone};
}

// Merges what stands there with the next, whose position is returned.
std::uint32_t WindowMerger::MergeAt(std::uint32_t position) {
  Node& left = nodes_[position];
  const std::uint32_t gone = left.next;
  left.id = left.merged_id;
  left.next = nodes_[gone].next;
  nodes_[gone].rank = MergeTable::kNoRank;
  if (left.next != kNone) nodes_[left.next].previous = position;
  if (left.previous != kNone) FindMerge(left.previous);
  FindMerge(position);
  return gone;
}

void WindowMerger::FindMerge(std::uint32_t position) {
  Node& left = nodes_[position];
  const MergeTable::Merge merge = left.next == kNone ? MergeTable::Merge{} : table_.Find(left.id, nodes_[left.next].id);
  left.rank = merge.rank;
  left.merged_id = merge.merged_id;
}

// The first of all pairs is the first of the blocks' firsts. No branch here depends on which pair it is: those of a
// heap are mispredicted so often that this is most of its time.
void WindowMerger::MergeInBlocks() {
  const auto size = static_cast<std::uint32_t>(nodes_.size());
  const std::uint32_t num_blocks = (size + kBlock - 1) / kBlock;
  for (std::uint32_t i = 0; i < num_blocks * kBlock; ++i) {
    candidates_[i] = CandidateOf(i < size ? nodes_[i].rank : MergeTable::kNoRank, i);
  }
  for (std::uint32_t block = 0; block < num_blocks; ++block) FindFirstOfBlock(block);
  while (true) {
    const std::uint64_t first = *std::min_element(firsts_.begin(), firsts_.begin() + num_blocks);
    if (RankOf(first) == MergeTable::kNoRank) return;
    const std::uint32_t position = PositionOf(first);
    const std::uint32_t gone = MergeAt(position);
    const std::uint32_t previous = nodes_[position].previous == kNone ? position : nodes_[position].previous;
    for (const std::uint32_t changed : {previous, position, gone}) {
      candidates_[changed] = CandidateOf(nodes_[changed].rank, changed);
    }
    const std::uint32_t block = position / kBlock;
    FindFirstOfBlock(block);
    if (gone / kBlock != block) FindFirstOfBlock(gone / kBlock);
    if (previous / kBlock != block) FindFirstOfBlock(previous / kBlock);
  }
}

void WindowMerger::FindFirstOfBlock(std::uint32_t block) {
  const std::uint64_t* candidates = &candidates_[block * std::size_t{kBlock}];
  // Four minima at once, so that none waits for the one before.
  std::uint64_t first[4] = {candidates[0], candidates[1], candidates[2], candidates[3]};
  for (std::uint32_t i = 4; i < kBlock; i += 4) {
    for (std::uint32_t j = 0; j < 4; ++j) first[j] = std::min(first[j], candidates[i + j]);
  }
  firsts_[block] = std::min(std::min(first[0], first[1]), std::min(first[2], first[3]));
}

void WindowMerger::MergeWithHeap() {
  heap_.clear();
  for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].rank != MergeTable::kNoRank) heap_.push_back(CandidateOf(nodes_[i].rank, i));
  }
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  while (!heap_.empty()) {
    const std::uint64_t first = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    heap_.pop_back();
    if (IsStale(first)) continue;
    const std::uint32_t position = PositionOf(first);
    MergeAt(position);
    if (nodes_[position].previous != kNone) PushCandidate(nodes_[position].previous);
    PushCandidate(position);
  }
}

void WindowMerger::PushCandidate(std::uint32_t position) {
  if (nodes_[position].rank == MergeTable::kNoRank) return;
  heap_.push_back(CandidateOf(nodes_[position].rank, position));
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

// Whether the pair has changed since. The reference goes on if it still makes the same token, at the old rank: that can
// only be where a token was merged and stayed as it was, for all others have become longer.
bool WindowMerger::IsStale(std::uint64_t candidate) const {
  const Node& left = nodes_[PositionOf(candidate)];
  if (left.rank == RankOf(candidate)) return false;
  if (left.rank == MergeTable::kNoRank || !table_.keeps_left()) return true;
  return table_.MergedId(RankOf(candidate)) != left.merged_id;
}

}  // namespace cadre
