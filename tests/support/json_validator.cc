#include "tests/support/json_validator.h"

#include <cmath>
#include <functional>
#include <map>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/text/regex.h"
#include "engine/text/utf8.h"

namespace cadre {
namespace {

using Json = nlohmann::ordered_json;

bool HasTypeName(const Json& value, const std::string& type) {
  if (type == "integer") return value.is_number() && value.get<double>() == std::floor(value.get<double>());
  const std::string name = value.type_name();
  return name == type;
}

bool Finds(const std::string& pattern, const std::string& text) {
  const absl::StatusOr<Regex> regex = Regex::CompilePcre2("(?-m)" + pattern);
  CADRE_CHECK(regex.ok());
  return !regex->FindAll(text)->empty();
}

class Validator {
 public:
  Validator(const Json& root, const Json& schema, const Json& value) : root_(root), schema_(schema), value_(value) {}

  std::string Run() {
    if (schema_.is_boolean()) return schema_ == true ? "" : "false";
    using Check = std::string (Validator::*)(const Json&);
    static const auto& checks = *new std::map<std::string, Check>{{"type", &Validator::Type},
                                                                  {"$ref", &Validator::Reference},
                                                                  {"enum", &Validator::Enum},
                                                                  {"const", &Validator::Const},
                                                                  {"allOf", &Validator::AllOf},
                                                                  {"anyOf", &Validator::AnyOf},
                                                                  {"oneOf", &Validator::OneOf},
                                                                  {"properties", &Validator::Properties},
                                                                  {"propertyNames", &Validator::PropertyNames},
                                                                  {"patternProperties", &Validator::PatternProperties},
                                                                  {"additionalProperties", &Validator::Additional},
                                                                  {"required", &Validator::Required},
                                                                  {"prefixItems", &Validator::PrefixItems},
                                                                  {"items", &Validator::Items},
                                                                  {"additionalItems", &Validator::AdditionalItems},
                                                                  {"pattern", &Validator::Pattern}};
    for (const auto& [keyword, argument] : schema_.items()) {
      std::string violation;
      if (const auto check = checks.find(keyword); check != checks.end()) {
        violation = (this->*check->second)(argument);
      } else {
        violation = Limit(keyword, argument);
      }
      if (!violation.empty()) return absl::StrCat(keyword, ": ", violation);
    }
    return "";
  }

 private:
  std::string Sub(const Json& schema, const Json& value) { return Validator(root_, schema, value).Run(); }
  static std::string Verdict(bool conforms) { return conforms ? "" : "no"; }

  std::string Type(const Json& types) {
    if (types.is_string()) return Verdict(HasTypeName(value_, types));
    for (const Json& type : types) {
      if (HasTypeName(value_, type)) return "";
    }
    return "no";
  }
  std::string Reference(const Json& reference) {
    const std::string text = reference;
    return Sub(root_.at(Json::json_pointer(text.substr(1))), value_);
  }
  std::string Enum(const Json& values) {
    for (const Json& value : values) {
      if (value == value_) return "";
    }
    return "no";
  }
  std::string Const(const Json& value) { return Verdict(value == value_); }
  int CountConforming(const Json& schemas) {
    int count = 0;
    for (const Json& schema : schemas) count += Sub(schema, value_).empty() ? 1 : 0;
    return count;
  }
  std::string AllOf(const Json& schemas) {
    return Verdict(CountConforming(schemas) == static_cast<int>(schemas.size()));
  }
  std::string AnyOf(const Json& schemas) { return Verdict(CountConforming(schemas) > 0); }
  std::string OneOf(const Json& schemas) { return Verdict(CountConforming(schemas) == 1); }

