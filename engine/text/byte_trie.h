#ifndef CADRE_ENGINE_TEXT_BYTE_TRIE_H_
#define CADRE_ENGINE_TEXT_BYTE_TRIE_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace cadre {

// A set of byte strings as a tree of their prefixes. Nodes are numbered in the order of their creation, the root is 0;
// a node's number is larger than its parent's.
class ByteTrie {
 public:
  static constexpr int kRoot = 0;
  static constexpr int kNone = -1;

  // Adds `text` with the given value (>= 0). False, and nothing is changed, when it was added before.
  bool Add(std::string_view text, int value);

  // The node one byte further, or kNone.
  int Child(int node, char byte) const {
    const auto child = children_.find(Key(node, byte));
    return child == children_.end() ? kNone : child->second;
  }

  // The value of the text that ends at `node`, or kNone.
  int value(int node) const { return nodes_[static_cast<std::size_t>(node)].value; }
  // Length in bytes of the prefix that `node` stands for.
  int depth(int node) const { return nodes_[static_cast<std::size_t>(node)].depth; }
  // The node one byte shorter, and the byte between them. REQUIRES: node is not the root.
  int parent(int node) const { return nodes_[static_cast<std::size_t>(node)].parent; }
  char last_byte(int node) const { return nodes_[static_cast<std::size_t>(node)].last_byte; }

  int num_nodes() const { return static_cast<int>(nodes_.size()); }
  bool is_empty() const { return num_nodes() == 1 && value(kRoot) == kNone; }

 private:
  struct Node {
    int value = kNone;
    int depth = 0;
    int parent = kNone;
    char last_byte = 0;
  };

  static std::uint64_t Key(int node, char byte) {
    return static_cast<std::uint64_t>(node) << 8 | static_cast<std::uint8_t>(byte);
  }

  std::vector<Node> nodes_ = std::vector<Node>(1);
  absl::flat_hash_map<std::uint64_t, int> children_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_BYTE_TRIE_H_
