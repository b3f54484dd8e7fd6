#include "tools/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/client_interceptor.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
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

// Adds the key to every call, whatever its kind. gRPC's own credentials of calls do not travel in plaintext, which
// behind a proxy on the same machine is right.
class KeyInterceptor final : public grpc::experimental::Interceptor {
 public:
  explicit KeyInterceptor(const std::string& authorization) : authorization_(authorization) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(grpc::experimental::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->emplace("authorization", authorization_);
    }
    methods->Proceed();
  }

 private:
  const std::string authorization_;
};

class KeyInterceptorFactory final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit KeyInterceptorFactory(const std::string& key) : authorization_("Bearer " + key) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(grpc::experimental::ClientRpcInfo*) override {
    return new KeyInterceptor(authorization_);  // gRPC deletes it
  }

 private:
  const std::string authorization_;
};

std::shared_ptr<grpc::ChannelCredentials> MakeCredentials(const ClientOptions& options) {
  if (!options.is_tls()) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials({.pem_root_certs = options.tls_ca_text,
                               .pem_private_key = options.tls_key_text,
                               .pem_cert_chain = options.tls_cert_text});
}

std::shared_ptr<grpc::Channel> Connect(const ClientOptions& options, grpc::ChannelArguments arguments) {
  if (!options.tls_server_name.empty()) arguments.SetSslTargetNameOverride(options.tls_server_name);
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  if (!options.api_key.empty()) interceptors.push_back(std::make_unique<KeyInterceptorFactory>(options.api_key));
  return grpc::experimental::CreateCustomChannelWithInterceptors(options.address, MakeCredentials(options), arguments,
                                                                 std::move(interceptors));
}

absl::Status ReadTextFile(const char* flag, const std::string& path, std::string* text) {
  if (path.empty()) return absl::OkStatus();
  std::ifstream file(path, std::ios::binary);
  text->assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  if (!file.good() && !file.eof()) return absl::NotFoundError(absl::StrCat(flag, ": ", path, " cannot be read"));
  if (text->empty()) return absl::InvalidArgumentError(absl::StrCat(flag, ": ", path, " cannot be read, or is empty"));
  return absl::OkStatus();
}

}  // namespace

absl::Status LoadSecrets(ClientOptions* options) {
  if (options->tls_cert.empty() != options->tls_key.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key: one needs the other");
  }
  for (const absl::Status& status : {ReadTextFile("--tls-ca", options->tls_ca, &options->tls_ca_text),
                                     ReadTextFile("--tls-cert", options->tls_cert, &options->tls_cert_text),
                                     ReadTextFile("--tls-key", options->tls_key, &options->tls_key_text),
                                     ReadTextFile("--api-key-file", options->api_key_file, &options->api_key)}) {
    if (!status.ok()) return status;
  }
  const char* const variable = std::getenv("CADRE_API_KEY");
  const bool is_file = !options->api_key_file.empty();
  if (!is_file && variable != nullptr) options->api_key = variable;
  options->api_key = std::string(absl::StripAsciiWhitespace(options->api_key));
  if (std::all_of(options->api_key.begin(), options->api_key.end(), [](char c) { return absl::ascii_isgraph(c); })) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(is_file ? "--api-key-file" : "CADRE_API_KEY",
                                                 ": the key has a character that is not visible ASCII"));
}

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
  return Connect(options, MakeChannelArguments());
}

std::shared_ptr<grpc::Channel> OpenSeparateChannel(const ClientOptions& options) {
  grpc::ChannelArguments arguments = MakeChannelArguments();
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return Connect(options, arguments);
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
