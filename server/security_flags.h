// The flags that say who may call the server.
#ifndef CADRE_SERVER_SECURITY_FLAGS_H_
#define CADRE_SERVER_SECURITY_FLAGS_H_

#include <CLI/CLI.hpp>
#include <string>

namespace cadre {

struct SecurityConfig {
  std::string api_keys_file;  // empty: none are asked for
  bool operator_services = false;
};

// `config` must stay where it is until the flags are parsed.
void AddSecurityOptions(CLI::App& app, SecurityConfig* config);

}  // namespace cadre

#endif  // CADRE_SERVER_SECURITY_FLAGS_H_
