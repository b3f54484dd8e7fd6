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

// What gRPC's callbacks work with; as old as the credentials.
struct Door {
  std::shared_ptr<const AccessControl> access;
  std::shared_ptr<const TlsIdentity> identity;
  int64_t generation = 0;  // of the identity that gRPC has; under the lock of gRPC's connector
};

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
  const absl::Status status = static_cast<const Door*>(state)->access->CheckAtDoor(path, authorizations);
  const std::string message(status.message());
  done(user_data, nullptr, 0, nullptr, 0, static_cast<grpc_status_code>(status.code()),
       status.ok() ? nullptr : message.c_str());
}

// gRPC's question for each new connection.
grpc_ssl_certificate_config_reload_status FetchIdentity(void* state, grpc_ssl_server_certificate_config** config) {
  auto* const door = static_cast<Door*>(state);
  const auto material = door->identity->NewerThan(&door->generation);
  if (material == nullptr) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  const grpc_ssl_pem_key_cert_pair pair = {.private_key = material->private_key.c_str(),
                                           .cert_chain = material->certificate_chain.c_str()};
  // gRPC ends the process when it has none. Where clients are not asked for a certificate nobody looks at them.
  const std::string& roots = material->client_ca.has_value() ? *material->client_ca : material->certificate_chain;
  *config = grpc_ssl_server_certificate_config_create(roots.c_str(), &pair, 1);
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

// `door` must be owned by what comes back.
grpc_server_credentials* CreateCredentials(Door* door) {
  if (door->identity == nullptr) return grpc_insecure_server_credentials_create();
  const auto request = door->identity->has_client_ca() ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                                       : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;
  return grpc_ssl_server_credentials_create_with_options(
      grpc_ssl_server_credentials_create_options_using_config_fetcher(request, &FetchIdentity, door));
}

// gRPC's own class for plaintext takes no processor of metadata, though its core does.
class GuardedCredentials final : public grpc::ServerCredentials {
 public:
  explicit GuardedCredentials(Door door) : door_(std::move(door)) {}

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
    CADRE_CHECK(false);  // there is one already
  }

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    auto* const door = new Door(door_);
    grpc_server_credentials* const credentials = CreateCredentials(door);
    // Owned by the credentials, which the listener keeps as long as it needs them.
    grpc_server_credentials_set_auth_metadata_processor(
        credentials,
        {.process = &AskAccess, .destroy = [](void* state) { delete static_cast<Door*>(state); }, .state = door});
    const int port = grpc_server_add_http2_port(server, address.c_str(), credentials);
    grpc_server_credentials_release(credentials);
    return port;
  }

  const Door door_;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(std::shared_ptr<const AccessControl> access,
                                                               std::shared_ptr<const TlsIdentity> identity) {
  return std::make_shared<GuardedCredentials>(Door{.access = std::move(access), .identity = std::move(identity)});
}

}  // namespace cadre
