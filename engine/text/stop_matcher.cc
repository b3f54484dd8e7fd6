#include "engine/text/stop_matcher.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/text/utf8.h"

namespace cadre {

StopMatcher::StopMatcher(std::vector<std::string> stop_strings, bool include_stop_string)
    : stop_strings_(std::move(stop_strings)), include_stop_string_(include_stop_string) {
  for (std::size_t i = 0; i < stop_strings_.size(); ++i) {
    if (!stop_strings_[i].empty()) trie_.Add(stop_strings_[i], static_cast<int>(i));
  }
  // A state's suffixes are shorter than it is, so going by length finds them done.
  std::vector<int> states(static_cast<std::size_t>(trie_.num_nodes()));
  std::iota(states.begin(), states.end(), 0);
  std::stable_sort(states.begin(), states.end(), [this](int a, int b) { return trie_.depth(a) < trie_.depth(b); });
  fail_.assign(states.size(), ByteTrie::kRoot);
  match_.assign(states.size(), ByteTrie::kNone);
  for (const int state : states) {
    const auto slot = static_cast<std::size_t>(state);
    if (trie_.depth(state) > 1) {
      fail_[slot] = Next(fail_[static_cast<std::size_t>(trie_.parent(state))], trie_.last_byte(state));
    }
    match_[slot] =
        trie_.value(state) != ByteTrie::kNone ? trie_.value(state) : match_[static_cast<std::size_t>(fail_[slot])];
  }
}

int StopMatcher::Next(int state, char byte) const {
  while (true) {
    const int child = trie_.Child(state, byte);
    if (child != ByteTrie::kNone) return child;
    if (state == ByteTrie::kRoot) return ByteTrie::kRoot;
    state = fail_[static_cast<std::size_t>(state)];
  }
}

StopMatcher::Result StopMatcher::Append(std::string_view text) {
  if (is_stopped_) return {};
  const std::size_t num_held = held_.size();
  held_ += text;
  for (std::size_t position = num_held; position < held_.size(); ++position) {
    state_ = Next(state_, held_[position]);
    const int match = match_[static_cast<std::size_t>(state_)];
    if (match == ByteTrie::kNone) continue;
    const std::string& stop_string = stop_strings_[static_cast<std::size_t>(match)];
    held_.resize(position + 1 - (include_stop_string_ ? 0 : stop_string.size()));
    is_stopped_ = true;
    return {std::exchange(held_, {}), stop_string};
  }
  const auto num_in_match = static_cast<std::size_t>(trie_.depth(state_));
  std::size_t num_sent = held_.size() - std::max(num_in_match, IncompleteSuffixSize(held_));
  Result result{held_.substr(0, num_sent), std::nullopt};
  held_.erase(0, num_sent);
  return result;
}

std::string StopMatcher::Flush() { return is_stopped_ ? std::string() : std::exchange(held_, {}); }

}  // namespace cadre
