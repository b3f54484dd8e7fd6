// Regular expressions as trees, and the text they are written in.
#ifndef CADRE_ENGINE_STRUCTURED_REGEX_TREE_H_
#define CADRE_ENGINE_STRUCTURED_REGEX_TREE_H_

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/structured/code_point_set.h"

namespace cadre {

inline constexpr size_t kMaxRegexBytes = 32 << 10;
inline constexpr int kMaxRegexDepth = 100;     // groups within groups
inline constexpr int kMaxRegexRepeat = 10000;  // the largest number in {m,n}

struct RegexNode {
  enum class Kind {
    kSet,          // one character of `set`
    kConcat,       // all children in a row; without children, the empty text
    kAlternate,    // one of the children
    kRepeat,       // the only child, `min` to `max` times
    kStartAnchor,  // ^
    kEndAnchor,    // $
  };
  static constexpr int kNoMax = -1;

  Kind kind = Kind::kConcat;
  CodePointSet set = {};
  std::vector<std::unique_ptr<RegexNode>> children = {};
  int min = 0;
  int max = kNoMax;
};

// What the expression is compared with.
enum class RegexExtent {
  kWholeText,  // anchors at the ends change nothing
  kSearch,     // any part of the text, unless anchored: what JSON Schema's `pattern` means
  kBeginning,  // the beginning of the text, unless anchored at its end: what a look-ahead at its start means
};

// What must or must not stand at the beginning of the text.
struct LookAhead {
  std::unique_ptr<RegexNode> tree;  // for the whole text
  bool is_negative = false;
};

struct RegexTree {
  std::unique_ptr<RegexNode> tree;
  std::vector<LookAhead> look_aheads = {};  // all of them hold
};

// The tree of `pattern`, without anchors, for the whole text: with kSearch, `.*` over all characters stands where no
// anchor does. The syntax is the common part of ECMAScript, Python and Rust expressions: see README.md. Lazy
// quantifiers mean the same language as greedy ones. Look-aheads at the start of the text, (?=...) and (?!...), stand
// beside the tree.
//
// InvalidArgument, with the offset, for a syntax error. Unimplemented for what some dialect knows and is not supported
// here (other look-around, back-references, word boundaries, flags, properties, possessive quantifiers), by name.
absl::StatusOr<RegexTree> ParseRegex(std::string_view pattern, RegexExtent extent);

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_REGEX_TREE_H_
