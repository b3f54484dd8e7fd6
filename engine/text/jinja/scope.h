#ifndef CADRE_ENGINE_TEXT_JINJA_SCOPE_H_
#define CADRE_ENGINE_TEXT_JINJA_SCOPE_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// The variables of a loop's turn, a macro's call or a block, inside those of what is around it in the template: scopes
// are no deeper inside each other than its statements, however often one is called. Names belong to the template, which
// outlives all scopes.
class Scope {
 public:
  explicit Scope(std::shared_ptr<const Scope> parent) : parent_(std::move(parent)) {}

  // Null when neither this scope nor one around it has the variable.
  const Value* Find(std::string_view name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->parent_.get()) {
      if (const std::optional<std::size_t> place = scope->PlaceOf(name); place.has_value()) {
        return &scope->variables_[*place].second;
      }
    }
    return nullptr;
  }

  // In this scope, whatever the ones around it have.
  void Set(std::string_view name, Value value) {
    if (const std::optional<std::size_t> place = PlaceOf(name); place.has_value()) {
      variables_[*place].second = std::move(value);
      return;
    }
    variables_.emplace_back(name, std::move(value));
    if (variables_.size() <= kFew) return;
    for (std::size_t i = index_.size(); i < variables_.size(); ++i) index_.emplace(variables_[i].first, i);
  }

  void Clear() {
    variables_.clear();
    index_.clear();
  }

 private:
  // Most scopes have less than this, and need no index.
  static constexpr std::size_t kFew = 16;

  std::optional<std::size_t> PlaceOf(std::string_view name) const {
    if (variables_.size() > kFew) {
      const auto found = index_.find(name);
      return found == index_.end() ? std::nullopt : std::optional<std::size_t>(found->second);
    }
    for (std::size_t i = 0; i < variables_.size(); ++i) {
      if (variables_[i].first == name) return i;
    }
    return std::nullopt;
  }

  const std::shared_ptr<const Scope> parent_;
  std::vector<std::pair<std::string_view, Value>> variables_;
  absl::flat_hash_map<std::string_view, std::size_t> index_;  // of all variables, when they are more than a few
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_SCOPE_H_
