#include "server/request_log.h"

#include "absl/strings/str_cat.h"
#include "server/logging.h"

namespace cadre {

void LogRequest(spdlog::level::level_enum level, const RequestLabels& labels, std::string_view what) {
  LogWithFields(level,
                {{"request_id", labels.request_id},
                 {"trace_id", labels.trace_id},
                 {"span_id", labels.span_id},
                 {"tenant", labels.tenant}},
                absl::StrCat("request ", labels.request_id, labels.trace_id.empty() ? "" : " of trace ",
                             labels.trace_id, std::string(what)));
}

void LogCall(spdlog::level::level_enum level, const CallLabels& labels, std::string_view what,
             std::string_view details) {
  LogWithFields(level,
                {{"method", labels.method},
                 {"key", labels.key},
                 {"peer", labels.peer},
                 {"request_id", labels.request_id},
                 {"trace_id", labels.trace_id}},
                absl::StrCat(std::string(what), " by ", labels.key, labels.key.empty() ? "" : " at ", labels.peer,
                             std::string(details)));
}

void LogOperation(const CallLabels& labels, std::string_view what, std::string_view details) {
  LogCall(spdlog::level::warn, labels, what, details);
}

}  // namespace cadre
