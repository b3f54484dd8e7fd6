#include "server/security_flags.h"

namespace cadre {

void AddSecurityOptions(CLI::App& app, SecurityConfig* config) {
  app.add_option("--tls-cert", config->tls_cert,
                 "gRPC speaks TLS with this certificate and those that signed it (PEM); read again when it changes");
  app.add_option("--tls-key", config->tls_key, "Private key of --tls-cert (PEM, without a passphrase)");
  app.add_option("--tls-client-ca", config->tls_client_ca,
                 "Clients must show a certificate that one of these signed (PEM)");
  app.add_option("--api-keys-file", config->api_keys_file,
                 "Every call but health needs a key of this file: NAME ROLES SECRET a line; read again when it "
                 "changes");
  TenantLimits& limits = config->tenant_limits;
  app.add_option("--tenant-requests-per-second", limits.requests_per_second,
                 "Generation requests of one tenant; faster ones are refused; 0: no limit")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--tenant-burst", limits.burst, "Requests of one tenant that may come at once after a pause")
      ->check(CLI::Range(1.0, 1e6));
  app.add_option("--tenant-max-concurrent", limits.max_concurrent,
                 "Generation requests of one tenant that are not answered yet; 0: no limit")
      ->check(CLI::Range(0, 1 << 20));
  app.add_flag("--enable-operator-services,!--disable-operator-services", config->operator_services,
               "Answer calls that change the server for everybody: capacity, pins, profiles, resets");
}

std::string FindSecurityFault(const SecurityConfig& config) {
  if (config.tls_cert.empty() != config.tls_key.empty()) {
    return config.tls_cert.empty() ? "--tls-key: needs --tls-cert" : "--tls-cert: needs --tls-key";
  }
  if (!config.tls_client_ca.empty() && config.tls_cert.empty()) return "--tls-client-ca: needs --tls-cert";
  return "";
}

}  // namespace cadre
