// Checked access to the fields of a JSON object that comes from outside.
#ifndef CADRE_ENGINE_MODEL_CONFIG_READER_H_
#define CADRE_ENGINE_MODEL_CONFIG_READER_H_

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace cadre {

// Reads fields one after the other and remembers the first thing that is wrong, so that the code that reads twenty
// fields looks like a list of twenty fields. After an error every getter still returns a value inside its range; the
// caller asks status() before it trusts any. A field that is null counts as absent. Keeps references to its arguments.
class ConfigReader {
 public:
  // `what` opens every message: "config.json" or "config.json: rope_parameters". INVALID_ARGUMENT unless `object` is a
  // JSON object.
  ConfigReader(const nlohmann::json& object, std::string what);

  const absl::Status& status() const { return status_; }
  // Records an error found by the caller, unless there is one already; the message gets the prefix `what`.
  void Fail(absl::StatusCode code, std::string_view reason);

  bool Has(std::string_view key) const { return Find(key) != nullptr; }
  // The value of `key` on one line of at most a hundred characters, for messages; "absent" when there is none.
  std::string Show(std::string_view key) const;

  // A whole number of [min, max]. Several keys are names of one field: files that give two of them must agree.
  // Without `fallback` the field is required.
  int64_t Int(std::initializer_list<std::string_view> keys, int64_t min, int64_t max,
              std::optional<int64_t> fallback = std::nullopt);
  // A finite number of [min, max].
  double Number(std::string_view key, double min, double max, std::optional<double> fallback = std::nullopt);
  bool Bool(std::string_view key, bool fallback);
  std::string String(std::string_view key, std::string_view fallback);
  // A list of at most `max_size` whole numbers of [min, max]; empty when absent. With `or_single`, one number is a list
  // of one.
  std::vector<int64_t> IntList(std::string_view key, int64_t min, int64_t max, size_t max_size, bool or_single = false);
  // The object under `key`; an empty one when absent.
  const nlohmann::json& Object(std::string_view key);

 private:
  const nlohmann::json* Find(std::string_view key) const;
  void FailValue(std::string_view key, const nlohmann::json& value, std::string_view expected);
  std::optional<int64_t> CheckedInt(std::string_view key, const nlohmann::json& value, int64_t min, int64_t max);

  const nlohmann::json& object_;
  const std::string what_;
  absl::Status status_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_CONFIG_READER_H_
