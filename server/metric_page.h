// A page of metrics in the Prometheus text format 0.0.4, written family by family.
//
// prometheus-cpp keeps counters and histograms; what is read from snapshots is written here instead: a page of a large
// model has tens of thousands of lines, and turning each into label objects first costs ten times as much.
#ifndef CADRE_SERVER_METRIC_PAGE_H_
#define CADRE_SERVER_METRIC_PAGE_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "server/metric_names.h"

namespace cadre {

// Writes are appended; `Begin` starts a family, and the samples up to the next `Begin` belong to it.
class MetricPage {
 public:
  using Label = std::pair<std::string_view, std::string_view>;  // name (trusted), value (escaped when written)

  void Begin(const MetricName& metric);
  void Sample(int64_t value) { Sample({}, value); }
  void Sample(int32_t value) { Sample({}, static_cast<int64_t>(value)); }
  void Sample(double value) { Sample({}, value); }
  void Sample(std::initializer_list<Label> labels, int64_t value);
  void Sample(std::initializer_list<Label> labels, int32_t value) { Sample(labels, static_cast<int64_t>(value)); }
  void Sample(std::initializer_list<Label> labels, double value);

  // A family of one sample without labels.
  template <typename Number>
  void Single(const MetricName& metric, Number value) {
    Begin(metric);
    Sample(value);
  }

  // Whole families that another serializer wrote.
  void Append(std::string_view text) { text_ += text; }
  std::string_view text() const { return text_; }

  std::string Take() && { return std::move(text_); }

 private:
  void WriteNameAndLabels(std::initializer_list<Label> labels);

  const char* family_ = "";
  std::string text_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_METRIC_PAGE_H_
