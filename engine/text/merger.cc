#include "engine/text/merger.h"

#include <algorithm>

namespace cadre {
namespace {

// Up to here it is fastest to look at every pair.
constexpr std::size_t kMaxShort = 16;
// Symbols that a window repeats at first, and how many times as long it is.
constexpr std::size_t kOverlap = 32;
constexpr std::size_t kWindowPerOverlap = 8;

}  // namespace

void Merger::Merge(std::span<const std::int32_t> symbols, std::vector<std::int32_t>* ids) {
  if (symbols.size() == 1) {
    ids->push_back(symbols[0]);
    return;
  }
  // Where tokens can stay as they are, pairs that are out of date count: see WindowMerger.
  if (symbols.size() <= kMaxShort && !table_.keeps_left()) {
    MergeShort(symbols, ids);
  } else {
    MergeLong(symbols, ids);
  }
}

void Merger::MergeShort(std::span<const std::int32_t> symbols, std::vector<std::int32_t>* ids) const {
  std::int32_t tokens[kMaxShort];
  MergeTable::Merge merges[kMaxShort];  // of each token with the next
  std::size_t size = symbols.size();
  std::copy(symbols.begin(), symbols.end(), tokens);
  for (std::size_t i = 0; i + 1 < size; ++i) merges[i] = table_.Find(tokens[i], tokens[i + 1]);
  while (size > 1) {
    const auto* first = std::min_element(merges, merges + size - 1,
                                         [](const auto& left, const auto& right) { return left.rank < right.rank; });
    if (first->rank == MergeTable::kNoRank) break;
    const auto i = static_cast<std::size_t>(first - merges);
    tokens[i] = first->merged_id;
    std::copy(tokens + i + 2, tokens + size, tokens + i + 1);
    std::copy(merges + i + 1, merges + size - 1, merges + i);
    --size;
    if (i > 0) merges[i - 1] = table_.Find(tokens[i - 1], tokens[i]);
    if (i + 1 < size) merges[i] = table_.Find(tokens[i], tokens[i + 1]);
  }
  ids->insert(ids->end(), tokens, tokens + size);
}

void Merger::MergeLong(std::span<const std::int32_t> symbols, std::vector<std::int32_t>* ids) {
  is_begin_.assign(symbols.size(), false);
  std::size_t end = 0;  // of the symbols whose tokens stand in `ids`
  std::size_t overlap = kOverlap;
  while (end < symbols.size()) {
    ReachBack(end, overlap, *ids);
    const std::size_t begin = tail_.empty() ? 0 : tail_.front().begin;
    // The tail may be longer, for a token may be: a window adds seven times as much as it repeats.
    overlap = std::max(overlap, end - begin);
    const std::size_t window_end = std::min(symbols.size(), begin + kWindowPerOverlap * overlap);
    window_merger_.Merge(symbols.subspan(begin, window_end - begin), &window_);
    for (Token& token : window_) token.begin += static_cast<std::uint32_t>(begin);
    if (Join(end, window_end, ids)) {
      end = window_end;
      overlap = kOverlap;
    } else {
      overlap *= 2;
    }
  }
}

// Sets tail_ to the last tokens, so many that they are of `overlap` symbols or of all, which end at `end`.
void Merger::ReachBack(std::size_t end, std::size_t overlap, const std::vector<std::int32_t>& ids) {
  tail_.clear();
  std::size_t begin = end;
  while (begin > 0 && end - begin < overlap) {
    do {
      --begin;
    } while (!is_begin_[begin]);
    tail_.push_back({ids[ids.size() - 1 - tail_.size()], static_cast<std::uint32_t>(begin)});
  }
  std::reverse(tail_.begin(), tail_.end());
}

// Lets the window take over from the first token that it shares with the tail. False when there is none.
bool Merger::Join(std::size_t end, std::size_t window_end, std::vector<std::int32_t>* ids) {
  const auto end_of = [](const std::vector<Token>& tokens, std::size_t i, std::size_t end_of_last) {
    return i + 1 < tokens.size() ? tokens[i + 1].begin : end_of_last;
  };
  std::size_t kept = 0;  // tokens of the tail that stay
  std::size_t next = 0;  // token of the window that follows them
  // The window that begins where the piece does needs no tail: it is all there is.
  const bool is_whole = tail_.empty() || tail_.front().begin == 0;
  while (!is_whole) {
    if (kept == tail_.size() || next == window_.size()) return false;
    const Token& old_token = tail_[kept];
    const Token& new_token = window_[next];
    const bool are_of_same_symbols =
        old_token.begin == new_token.begin && end_of(tail_, kept, end) == end_of(window_, next, window_end);
    if (are_of_same_symbols) break;
    if (old_token.begin <= new_token.begin) ++kept;
    if (new_token.begin <= old_token.begin) ++next;
  }
  for (std::size_t i = kept; i < tail_.size(); ++i) is_begin_[tail_[i].begin] = false;
  ids->resize(ids->size() - (tail_.size() - kept));
  for (; next < window_.size(); ++next) {
    is_begin_[window_[next].begin] = true;
    ids->push_back(window_[next].id);
  }
  return true;
}

}  // namespace cadre
