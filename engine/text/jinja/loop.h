#ifndef CADRE_ENGINE_TEXT_JINJA_LOOP_H_
#define CADRE_ENGINE_TEXT_JINJA_LOOP_H_

#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/jinja/object.h"

namespace cadre::jinja {

// The variable `loop` of a for statement: index, index0, revindex, revindex0, first, last, length, depth, depth0,
// previtem, nextitem, cycle(...) and changed(...).
class Loop : public Object {
 public:
  // `depth` says how many loops of the same statement are around this one.
  Loop(std::vector<Value> items, int depth) : items_(std::move(items)), depth_(depth) {}

  const std::vector<Value>& items() const { return items_; }
  int depth() const { return depth_; }
  void MoveTo(std::size_t turn) { turn_ = turn; }

  std::string_view TypeName() const override { return "LoopContext"; }
  std::optional<Value> Attribute(std::string_view name) override;
  absl::StatusOr<std::optional<Value>> CallMethod(Runtime& runtime, std::string_view name,
                                                  const Arguments& arguments) override;

 private:
  const std::vector<Value> items_;
  const int depth_;
  std::size_t turn_ = 0;
  std::optional<std::vector<Value>> last_changed_;
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_LOOP_H_
