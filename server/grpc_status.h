// Errors as gRPC takes them.
#ifndef CADRE_SERVER_GRPC_STATUS_H_
#define CADRE_SERVER_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"
#include "server/errors.h"

namespace cadre {

// ToWireStatus (errors.h), with the details where clients look for them.
inline grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status wire = ToWireStatus(status);
  return grpc::Status(static_cast<grpc::StatusCode>(wire.code()), wire.message(), wire.SerializeAsString());
}

}  // namespace cadre

#endif  // CADRE_SERVER_GRPC_STATUS_H_
