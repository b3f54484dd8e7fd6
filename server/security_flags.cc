#include "server/security_flags.h"

namespace cadre {

void AddSecurityOptions(CLI::App& app, SecurityConfig* config) {
  app.add_option("--api-keys-file", config->api_keys_file,
                 "Every call but health needs a key of this file: NAME ROLES SECRET a line; read again when it "
                 "changes");
  app.add_flag("--enable-operator-services,!--disable-operator-services", config->operator_services,
               "Answer calls that change the server for everybody: capacity, pins, profiles, resets");
}

}  // namespace cadre
