// The door of the gRPC port: what a connection must be, and the question to AccessControl that comes before every call.
#ifndef CADRE_SERVER_SERVER_CREDENTIALS_H_
#define CADRE_SERVER_SERVER_CREDENTIALS_H_

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "server/access_control.h"
#include "server/tls_files.h"

namespace cadre {

// Asks `access` about each call of the port when its headers have come, before gRPC takes any of its message or looks
// for its method: whatever is registered, and whatever will be, is behind it. A refusal travels as status and message;
// gRPC gives it no place for google.rpc details, so that methods whose handlers ask at the same moment are left to them
// (AccessControl::CheckAtDoor). Calls through an in-process channel are asked by such handlers alone.
//
// With `identity`, the port speaks TLS of version 1.2 or newer: each new connection gets what the identity is by then.
// If that has a client CA, clients must show a certificate that it signed. Null: plaintext.
std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(std::shared_ptr<const AccessControl> access,
                                                               std::shared_ptr<const TlsIdentity> identity);

}  // namespace cadre

#endif  // CADRE_SERVER_SERVER_CREDENTIALS_H_
