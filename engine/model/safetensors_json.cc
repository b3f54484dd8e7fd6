#include "engine/model/safetensors_json.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/strings.h"
#include "engine/model/safetensors.h"
#include "nlohmann/json.hpp"

namespace cadre {
namespace {

using nlohmann::json;

constexpr std::string_view kMetadataKey = "__metadata__";

// The longest stretch between two quotation marks: many times any name, shape or value of real metadata.
constexpr size_t kMaxRunBytes = size_t{1} << 20;
constexpr int64_t kMaxMetadataEntries = 1 << 16;

// Where the parser is. Every event either moves from one place to the next or ends the parse.
enum class Place {
  kStart,          // before the document
  kTensors,        // in the outer object, before a key or its end
  kTensorStart,    // before the object of entry_
  kTensor,         // in that object, before a key or its end
  kDType,          // before the value of "dtype"
  kShapeStart,     // before the value of "shape"
  kShape,          // in its array
  kOffsetsStart,   // before the value of "data_offsets"
  kOffsets,        // in its array
  kMetadataStart,  // before the value of "__metadata__"
  kMetadata,       // in that object, before a key or its end
  kMetadataValue,  // before a string of it
  kEnd,            // after the document
};

class HeaderReader : public nlohmann::json_sax<json> {
 public:
  bool null() override { return Fail("null is not allowed"); }
  bool boolean(bool /*value*/) override { return Fail("true and false are not allowed"); }
  bool number_float(number_float_t /*value*/, const string_t& text) override {
    return Fail(absl::StrCat(text, " is not a whole number from 0 to 2^63 - 1"));
  }
  bool number_integer(number_integer_t value) override { return Fail(absl::StrCat(value, " is negative")); }
  bool number_unsigned(number_unsigned_t value) override;
  bool string(string_t& value) override;
  bool binary(binary_t& /*value*/) override { return Fail("binary is not allowed"); }
  bool key(string_t& name) override;
  bool start_object(std::size_t /*size*/) override;
  bool end_object() override;
  bool start_array(std::size_t /*size*/) override;
  bool end_array() override;
  bool parse_error(std::size_t position, const std::string& /*token*/, const json::exception& /*error*/) override {
    entry_.name.clear();
    return Fail(absl::StrCat("invalid JSON at header byte ", position));
  }

  const std::string& error() const { return error_; }
  std::vector<SafetensorsEntry> TakeEntries() { return std::move(entries_); }

 private:
  bool Go(Place place) {
    place_ = place;
    return true;
  }
  bool Fail(std::string reason) {
    error_ = entry_.name.empty() ? std::move(reason) : absl::StrCat("tensor ", Quoted(entry_.name), ": ", reason);
    return false;
  }
  bool TensorKey(std::string_view name);
  bool StartTensor(std::string name);
  bool FinishTensor();

