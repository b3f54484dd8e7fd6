#include "server/metric_page.h"

#include <charconv>
#include <cmath>

#include "engine/base/check.h"

namespace cadre {
namespace {

const char* TypeName(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter:
      return "counter";
    case MetricKind::kGauge:
      return "gauge";
    case MetricKind::kHistogram:
      return "histogram";
  }
  CADRE_CHECK(false);
  return "";
}

void AppendEscaped(std::string_view value, std::string& text) {
  for (char c : value) {
    if (c == '\\' || c == '"') text += '\\';
    if (c == '\n') {
      text += "\\n";
    } else {
      text += c;
    }
  }
}

template <typename Number>
void AppendNumber(Number value, std::string& text) {
  char buffer[32];  // the shortest form of a double has at most 24 characters
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value);
  CADRE_CHECK(error == std::errc());
  text.append(buffer, end);
}

}  // namespace

void MetricPage::Begin(const MetricName& metric) {
  family_ = metric.name;
  text_ += "# HELP ";
  text_ += metric.name;
  text_ += ' ';
  text_ += metric.help;
  text_ += "\n# TYPE ";
  text_ += metric.name;
  text_ += ' ';
  text_ += TypeName(metric.kind);
  text_ += '\n';
}

void MetricPage::WriteNameAndLabels(std::initializer_list<Label> labels) {
  text_ += family_;
  char separator = '{';
  for (const auto& [name, value] : labels) {
    text_ += separator;
    text_ += name;
    text_ += "=\"";
    AppendEscaped(value, text_);
    text_ += '"';
    separator = ',';
  }
  if (labels.size() > 0) text_ += '}';
  text_ += ' ';
}

void MetricPage::Sample(std::initializer_list<Label> labels, int64_t value) {
  WriteNameAndLabels(labels);
  AppendNumber(value, text_);
  text_ += '\n';
}

void MetricPage::Sample(std::initializer_list<Label> labels, double value) {
  WriteNameAndLabels(labels);
  if (std::isnan(value)) {
    text_ += "NaN";
  } else if (std::isinf(value)) {
    text_ += value > 0 ? "+Inf" : "-Inf";
  } else {
    AppendNumber(value, text_);
  }
  text_ += '\n';
}

}  // namespace cadre
