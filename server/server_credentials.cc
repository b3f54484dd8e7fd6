#include "server/server_credentials.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/check.h"

namespace cadre {
namespace {

using AccessPointer = std::shared_ptr<const AccessControl>;

std::string_view ToView(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

// gRPC's question, on a thread of the connection: answers at once.
void AskAccess(void* state, grpc_auth_context*, const grpc_metadata* metadata, size_t num_metadata,
               grpc_process_auth_metadata_done_cb done, void* user_data) {
  std::string_view path;
  std::vector<std::string_view> authorizations;
  for (size_t i = 0; i < num_metadata; ++i) {
    const std::string_view key = ToView(metadata[i].key);
    if (key == ":path") path = ToView(metadata[i].value);
    if (key == "authorization") authorizations.push_back(ToView(metadata[i].value));
  }
  const absl::Status status = (*static_cast<const AccessPointer*>(state))->Check(path, authorizations);
  const std::string message(status.message());
  done(user_data, nullptr, 0, nullptr, 0, static_cast<grpc_status_code>(status.code()),
       status.ok() ? nullptr : message.c_str());
}

// gRPC's own class for plaintext takes no processor of metadata, though its core does.
class GuardedCredentials final : public grpc::ServerCredentials {
 public:
  explicit GuardedCredentials(AccessPointer access) : access_(std::move(access)) {}

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
    CADRE_CHECK(false);  // there is one already
  }

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    grpc_server_credentials* const credentials = grpc_insecure_server_credentials_create();
    // Owned by the credentials, which the listener keeps as long as it needs them.
    grpc_server_credentials_set_auth_metadata_processor(
        credentials, {.process = &AskAccess,
                      .destroy = [](void* state) { delete static_cast<AccessPointer*>(state); },
                      .state = new AccessPointer(access_)});
    const int port = grpc_server_add_http2_port(server, address.c_str(), credentials);
    grpc_server_credentials_release(credentials);
    return port;
  }

  const AccessPointer access_;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(std::shared_ptr<const AccessControl> access) {
  return std::make_shared<GuardedCredentials>(std::move(access));
}

}  // namespace cadre
