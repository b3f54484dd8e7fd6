#include "tools/routing_file.h"

#include <google/protobuf/util/json_util.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tools/text_io.h"

namespace cadre {

absl::Status WriteRoutedExperts(const v1::RoutedExperts& routed, const std::string& path) {
  return WriteFile(path, ToJsonLine(routed));
}

absl::StatusOr<v1::RoutedExperts> ReadRoutedExperts(const std::string& path) {
  auto text = ReadFile(path, kMaxRoutingFileBytes);
  if (!text.ok()) return text.status();
  v1::RoutedExperts routed;
  const auto status = google::protobuf::util::JsonStringToMessage(*text, &routed);
  if (status.ok()) return routed;
  // Its further lines show the file.
  const std::string reason(status.message().data(), status.message().size());
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": is no record of routed experts: ", reason.substr(0, reason.find('\n'))));
}

}  // namespace cadre
