// Log lines about one request: collectors find it by fields of their own, people in the text. Never a word of a prompt
// or an answer.
#ifndef CADRE_SERVER_REQUEST_LOG_H_
#define CADRE_SERVER_REQUEST_LOG_H_

#include <spdlog/common.h>

#include <string>
#include <string_view>

namespace cadre {

// Each may be empty, and is left out then.
struct RequestLabels {
  std::string request_id;
  std::string trace_id;  // of the caller's trace, or of one that begins here
  std::string span_id;   // of the span that is recorded here for the call
  std::string tenant;    // at most kMaxLabelBytes
};

// Of a call of any method. Each may be empty, and is left out then.
struct CallLabels {
  std::string method;      // "/package.Service/Method"
  std::string key;         // the name of the caller's key, never the secret
  std::string peer;        // the caller's address, as gRPC writes it
  std::string request_id;  // at most kMaxRequestIdBytes
  std::string trace_id;
};

// "request ID of trace T" and `what`, which begins with a blank or a colon; in JSON the labels beside it, by their
// names above. Any thread.
void LogRequest(spdlog::level::level_enum level, const RequestLabels& labels, std::string_view what);

// "WHAT by KEY at PEER" and `details`, which is empty or begins with a colon; in JSON the labels beside it. Any thread.
void LogCall(spdlog::level::level_enum level, const CallLabels& labels, std::string_view what,
             std::string_view details = "");
// The same of a call that changes what is everybody's: a warning.
void LogOperation(const CallLabels& labels, std::string_view what, std::string_view details = "");

}  // namespace cadre

#endif  // CADRE_SERVER_REQUEST_LOG_H_
