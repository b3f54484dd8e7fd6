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

using nlohmann::json;

// Receives the parser's events and builds the document, so that a limit stops the parse at once instead of after the
// whole tree stands. The depth guard also protects the reader of the tree: nlohmann's own walks are recursive.
class DocumentBuilder : public nlohmann::json_sax<json> {
 public:
  explicit DocumentBuilder(int max_depth) : max_depth_(max_depth) {}

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t& value) override { return Add(json::binary(std::move(value))); }
  bool start_object(std::size_t /*size*/) override { return Open(json::object()); }
  bool start_array(std::size_t /*size*/) override { return Open(json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    auto [slot, is_new] = open_.back()->get_ref<json::object_t&>().try_emplace(std::move(name));
    if (!is_new) {
      return Fail(absl::StrCat("duplicate key ", Quoted(slot->first)));
    }
    member_ = &slot->second;
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*token*/, const json::exception& /*error*/) override {
    error_position_ = position;
    return Fail("invalid JSON");
  }

  // Empty while all is well.
  const std::string& error() const { return error_; }
  // Byte offset of a syntax error, from 1; 0 when the failure has no position.
  std::size_t error_position() const { return error_position_; }
  json TakeDocument() { return std::move(root_); }

 private:
  bool Add(json value) { return Place(std::move(value)) != nullptr; }

  // Where the next value belongs: the document itself, the end of the open array, or the member named last.
  json* Place(json value) {
    if (++num_values_ > kMaxJsonValues) {
      Fail(absl::StrCat("more than ", kMaxJsonValues, " values"));
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      return &open_.back()->get_ref<json::array_t&>().emplace_back(std::move(value));
    }
    *member_ = std::move(value);
    return member_;
  }

  bool Open(json container) {
    if (static_cast<int>(open_.size()) >= max_depth_) {
      return Fail(absl::StrCat("nested deeper than ", max_depth_, " levels"));
    }
    json* place = Place(std::move(container));
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
  std::size_t num_values_ = 0;
  json root_;
  std::vector<json*> open_;  // the containers that are open, outermost first
  json* member_ = nullptr;   // the member that waits for its value
  std::string error_;
  std::size_t error_position_ = 0;
};

std::string DescribePosition(std::string_view text, std::size_t position) {
  const std::string_view before = text.substr(0, std::min(position == 0 ? 0 : position - 1, text.size()));
  const auto num_newlines = std::count(before.begin(), before.end(), '\n');
  const std::size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  return absl::StrCat("line ", num_newlines + 1, ", byte ", before.size() - line_start + 1);
}

}  // namespace

absl::StatusOr<json> ParseJson(std::string_view text, std::string_view what, int max_depth) {
  // The library takes a zero byte for the end of the text and would not look at what follows.
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(what), ": invalid JSON at ", DescribePosition(text, zero + 1)));
  }
  DocumentBuilder builder(max_depth);
  if (json::sax_parse(text.begin(), text.end(), &builder, json::input_format_t::json, /*strict=*/true)) {
    return builder.TakeDocument();
  }
  std::string message = absl::StrCat(std::string(what), ": ", builder.error());
  if (builder.error_position() > 0) absl::StrAppend(&message, " at ", DescribePosition(text, builder.error_position()));
  return absl::InvalidArgumentError(message);
}

}  // namespace cadre
