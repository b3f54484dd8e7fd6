#include "engine/text/json_fields.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/utf8.h"

namespace cadre {
absl::StatusOr<JsonFields> JsonFields::Open(const nlohmann::json& value, std::string where) {
  if (!value.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(where, " is ", value.type_name(), ", not an object"));
  }
  return JsonFields(value, std::move(where));
}

const nlohmann::json* JsonFields::Find(std::string_view name) const {
  const auto member = object_->find(name);
  return member == object_->end() || member->is_null() ? nullptr : &*member;
}

absl::StatusOr<const nlohmann::json*> JsonFields::Require(std::string_view name) const {
  const nlohmann::json* member = Find(name);
  if (member == nullptr) return Invalid(absl::StrCat("has no ", Quoted(name)));
  return member;
}

absl::StatusOr<bool> JsonFields::Bool(std::string_view name) const {
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json* member, Require(name));
  if (!member->is_boolean()) return Invalid(absl::StrCat(Quoted(name), " is not a boolean"));
  return member->get<bool>();
}

absl::StatusOr<std::string_view> JsonFields::String(std::string_view name) const {
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json* member, Require(name));
  if (!member->is_string()) return Invalid(absl::StrCat(Quoted(name), " is not a string"));
  return std::string_view(member->get_ref<const std::string&>());
}

absl::StatusOr<std::string_view> JsonFields::Character(std::string_view name) const {
  CADRE_ASSIGN_OR_RETURN(const std::string_view text, String(name));
  if (CountCodePoints(text) != 1) return Invalid(absl::StrCat(Quoted(name), " is not one character"));
  return text;
}

absl::StatusOr<int> JsonFields::Integer(std::string_view name, int max) const {
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json* member, Require(name));
  if (!member->is_number_unsigned() || member->get<std::uint64_t>() > static_cast<std::uint64_t>(max)) {
    return Invalid(absl::StrCat(Quoted(name), " is not a whole number from 0 to ", max));
  }
  return member->get<int>();
}

absl::StatusOr<bool> JsonFields::BoolOr(std::string_view name, bool fallback) const {
  return Find(name) == nullptr ? absl::StatusOr<bool>(fallback) : Bool(name);
}

absl::StatusOr<std::optional<std::string_view>> JsonFields::OptionalString(std::string_view name) const {
  if (Find(name) == nullptr) return std::optional<std::string_view>();
  CADRE_ASSIGN_OR_RETURN(const std::string_view text, String(name));
  return std::optional<std::string_view>(text);
}

absl::Status JsonFields::RefuseOthers(std::initializer_list<std::string_view> known) const {
  for (const auto& member : object_->items()) {
    if (std::find(known.begin(), known.end(), member.key()) == known.end()) {
      return Unsupported(absl::StrCat("option ", Quoted(member.key()), " is not supported"));
    }
  }
  return absl::OkStatus();
}

absl::Status JsonFields::Invalid(std::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(where_, ": ", ToAbsl(what)));
}

absl::Status JsonFields::Unsupported(std::string_view what) const {
  return absl::UnimplementedError(absl::StrCat(where_, ": ", ToAbsl(what)));
}

absl::Status ForEachComponent(const JsonFields& fields, std::string_view name,
                              const std::function<absl::Status(const nlohmann::json&, std::string)>& visit) {
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json* components, fields.Require(name));
  if (!components->is_array()) return fields.Invalid(absl::StrCat(Quoted(name), " is not an array"));
  for (std::size_t i = 0; i < components->size(); ++i) {
    CADRE_RETURN_IF_ERROR(visit((*components)[i], absl::StrCat(fields.where(), ".", ToAbsl(name), "[", i, "]")));
  }
  return absl::OkStatus();
}

absl::Status AtPlace(const absl::Status& status, std::string_view where) {
  return status.ok() ? status : absl::Status(status.code(), absl::StrCat(ToAbsl(where), ": ", status.message()));
}

}  // namespace cadre