  std::string Properties(const Json& properties) {
    if (!value_.is_object()) return "";
    for (const auto& [name, schema] : properties.items()) {
      if (!value_.contains(name)) continue;
      if (std::string violation = Sub(schema, value_[name]); !violation.empty())
        return absl::StrCat(name, ": ", violation);
    }
    return "";
  }
  std::string PropertyNames(const Json& schema) {
    if (!value_.is_object()) return "";
    for (const auto& [name, member] : value_.items()) {
      if (!Sub(schema, Json(name)).empty()) return name;
    }
    return "";
  }
  std::string PatternProperties(const Json& patterns) {
    if (!value_.is_object()) return "";
    for (const auto& [pattern, schema] : patterns.items()) {
      for (const auto& [name, member] : value_.items()) {
        if (Finds(pattern, name) && !Sub(schema, member).empty()) return name;
      }
    }
    return "";
  }
  bool IsListed(const std::string& name) {
    if (schema_.contains("properties") && schema_["properties"].contains(name)) return true;
    if (!schema_.contains("patternProperties")) return false;
    for (const auto& [pattern, schema] : schema_["patternProperties"].items()) {
      if (Finds(pattern, name)) return true;
    }
    return false;
  }
  std::string Additional(const Json& schema) {
    if (!value_.is_object()) return "";
    for (const auto& [name, member] : value_.items()) {
      if (!IsListed(name) && !Sub(schema, member).empty()) return name;
    }
    return "";
  }
  std::string Required(const Json& names) {
    if (!value_.is_object()) return "";
    for (std::string name : names) {
      if (!value_.contains(name)) return name;
    }
    return "";
  }
  std::string PrefixItems(const Json& schemas) {
    for (size_t i = 0; value_.is_array() && i < std::min(schemas.size(), value_.size()); ++i) {
      if (!Sub(schemas[i], value_[i]).empty()) return absl::StrCat(i);
    }
    return "";
  }
  std::string AdditionalItems(const Json& schema) {
    const size_t first = schema_.contains("items") && schema_["items"].is_array() ? schema_["items"].size() : SIZE_MAX;
    for (size_t i = first; value_.is_array() && i < value_.size(); ++i) {
      if (!Sub(schema, value_[i]).empty()) return absl::StrCat(i);
    }
    return "";
  }
  std::string Items(const Json& schema) {
    if (schema.is_array()) return PrefixItems(schema);  // as drafts before 2020-12 have it
    const size_t first = schema_.contains("prefixItems") ? schema_["prefixItems"].size() : 0;
    for (size_t i = first; value_.is_array() && i < value_.size(); ++i) {
      if (!Sub(schema, value_[i]).empty()) return absl::StrCat(i);
    }
    return "";
  }
  std::string Pattern(const Json& pattern) {
    return Verdict(!value_.is_string() || Finds(pattern, value_.get<std::string>()));
  }

  // Keywords that compare a number of the value with a number of the schema, and annotations.
  std::string Limit(const std::string& keyword, const Json& argument) {
    static const auto& ignored =
        *new std::map<std::string, int>{{"$schema", 0}, {"title", 0},       {"description", 0},   {"default", 0},
                                        {"$defs", 0},   {"definitions", 0}, {"discriminator", 0}, {"format", 0}};
    if (ignored.contains(keyword)) return "";
    const double limit = argument.get<double>();
    if (keyword == "minimum") return Verdict(!value_.is_number() || value_.get<double>() >= limit);
    if (keyword == "maximum") return Verdict(!value_.is_number() || value_.get<double>() <= limit);
    if (keyword == "exclusiveMinimum") return Verdict(!value_.is_number() || value_.get<double>() > limit);
    if (keyword == "exclusiveMaximum") return Verdict(!value_.is_number() || value_.get<double>() < limit);
    if (keyword == "multipleOf") {
      const double quotient = value_.is_number() ? value_.get<double>() / limit : 0.0;
      return Verdict(std::abs(quotient - std::round(quotient)) <= 1e-12 * std::max(1.0, std::abs(quotient)));
    }
    const double length = value_.is_string() ? static_cast<double>(CountCodePoints(value_.get<std::string>())) : 0;
    const double size = value_.is_structured() ? static_cast<double>(value_.size()) : 0;
    if (keyword == "minLength") return Verdict(!value_.is_string() || length >= limit);
    if (keyword == "maxLength") return Verdict(!value_.is_string() || length <= limit);
    if (keyword == "minItems") return Verdict(!value_.is_array() || size >= limit);
    if (keyword == "maxItems") return Verdict(!value_.is_array() || size <= limit);
    if (keyword == "minProperties") return Verdict(!value_.is_object() || size >= limit);
    CADRE_CHECK(keyword == "maxProperties");
    return Verdict(!value_.is_object() || size <= limit);
  }

  const Json& root_;
  const Json& schema_;
  const Json& value_;
};

}  // namespace

std::string FindViolation(const Json& schema, const Json& value, const Json& root) {
  return Validator(root, schema, value).Run();
}

}  // namespace cadre
