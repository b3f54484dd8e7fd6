#include "engine/text/byte_trie.h"

namespace cadre {

bool ByteTrie::Add(std::string_view text, int value) {
  int node = kRoot;
  for (const char byte : text) {
    const auto [child, is_new] = children_.try_emplace(Key(node, byte), num_nodes());
    if (is_new) nodes_.push_back({kNone, depth(node) + 1, node, byte});
    node = child->second;
  }
  int& slot = nodes_[static_cast<std::size_t>(node)].value;
  if (slot != kNone) return false;
  slot = value;
  return true;
}

}  // namespace cadre
