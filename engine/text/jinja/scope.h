#ifndef CADRE_ENGINE_TEXT_JINJA_SCOPE_H_
#define CADRE_ENGINE_TEXT_JINJA_SCOPE_H_

#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// The variables of a loop's turn, a macro's call or a block, inside those of what is around it. Names belong to the
// template, which outlives all scopes.
class Scope {
 public:
  explicit Scope(std::shared_ptr<const Scope> parent) : parent_(std::move(parent)) {}

  // Null when neither this scope nor one around it has the variable.
  const Value* Find(std::string_view name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->parent_.get()) {
      const auto found = std::find_if(scope->variables_.begin(), scope->variables_.end(),
                                      [name](const auto& variable) { return variable.first == name; });
      if (found != scope->variables_.end()) return &found->second;
    }
    return nullptr;
  }

  // In this scope, whatever the ones around it have.
  void Set(std::string_view name, Value value) {
    for (auto& [known, place] : variables_) {
      if (known != name) continue;
      place = std::move(value);
      return;
    }
    variables_.emplace_back(name, std::move(value));
  }

  void Clear() { variables_.clear(); }

 private:
  const std::shared_ptr<const Scope> parent_;
  std::vector<std::pair<std::string_view, Value>> variables_;
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_SCOPE_H_
