#ifndef CADRE_ENGINE_TEXT_JSON_FIELDS_H_
#define CADRE_ENGINE_TEXT_JSON_FIELDS_H_

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace cadre {

// The members of one JSON object of a tokenizer file, read by name and type. Every error says where: `where` is the
// path of the object ("tokenizer.json: pre_tokenizer[1]"). Borrows the
// object, and lends its strings.
class JsonFields {
 public:
  // InvalidArgument unless `value` is an object.
  static absl::StatusOr<JsonFields> Open(const nlohmann::json& value, std::string where);

  const std::string& where() const { return where_; }

  // The member, or nullptr when it is absent or null.
  const nlohmann::json* Find(std::string_view name) const;

  // InvalidArgument when the member is absent, null or of another type.
  absl::StatusOr<const nlohmann::json*> Require(std::string_view name) const;
  absl::StatusOr<bool> Bool(std::string_view name) const;
  absl::StatusOr<std::string_view> String(std::string_view name) const;
  // A string of exactly one character.
  absl::StatusOr<std::string_view> Character(std::string_view name) const;
  // A whole number from 0 to `max`.
  absl::StatusOr<int> Integer(std::string_view name, int max) const;

  // The default when the member is absent or null; InvalidArgument when it is of another type.
  absl::StatusOr<bool> BoolOr(std::string_view name, bool fallback) const;
  absl::StatusOr<std::optional<std::string_view>> OptionalString(std::string_view name) const;

  // Unimplemented, by name, when there is a member that is not among `known`: an option we do not know could change
  // every token id.
  absl::Status RefuseOthers(std::initializer_list<std::string_view> known) const;

  // An error about this object, or about one of its members.
  absl::Status Invalid(std::string_view what) const;
  absl::Status Unsupported(std::string_view what) const;

 private:
  JsonFields(const nlohmann::json& object, std::string where) : object_(&object), where_(std::move(where)) {}

  const nlohmann::json* object_;
  std::string where_;
};

// The most components one stage (normalizer, pre-tokenizer, ...) may be made of, with its sequences opened up.
inline constexpr std::size_t kMaxComponents = 64;

// Calls `visit` with each element of the array `name`, and with the element's path, until one call fails.
absl::Status ForEachComponent(const JsonFields& fields, std::string_view name,
                              const std::function<absl::Status(const nlohmann::json&, std::string)>& visit);

// `status` with the place in front of its message.
absl::Status AtPlace(const absl::Status& status, std::string_view where);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_JSON_FIELDS_H_
