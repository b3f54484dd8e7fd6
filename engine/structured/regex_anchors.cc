#include "engine/structured/regex_anchors.h"

#include <algorithm>
#include <utility>

#include "engine/base/status_macros.h"

namespace cadre {
namespace {

using Kind = RegexNode::Kind;
using NodePtr = std::unique_ptr<RegexNode>;

NodePtr AnyText() {
  auto character = std::make_unique<RegexNode>();
  character->kind = Kind::kSet;
  character->set = CodePointSet::All();
  auto repeat = std::make_unique<RegexNode>();
  repeat->kind = Kind::kRepeat;
  repeat->children.push_back(std::move(character));
  return repeat;
}

bool HasAnchor(const RegexNode& node) {
  if (node.kind == Kind::kStartAnchor || node.kind == Kind::kEndAnchor) return true;
  return std::any_of(node.children.begin(), node.children.end(),
                     [](const NodePtr& child) { return HasAnchor(*child); });
}

// Removes the anchors of `kind` from the front (or, with kEndAnchor, the back) of a row; whether there was one.
bool TakeAnchors(Kind kind, std::vector<NodePtr>* row) {
  bool found = false;
  while (!row->empty() && (kind == Kind::kStartAnchor ? row->front() : row->back())->kind == kind) {
    row->erase(kind == Kind::kStartAnchor ? row->begin() : row->end() - 1);
    found = true;
  }
  return found;
}

// What is on one side of a part of the expression.
enum class Side {
  kInside,    // more of the expression: an anchor there is refused
  kAnchored,  // the end of the text: an anchor there changes nothing
  kOpen,      // any text, unless there is an anchor
};

bool IsGroup(const RegexNode& node) { return node.kind == Kind::kAlternate || node.kind == Kind::kConcat; }

absl::Status Resolve(Side front, Side back, RegexNode* node) {
  if (node->kind == Kind::kAlternate) {
    for (const NodePtr& child : node->children) CADRE_RETURN_IF_ERROR(Resolve(front, back, child.get()));
    return absl::OkStatus();
  }
  if (node->kind != Kind::kConcat) {
    auto only = std::make_unique<RegexNode>(std::move(*node));
    *node = RegexNode();
    node->children.push_back(std::move(only));
  }
  std::vector<NodePtr>& row = node->children;
  if (front != Side::kInside && TakeAnchors(Kind::kStartAnchor, &row)) front = Side::kAnchored;
  if (back != Side::kInside && TakeAnchors(Kind::kEndAnchor, &row)) back = Side::kAnchored;
  if (row.size() == 1 && IsGroup(*row[0])) return Resolve(front, back, row[0].get());
  if (row.size() > 1 && IsGroup(*row.front())) {
    CADRE_RETURN_IF_ERROR(Resolve(front, Side::kInside, row.front().get()));
    front = Side::kInside;
  }
  if (row.size() > 1 && IsGroup(*row.back())) {
    CADRE_RETURN_IF_ERROR(Resolve(Side::kInside, back, row.back().get()));
    back = Side::kInside;
  }
  if (HasAnchor(*node)) return absl::UnimplementedError("an anchor ^ or $ inside the expression is not supported");
  if (front == Side::kOpen) row.insert(row.begin(), AnyText());
  if (back == Side::kOpen) row.push_back(AnyText());
  return absl::OkStatus();
}

}  // namespace

absl::Status ResolveAnchors(RegexExtent extent, RegexNode* tree) {
  const Side front = extent == RegexExtent::kSearch ? Side::kOpen : Side::kAnchored;
  const Side back = extent == RegexExtent::kWholeText ? Side::kAnchored : Side::kOpen;
  return Resolve(front, back, tree);
}

}  // namespace cadre