  Place place_ = Place::kStart;
  SafetensorsEntry entry_;
  bool has_dtype_ = false;
  bool has_shape_ = false;
  bool has_metadata_ = false;
  int64_t num_metadata_ = 0;
  std::optional<std::size_t> num_offsets_;  // absent: no "data_offsets" yet
  std::vector<SafetensorsEntry> entries_;
  std::string error_;
};

bool HeaderReader::start_object(std::size_t /*size*/) {
  switch (place_) {
    case Place::kStart:
      return Go(Place::kTensors);
    case Place::kTensorStart:
      return Go(Place::kTensor);
    case Place::kMetadataStart:
      return Go(Place::kMetadata);
    default:
      return Fail("an object stands where none belongs");
  }
}

bool HeaderReader::end_object() {
  switch (place_) {
    case Place::kTensor:
      return FinishTensor();
    case Place::kMetadata:
      return Go(Place::kTensors);
    default:  // the parser ends only objects that it began
      return Go(Place::kEnd);
  }
}

bool HeaderReader::start_array(std::size_t /*size*/) {
  switch (place_) {
    case Place::kShapeStart:
      return Go(Place::kShape);
    case Place::kOffsetsStart:
      num_offsets_ = 0;
      return Go(Place::kOffsets);
    default:
      return Fail("an array stands where none belongs");
  }
}

bool HeaderReader::end_array() {
  if (place_ == Place::kOffsets && num_offsets_ != 2) return Fail("data_offsets must have two numbers");
  return Go(Place::kTensor);
}

bool HeaderReader::key(string_t& name) {
  switch (place_) {
    case Place::kTensors:
      if (name != kMetadataKey) return StartTensor(std::move(name));
      if (std::exchange(has_metadata_, true)) return Fail("__metadata__ is there twice");
      return Go(Place::kMetadataStart);
    case Place::kMetadata:
      if (++num_metadata_ > kMaxMetadataEntries) {
        return Fail(absl::StrCat("__metadata__ has more entries than the limit of ", kMaxMetadataEntries));
      }
      return Go(Place::kMetadataValue);
    default:
      return TensorKey(name);
  }
}

bool HeaderReader::StartTensor(std::string name) {
  if (name.empty()) return Fail("a tensor has no name");
  entry_ = SafetensorsEntry();
  entry_.name = std::move(name);
  if (entry_.name.size() > kMaxTensorNameBytes) {
    return Fail(absl::StrCat("its name has ", entry_.name.size(), " bytes, limit is ", kMaxTensorNameBytes));
  }
  if (entries_.size() >= static_cast<std::size_t>(kMaxTensorsPerFile)) {
    return Fail(absl::StrCat("more tensors than the limit of ", kMaxTensorsPerFile));
  }
  has_dtype_ = false;
  has_shape_ = false;
  num_offsets_.reset();
  return Go(Place::kTensorStart);
}

bool HeaderReader::TensorKey(std::string_view name) {
  if (name == "dtype") {
    return std::exchange(has_dtype_, true) ? Fail("dtype is there twice") : Go(Place::kDType);
  }
  if (name == "shape") {
    return std::exchange(has_shape_, true) ? Fail("shape is there twice") : Go(Place::kShapeStart);
  }
  if (name == "data_offsets") {
    return num_offsets_.has_value() ? Fail("data_offsets is there twice") : Go(Place::kOffsetsStart);
  }
  return Fail(absl::StrCat("unknown key ", Quoted(name)));
}

bool HeaderReader::FinishTensor() {
  if (!has_dtype_) return Fail("dtype is missing");
  if (!has_shape_) return Fail("shape is missing");
  if (!num_offsets_.has_value()) return Fail("data_offsets is missing");
  entries_.push_back(std::move(entry_));
  entry_.name.clear();
  return Go(Place::kTensors);
}

bool HeaderReader::string(string_t& value) {
  switch (place_) {
    case Place::kDType:
      entry_.dtype = std::move(value);
      return Go(Place::kTensor);
    case Place::kMetadataValue:
      return Go(Place::kMetadata);
    default:
      return Fail(absl::StrCat("the string ", Quoted(value), " stands where none belongs"));
  }
}

bool HeaderReader::number_unsigned(number_unsigned_t value) {
  if (value > static_cast<number_unsigned_t>(std::numeric_limits<int64_t>::max())) {
    return Fail(absl::StrCat(value, " is not a whole number from 0 to 2^63 - 1"));
  }
  const auto number = static_cast<int64_t>(value);
  switch (place_) {
    case Place::kShape:
      if (entry_.shape.size() >= static_cast<std::size_t>(kMaxTensorRank)) {
        return Fail(absl::StrCat("has more dimensions than the limit of ", kMaxTensorRank));
      }
      entry_.shape.push_back(number);
      return true;
    case Place::kOffsets:
      if (*num_offsets_ >= 2) return Fail("data_offsets must have two numbers");
      (*num_offsets_ == 0 ? entry_.begin : entry_.end) = number;
      ++*num_offsets_;
      return true;
    default:
      return Fail(absl::StrCat("the number ", value, " stands where none belongs"));
  }
}

}  // namespace

absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsJson(std::string_view text, std::string_view file_name) {
  const auto error = [file_name](const std::string& reason) {
    return absl::InvalidArgumentError(absl::StrCat(ToAbsl(file_name), ": ", reason));
  };
  // The format wants the brace first; the JSON parser would skip spaces and a byte order mark.
  if (text.empty() || text.front() != '{') return error("the header does not start with '{'");
  // It would also take a zero byte for the end of the text and not look at what follows.
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos) {
    return error(absl::StrCat("invalid JSON at header byte ", zero + 1));
  }
  // And it copies every string, at several times its size.
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('"', begin), text.size());
    if (end - begin > kMaxRunBytes) {
      return error(absl::StrCat("header byte ", begin + 1, " begins a run of ", end - begin,
                                " bytes without a quotation mark, limit is ", kMaxRunBytes));
    }
    begin = end + 1;
  }
  HeaderReader reader;
  if (!json::sax_parse(text.data(), text.data() + text.size(), &reader, json::input_format_t::json, /*strict=*/true)) {
    return error(reader.error());
  }
  return reader.TakeEntries();
}

}  // namespace cadre
