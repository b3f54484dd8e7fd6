// What every subcommand shares: where the server is, how long to wait for it, and how its errors are told.
#ifndef CADRE_TOOLS_CLIENT_H_
#define CADRE_TOOLS_CLIENT_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace cadre {

// How the client ends.
enum ClientExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,        // the server refused or failed; `health`: it is not serving
  kExitUsage = 64,        // the command line is wrong
  kExitUnreachable = 69,  // nobody answers at the address
};

// Flags in front of or behind any subcommand.
struct ClientOptions {
  std::string address = "127.0.0.1:50051";
  bool json = false;
  // Paths; any of them means TLS.
  std::string tls_ca;    // who may have signed the server's certificate; empty: whom the system trusts
  std::string tls_cert;  // what the client shows, with its key, where the server asks for it
  std::string tls_key;
  std::string tls_server_name;  // that must be in the server's certificate; empty: the address
  std::string api_key_file;

  // What LoadSecrets has read: PEM, and the key without the end of its line.
  std::string tls_ca_text;
  std::string tls_cert_text;
  std::string tls_key_text;
  std::string api_key;

  bool is_tls() const { return !tls_ca.empty() || !tls_cert.empty(); }
};

// Reads the files that `options` names; the key comes from CADRE_API_KEY where no file is named, never from the command
// line, which everybody on the machine can read. An error names the flag, the file and the reason.
absl::Status LoadSecrets(ClientOptions* options);

// "INVALID_ARGUMENT"
const char* StatusCodeName(grpc::StatusCode code);

// The reason of the google.rpc.ErrorInfo that a server of cadre sends with every error; empty without one.
std::string ErrorReason(const grpc::Status& status);

// TLS if `options` has certificates, else plaintext; every call shows the API key. Never through an HTTP proxy of the
// environment.
std::shared_ptr<grpc::Channel> OpenChannel(const ClientOptions& options);
// The same, with a connection of its own: plain channels to one address share theirs.
std::shared_ptr<grpc::Channel> OpenSeparateChannel(const ClientOptions& options);

// A context that gives up after `timeout`; zero waits for ever.
std::unique_ptr<grpc::ClientContext> MakeContext(absl::Duration timeout);

// "30s", "1.5", "500ms": a number without a unit means seconds. False when it is neither or is negative.
bool ParseTimeout(const std::string& text, absl::Duration* timeout);

// True when the server never answered: what UNAVAILABLE means unless the server itself said so with error details.
bool IsUnreachable(const grpc::Status& status);

// "cadre: INVALID_ARGUMENT: ..." and one line for each wrong field that the message does not name.
std::string DescribeError(const grpc::Status& status, const std::string& address);

// Prints the error to stderr and returns the exit code for it.
int ReportError(const grpc::Status& status, const std::string& address);

}  // namespace cadre

#endif  // CADRE_TOOLS_CLIENT_H_
