#include "tools/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <chrono>
#include <iostream>
#include <iterator>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

// The statistics of 94 layers x 128 experts take about 1 MiB.
constexpr int kMaxMessageBytes = 64 << 20;

grpc::ChannelArguments MakeChannelArguments() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  return arguments;
}

}  // namespace

const char* StatusCodeName(grpc::StatusCode code) {
  static constexpr const char* kNames[] = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  const auto index = static_cast<size_t>(code);
  return index < std::size(kNames) ? kNames[index] : "UNKNOWN";
}

std::string ErrorReason(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return "";
  for (const google::protobuf::Any& detail : details.details()) {
    google::rpc::ErrorInfo info;
    if (detail.UnpackTo(&info)) return info.reason();
  }
  return "";
}

std::shared_ptr<grpc::Channel> OpenChannel(const ClientOptions& options) {
  return grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(), MakeChannelArguments());
}

std::shared_ptr<grpc::Channel> OpenSeparateChannel(const ClientOptions& options) {
  grpc::ChannelArguments arguments = MakeChannelArguments();
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(), arguments);
}

std::unique_ptr<grpc::ClientContext> MakeContext(absl::Duration timeout) {
  auto context = std::make_unique<grpc::ClientContext>();
  if (timeout > absl::ZeroDuration()) {
    context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
  }
  return context;
}

bool ParseTimeout(const std::string& text, absl::Duration* timeout) {
  double seconds = 0.0;
  if (absl::SimpleAtod(text, &seconds)) {
    *timeout = absl::Seconds(seconds);
  } else if (!absl::ParseDuration(text, timeout)) {
    return false;
  }
  return *timeout >= absl::ZeroDuration() && *timeout < absl::Hours(24 * 365);
}

bool IsUnreachable(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE && status.error_details().empty();
}

std::string DescribeError(const grpc::Status& status, const std::string& address) {
  if (IsUnreachable(status)) {
    return absl::StrCat("cadre: cannot reach ", address, ": ", status.error_message(), "\n");
  }
  std::string text = absl::StrCat("cadre: ", StatusCodeName(status.error_code()), ": ", status.error_message());
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return text + "\n";
  std::string violations;
  for (const google::protobuf::Any& detail : details.details()) {
    google::rpc::BadRequest bad_request;
    google::rpc::RetryInfo retry;
    if (detail.UnpackTo(&bad_request)) {
      for (const auto& violation : bad_request.field_violations()) {
        const std::string line = absl::StrCat(violation.field(), ": ", violation.description());
        if (status.error_message().find(line) == std::string::npos) absl::StrAppend(&violations, "  ", line, "\n");
      }
    } else if (detail.UnpackTo(&retry)) {
      const absl::Duration delay =
          absl::Seconds(retry.retry_delay().seconds()) + absl::Nanoseconds(retry.retry_delay().nanos());
      absl::StrAppend(&text, " (try again after ", absl::FormatDuration(delay), ")");
    }
  }
  return absl::StrCat(text, "\n", violations);
}

int ReportError(const grpc::Status& status, const std::string& address) {
  std::cout.flush();
  std::cerr << WithoutControlCharacters(DescribeError(status, address));
  return IsUnreachable(status) ? kExitUnreachable : kExitFailed;
}

}  // namespace cadre
