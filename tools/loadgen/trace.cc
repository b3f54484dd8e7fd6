#include "tools/loadgen/trace.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "tools/loadgen/length_distribution.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

constexpr size_t kMaxShownBytes = 40;
constexpr double kMaxSeconds = 1e9;  // 31 years: dates of a trace are far apart at most that much
constexpr int32_t kMaxPriority = 100;

enum Column { kTime, kPrompt, kOutput, kTenant, kPriority, kNumColumns };
constexpr const char* kColumnNames[kNumColumns] = {"time", "prompt tokens", "output tokens", "tenant", "priority"};

// The words of one request, before they are numbers.
using Fields = std::optional<std::string>[kNumColumns];

std::optional<Column> ColumnOf(std::string_view name) {
  static constexpr struct {
    std::string_view name;
    Column column;
  } kNames[] = {
      {"time", kTime},
      {"offset", kTime},
      {"timestamp", kTime},
      {"arrivaltime", kTime},
      {"prompttokens", kPrompt},
      {"inputtokens", kPrompt},
      {"inputlength", kPrompt},
      {"contexttokens", kPrompt},
      {"requesttokens", kPrompt},
      {"outputtokens", kOutput},
      {"outputlength", kOutput},
      {"generatedtokens", kOutput},
      {"responsetokens", kOutput},
      {"tenant", kTenant},
      {"priority", kPriority},
  };
  std::string plain;
  for (char c : name) {
    if (c != ' ' && c != '_' && c != '-') plain += absl::ascii_tolower(static_cast<unsigned char>(c));
  }
  for (const auto& entry : kNames) {
    if (entry.name == plain) return entry.column;
  }
  return std::nullopt;
}

// Without spaces, tabs and carriage returns at its ends.
std::string_view Strip(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\r\v\f";
  const size_t begin = text.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpaces) + 1 - begin);
}

std::string Shown(std::string_view value) {
  std::string text;
  for (char c : value.substr(0, kMaxShownBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      absl::StrAppendFormat(&text, "\\x%02x", byte);
    } else {
      text += c;
    }
  }
  return absl::StrCat("\"", text, value.size() > kMaxShownBytes ? "...\"" : "\"");
}

absl::Status LineError(int64_t line, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", what));
}

// Splits a line of CSV; a field may stand in double quotes, and a doubled quote inside means itself. False when a quote
// is not closed.
bool SplitCsv(std::string_view line, std::vector<std::string>* fields) {
  fields->assign(1, "");
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    if (quoted && line[i] == '"' && i + 1 < line.size() && line[i + 1] == '"') {
      fields->back() += line[++i];
    } else if (line[i] == '"') {
      quoted = !quoted;
    } else if (line[i] == ',' && !quoted) {
      fields->emplace_back();
    } else {
      fields->back() += line[i];
    }
  }
  for (std::string& field : *fields) field = std::string(Strip(field));
  return !quoted;
}

absl::Status ReadJsonLine(std::string_view line, int64_t number, Fields& fields) {
  const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return LineError(number, absl::StrCat(Shown(line), " is no JSON object"));
  for (const auto& [key, value] : object.items()) {
    const std::optional<Column> column = ColumnOf(key);
    if (!column) continue;
    if (value.is_string()) {
      fields[*column] = value.get_ref<const std::string&>();
    } else if (value.is_number()) {
      fields[*column] = value.dump();
    } else if (!value.is_null()) {
      return LineError(number, absl::StrCat(key, " is neither a number nor a text"));
    }
  }
  return absl::OkStatus();
}

bool ParseTime(const std::string& text, double time_unit, double* seconds) {
  absl::Time date;
  std::string error;
  if (absl::SimpleAtod(text, seconds)) {
    *seconds *= time_unit / 1e9;
  } else if (absl::ParseTime("%Y-%m-%d%t%H:%M:%E*S", text, &date, &error) ||
             absl::ParseTime(absl::RFC3339_full, text, &date, &error)) {
    *seconds = absl::ToDoubleSeconds(date - absl::UnixEpoch());
  } else {
    return false;
  }
  return std::isfinite(*seconds);
}

// A whole number, which may be written as 12.0, in [low, high].
bool ParseWhole(const std::string& text, int32_t low, int32_t high, int32_t* value) {
  double number = 0.0;
  if (!absl::SimpleAtod(text, &number) || !(number >= low && number <= high) || number != std::floor(number)) {
    return false;
  }
  *value = static_cast<int32_t>(number);
  return true;
}

struct TimedRequest {
  double seconds = 0.0;
  TraceRequest request;
};

