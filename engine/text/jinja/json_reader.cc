#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/text/jinja/json.h"
#include "nlohmann/json.hpp"

namespace cadre::jinja {
namespace {

Value ClientString(std::string text) { return Value::String(Text::FromClient(std::move(text))); }

// Builds the value from the parser's events, so that a limit ends the parse at once.
class ValueBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return Add(Value::None()); }
  bool boolean(bool value) override { return Add(Value::Boolean(value)); }
  bool number_integer(number_integer_t value) override { return Add(Value::Integer(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max())) return FailRange();
    return Add(Value::Integer(static_cast<std::int64_t>(value)));
  }
  bool number_float(number_float_t value, const string_t& text) override {
    // The library turns whole numbers that are too long into floats; Python would keep every digit.
    if (text.find_first_of(".eE") == std::string::npos) return FailRange();
    return Add(Value::Float(value));
  }
  bool string(string_t& value) override { return Add(ClientString(std::move(value))); }
  bool binary(binary_t& /*value*/) override { return Fail("not JSON"); }
  bool start_object(std::size_t /*size*/) override { return Open(/*is_object=*/true); }
  bool start_array(std::size_t /*size*/) override { return Open(/*is_object=*/false); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    open_.back().key = ClientString(std::move(name));
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::json::exception& /*error*/) override {
    return Fail(absl::StrCat("is not valid JSON at byte ", position));
  }

  const std::string& error() const { return error_; }
  Value TakeRoot() { return std::move(root_); }

 private:
  struct Container {
    bool is_object = false;
    Value key;
    Dict dict;
    std::vector<Value> items;
  };

  bool Add(Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Container& container = open_.back();
    if (!container.is_object) {
      container.items.push_back(std::move(value));
      return true;
    }
    const absl::Status status = container.dict.Set(std::move(container.key), std::move(value));
    return status.ok() || Fail(std::string(status.message()));
  }

  bool Open(bool is_object) {
    if (open_.size() >= static_cast<std::size_t>(kMaxJsonDepth)) {
      return Fail(absl::StrCat("is nested deeper than ", kMaxJsonDepth, " levels"));
    }
    open_.push_back({.is_object = is_object, .key = {}, .dict = {}, .items = {}});
    return true;
  }

  bool Close() {
    Container container = std::move(open_.back());
    open_.pop_back();
    return Add(container.is_object ? Value::Mapping(std::move(container.dict))
                                   : Value::List(std::move(container.items)));
  }

  bool FailRange() { return Fail("has a whole number that does not fit into 64 bits"); }
  bool Fail(std::string error) {
    error_ = std::move(error);
    return false;
  }

  std::vector<Container> open_;
  Value root_;
  std::string error_;
};

}  // namespace

absl::StatusOr<Value> ReadJson(std::string_view json) {
  // The library takes a zero byte for the end of the text and would not look at what follows.
  if (const std::size_t zero = json.find('\0'); zero != std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("is not valid JSON at byte ", zero + 1));
  }
  ValueBuilder builder;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &builder)) {
    return absl::InvalidArgumentError(builder.error());
  }
  return builder.TakeRoot();
}

}  // namespace cadre::jinja
