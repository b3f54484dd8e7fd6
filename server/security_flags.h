// The flags that say who may call the server.
#ifndef CADRE_SERVER_SECURITY_FLAGS_H_
#define CADRE_SERVER_SECURITY_FLAGS_H_

#include <CLI/CLI.hpp>
#include <string>

#include "server/tenant_limiter.h"

namespace cadre {

struct SecurityConfig {
  std::string tls_cert;  // paths; empty: plaintext
  std::string tls_key;
  std::string tls_client_ca;  // empty: clients show no certificate
  std::string api_keys_file;  // empty: none are asked for
  bool operator_services = false;
  TenantLimits tenant_limits;
};

// `config` must stay where it is until the flags are parsed.
void AddSecurityOptions(CLI::App& app, SecurityConfig* config);

// After parsing: which flag lacks another, as "--flag: problem"; empty where none does.
std::string FindSecurityFault(const SecurityConfig& config);

}  // namespace cadre

#endif  // CADRE_SERVER_SECURITY_FLAGS_H_
