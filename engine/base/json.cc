#include "engine/base/json.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/strings.h"

namespace cadre {
namespace {

// Receives the parser's events and builds the document, so that a limit stops the parse at once instead of after the
// whole tree stands. The depth guard also protects the reader of the tree: nlohmann's own walks are recursive.
template <typename Json>
class DocumentBuilder : public nlohmann::json_sax<Json> {
 public:
  using typename nlohmann::json_sax<Json>::binary_t;
  using typename nlohmann::json_sax<Json>::number_float_t;
  using typename nlohmann::json_sax<Json>::number_integer_t;
  using typename nlohmann::json_sax<Json>::number_unsigned_t;
  using typename nlohmann::json_sax<Json>::string_t;

  DocumentBuilder(int max_depth, std::size_t max_values) : max_depth_(max_depth), max_values_(max_values) {}

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t& value) override { return Add(Json::binary(std::move(value))); }
  bool start_object(std::size_t /*size*/) override { return Open(Json::object()); }
  bool start_array(std::size_t /*size*/) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    auto [slot, is_new] = open_.back()->template get_ref<typename Json::object_t&>().emplace(name, Json());
    if (!is_new) {
      return Fail(absl::StrCat("duplicate key ", Quoted(slot->first)));
    }
    member_ = &slot->second;
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::json::exception& /*error*/) override {
    error_position_ = position;
    return Fail("invalid JSON");
  }

  // Empty while all is well.
  const std::string& error() const { return error_; }
  // Byte offset of a syntax error, from 1; 0 when the failure has no position.
  std::size_t error_position() const { return error_position_; }
  Json TakeDocument() { return std::move(root_); }

 private:
  bool Add(Json value) { return Place(std::move(value)) != nullptr; }

  // Where the next value belongs: the document itself, the end of the open array, or the member named last.
  Json* Place(Json value) {
    if (++num_values_ > max_values_) {
      Fail(absl::StrCat("more than ", max_values_, " values"));
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      return &open_.back()->template get_ref<typename Json::array_t&>().emplace_back(std::move(value));
    }
    *member_ = std::move(value);
    return member_;
  }

  bool Open(Json container) {
    if (static_cast<int>(open_.size()) >= max_depth_) {
      return Fail(absl::StrCat("nested deeper than ", max_depth_, " levels"));
    }
    Json* place = Place(std::move(container));
    if (place == nullptr) return false;
    open_.push_back(place);
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  bool Fail(std::string error) {
    error_ = std::move(error);
    return false;
  }

  const int max_depth_;
  const std::size_t max_values_;
  std::size_t num_values_ = 0;
  Json root_;
  std::vector<Json*> open_;  // the containers that are open, outermost first
  Json* member_ = nullptr;   // the member that waits for its value
  std::string error_;
  std::size_t error_position_ = 0;
};

std::string DescribePosition(std::string_view text, std::size_t position) {
  const std::string_view before = text.substr(0, std::min(position == 0 ? 0 : position - 1, text.size()));
  const auto num_newlines = std::count(before.begin(), before.end(), '\n');
  const std::size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  return absl::StrCat("line ", num_newlines + 1, ", byte ", before.size() - line_start + 1);
}

template <typename Json>
absl::StatusOr<Json> Parse(std::string_view text, std::string_view what, int max_depth, std::size_t max_values) {
  // The library takes a zero byte for the end of the text and would not look at what follows.
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(what), ": invalid JSON at ", DescribePosition(text, zero + 1)));
  }
  DocumentBuilder<Json> builder(max_depth, max_values);
  if (Json::sax_parse(text.begin(), text.end(), &builder, Json::input_format_t::json, /*strict=*/true)) {
    return builder.TakeDocument();
  }
  std::string message = absl::StrCat(std::string(what), ": ", builder.error());
  if (builder.error_position() > 0) absl::StrAppend(&message, " at ", DescribePosition(text, builder.error_position()));
  return absl::InvalidArgumentError(message);
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, std::string_view what, int max_depth) {
  return Parse<nlohmann::json>(text, what, max_depth, kMaxJsonValues);
}

absl::StatusOr<nlohmann::ordered_json> ParseOrderedJson(std::string_view text, std::string_view what, int max_depth,
                                                        std::size_t max_values) {
  return Parse<nlohmann::ordered_json>(text, what, max_depth, max_values);
}

}  // namespace cadre