absl::StatusOr<TimedRequest> ReadRequest(const Fields& fields, int64_t line, double time_unit,
                                         const TraceLimits& limits) {
  for (Column column : {kTime, kPrompt, kOutput}) {
    if (!fields[column]) return LineError(line, absl::StrCat(kColumnNames[column], " is missing"));
  }
  TimedRequest timed;
  TraceRequest& request = timed.request;
  const auto wrong = [&](Column column, const std::string& limit) {
    return LineError(line, absl::StrCat(kColumnNames[column], ": ", Shown(*fields[column]), " is not ", limit));
  };
  if (!ParseTime(*fields[kTime], time_unit, &timed.seconds)) return wrong(kTime, "a number or a date");
  const std::string lengths = absl::StrCat("a whole number in [0, ", LengthDistribution::kMaxLength, "]");
  if (!ParseWhole(*fields[kPrompt], 0, LengthDistribution::kMaxLength, &request.prompt_tokens)) {
    return wrong(kPrompt, lengths);
  }
  if (!ParseWhole(*fields[kOutput], 0, LengthDistribution::kMaxLength, &request.output_tokens)) {
    return wrong(kOutput, lengths);
  }
  request.prompt_tokens = std::max(request.prompt_tokens, 1);
  request.output_tokens = std::max(request.output_tokens, 1);
  if (fields[kPriority] && !fields[kPriority]->empty() &&
      !ParseWhole(*fields[kPriority], -kMaxPriority, kMaxPriority, &request.priority)) {
    return wrong(kPriority, absl::StrCat("a whole number in [-", kMaxPriority, ", ", kMaxPriority, "]"));
  }
  if (fields[kTenant]) {
    request.tenant = *fields[kTenant];
    if (request.tenant.size() > limits.max_tenant_bytes) {
      return wrong(kTenant, absl::StrCat("at most ", limits.max_tenant_bytes, " bytes"));
    }
    if (!IsValidUtf8(request.tenant)) return wrong(kTenant, "valid UTF-8");
  }
  return timed;
}

// Offsets from the earliest time, in order; lines of equal times keep theirs.
absl::StatusOr<std::vector<TraceRequest>> Sort(std::vector<TimedRequest> timed) {
  std::stable_sort(timed.begin(), timed.end(), [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
  std::vector<TraceRequest> requests;
  requests.reserve(timed.size());
  for (TimedRequest& entry : timed) {
    const double offset = entry.seconds - timed.front().seconds;
    if (offset > kMaxSeconds) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "the trace lasts %g s, the limit is %g s: is the unit of its times right?", offset, kMaxSeconds));
    }
    entry.request.offset = static_cast<int64_t>(std::llround(offset * 1e9));
    requests.push_back(std::move(entry.request));
  }
  return requests;
}

// Reads CSV or JSON line by line.
class TraceReader {
 public:
  TraceReader(double time_unit, const TraceLimits& limits) : time_unit_(time_unit), limits_(limits) {}

  absl::Status ReadLine(std::string_view line, int64_t number) {
    if (line.size() > limits_.max_line_bytes) {
      return LineError(number, absl::StrCat(line.size(), " bytes, the limit is ", limits_.max_line_bytes));
    }
    line = Strip(line);
    if (line.empty()) return absl::OkStatus();
    if (!format_known_) {
      format_known_ = line.front() != '#';
      is_json_ = line.front() == '{';
    }
    if (!is_json_ && line.front() == '#') return absl::OkStatus();
    Fields fields;
    bool is_request = true;
    absl::Status read = is_json_ ? ReadJsonLine(line, number, fields) : ReadCsvLine(line, number, fields, &is_request);
    if (!read.ok() || !is_request) return read;
    if (static_cast<int64_t>(timed.size()) >= limits_.max_requests) {
      return LineError(number, absl::StrCat("more than ", limits_.max_requests, " requests"));
    }
    auto request = ReadRequest(fields, number, time_unit_, limits_);
    if (!request.ok()) return request.status();
    timed.push_back(*std::move(request));
    return absl::OkStatus();
  }

  std::vector<TimedRequest> timed;

 private:
  absl::Status ReadCsvLine(std::string_view line, int64_t number, Fields& fields, bool* is_request) {
    std::vector<std::string> words;
    if (!SplitCsv(line, &words)) return LineError(number, absl::StrCat(Shown(line), " has a quote that is not closed"));
    if (columns_.empty()) {
      const bool has_names = std::any_of(words.begin(), words.end(), [](const auto& w) { return ColumnOf(w); });
      if (has_names) {
        for (const std::string& word : words) columns_.push_back(ColumnOf(word));
        *is_request = false;
        return absl::OkStatus();
      }
      for (int i = 0; i < kNumColumns; ++i) columns_.emplace_back(static_cast<Column>(i));
    }
    if (words.size() > columns_.size()) {
      return LineError(number, absl::StrCat(words.size(), " fields, the limit is ", columns_.size()));
    }
    for (size_t i = 0; i < words.size(); ++i) {
      if (columns_[i]) fields[*columns_[i]] = words[i];
    }
    return absl::OkStatus();
  }

  const double time_unit_;
  const TraceLimits limits_;
  bool format_known_ = false;
  bool is_json_ = false;
  std::vector<std::optional<Column>> columns_;  // of CSV
};

}  // namespace

absl::StatusOr<std::vector<TraceRequest>> ParseTrace(std::string_view text, double time_unit,
                                                     const TraceLimits& limits) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);  // byte order mark
  TraceReader reader(time_unit, limits);
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (const absl::Status status = reader.ReadLine(text.substr(0, end), ++number); !status.ok()) return status;
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  if (reader.timed.empty()) return absl::InvalidArgumentError("the trace has no requests");
  return Sort(std::move(reader.timed));
}

}  // namespace cadre
