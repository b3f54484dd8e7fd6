#include "engine/structured/call_stacks.h"

#include <algorithm>

namespace cadre {
namespace {

// What a set and its entries in the tables take beside its frames, about.
constexpr int64_t kSetOverheadBytes = 120;
constexpr int64_t kMemoBytes = 24;

}  // namespace

CallStacks::CallStacks(StepMeter* meter) : meter_(*meter) { Intern({{kRootMark, kNone}}); }

int32_t CallStacks::Intern(std::vector<Frame> frames) {
  const auto [found, is_new] = ids_.try_emplace(frames, static_cast<int32_t>(sets_.size()));
  if (!is_new) return found->second;
  Set set = {.frames = {}, .min_depth = INT32_MAX, .max_depth = 0};
  for (const auto& [frame, below] : frames) {
    const bool is_mark = IsMark(frame);
    set.min_depth = std::min(set.min_depth, is_mark ? 0 : 1 + sets_[static_cast<size_t>(below)].min_depth);
    set.max_depth = std::max(set.max_depth, is_mark ? 0 : 1 + sets_[static_cast<size_t>(below)].max_depth);
  }
  memory_bytes_ += kSetOverheadBytes + 2 * std::ssize(frames) * int64_t{sizeof(Frame)};
  set.frames = std::move(frames);
  sets_.push_back(std::move(set));
  return found->second;
}

int32_t CallStacks::Union(int32_t a, int32_t b) {
  if (a == b || b == kNone) return a;
  if (a == kNone) return b;
  const std::pair<int32_t, int32_t> key = std::minmax(a, b);
  if (const auto found = unions_.find(key); found != unions_.end()) return found->second;
  if (is_stuck()) return a;
  // Copies: sets are made while they are read.
  const std::vector<Frame> left = sets_[static_cast<size_t>(a)].frames;
  const std::vector<Frame> right = sets_[static_cast<size_t>(b)].frames;
  meter_.Add(std::ssize(left) + std::ssize(right));
  std::vector<Frame> merged;
  for (size_t i = 0, j = 0; i < left.size() || j < right.size();) {
    if (j == right.size() || (i < left.size() && left[i].first < right[j].first)) {
      merged.push_back(left[i++]);
    } else if (i == left.size() || right[j].first < left[i].first) {
      merged.push_back(right[j++]);
    } else {
      merged.emplace_back(left[i].first, Union(left[i].second, right[j].second));
      ++i;
      ++j;
    }
  }
  if (is_stuck()) return a;
  const int32_t id = Intern(std::move(merged));
  memory_bytes_ += kMemoBytes;
  unions_[key] = id;
  return id;
}

int32_t CallStacks::KeepShallow(int32_t stacks, int32_t max_depth) {
  if (stacks == kNone || sets_[static_cast<size_t>(stacks)].min_depth > max_depth) return kNone;
  if (sets_[static_cast<size_t>(stacks)].max_depth <= max_depth) return stacks;
  const std::pair<int32_t, int32_t> key = {stacks, max_depth};
  if (const auto found = shallow_.find(key); found != shallow_.end()) return found->second;
  if (is_stuck()) return stacks;
  const std::vector<Frame> frames = sets_[static_cast<size_t>(stacks)].frames;
  meter_.Add(std::ssize(frames));
  std::vector<Frame> kept;
  for (const auto& [frame, below] : frames) {
    const int32_t shallow = IsMark(frame) ? kNone : KeepShallow(below, max_depth - 1);
    if (IsMark(frame) || shallow != kNone) kept.emplace_back(frame, shallow);
  }
  if (is_stuck()) return stacks;
  const int32_t id = Intern(std::move(kept));
  memory_bytes_ += kMemoBytes;
  shallow_[key] = id;
  return id;
}

int32_t CallStacks::Import(const CallStacks& other, int32_t stacks, absl::flat_hash_map<int32_t, int32_t>* ids) {
  if (stacks == kNone) return kNone;
  if (const auto found = ids->find(stacks); found != ids->end()) return found->second;
  std::vector<Frame> frames(other.frames(stacks).begin(), other.frames(stacks).end());
  meter_.Add(std::ssize(frames));
  for (auto& [frame, below] : frames) below = Import(other, below, ids);
  const int32_t id = Intern(std::move(frames));
  (*ids)[stacks] = id;
  return id;
}

}  // namespace cadre
