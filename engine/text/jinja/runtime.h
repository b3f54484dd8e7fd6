#ifndef CADRE_ENGINE_TEXT_JINJA_RUNTIME_H_
#define CADRE_ENGINE_TEXT_JINJA_RUNTIME_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/text/jinja/limits.h"
#include "engine/text/jinja/object.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// What one rendering has and may use: its budget, its objects, its clock. Filters, tests, methods and objects are
// handed one. One thread.
//
// Errors of everything that takes a runtime: INVALID_ARGUMENT is what raise_exception says; RESOURCE_EXHAUSTED names a
// limit; FAILED_PRECONDITION is everything else that a template does wrong, as a sentence without the line.
class Runtime {
 public:
  Runtime(const RenderLimits& limits, absl::Time now, absl::TimeZone time_zone)
      : limits_(limits), now_(now), time_zone_(time_zone), steps_left_(limits.steps) {}

  const RenderLimits& limits() const { return limits_; }
  absl::Time now() const { return now_; }
  absl::TimeZone time_zone() const { return time_zone_; }

  // Takes `steps` from the budget.
  absl::Status Charge(std::size_t steps);
  // Takes what reading or writing so many bytes of text costs.
  absl::Status ChargeBytes(std::size_t bytes) { return Charge(1 + bytes / kBytesPerStep); }
  // Takes what looking at each character of so many bytes of text costs, as changing their case does.
  absl::Status ChargeCharacters(std::size_t bytes) { return Charge(1 + bytes / kCharactersPerStep); }
  // Takes what walking through all of `value` costs, to print it or to find it among keys.
  absl::Status ChargeWalk(const Value& value);
  // Takes what comparing `a` with `b` costs.
  absl::Status ChargeComparison(const Value& a, const Value& b);
  // Refuses a text that would be longer than the output may be. Ask before making it.
  absl::Status CheckSize(std::size_t bytes) const;
  // Both, for a new string.
  absl::StatusOr<Value> NewString(Text text);

  // One more level of evaluation; LeaveLevel when it is left, also where this fails.
  absl::Status EnterLevel();
  void LeaveLevel() { --depth_; }

  // An object that lives as long as this runtime.
  template <typename T, typename... Args>
  T* New(Args&&... args) {
    auto object = std::make_unique<T>(std::forward<Args>(args)...);
    T* const pointer = object.get();
    objects_.push_back(std::move(object));
    return pointer;
  }

 private:
  static constexpr std::size_t kBytesPerStep = 64;
  static constexpr std::size_t kCharactersPerStep = 16;

  const RenderLimits limits_;
  const absl::Time now_;
  const absl::TimeZone time_zone_;
  std::int64_t steps_left_;
  int depth_ = 0;
  std::vector<std::unique_ptr<Object>> objects_;
};

// A level of evaluation for as long as it lives.
class Level {
 public:
  explicit Level(Runtime* runtime) : runtime_(*runtime), status_(runtime->EnterLevel()) {}
  ~Level() { runtime_.LeaveLevel(); }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;
  const absl::Status& status() const { return status_; }

 private:
  Runtime& runtime_;
  const absl::Status status_;
};

// The error of a template that does what it may not: FAILED_PRECONDITION.
absl::Status Fail(const std::string& message);
// The error of using an undefined value.
absl::Status UndefinedError(const Value& value);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_RUNTIME_H_
