// cadre: the command line client of a cadre server.

#if __has_include(<google/protobuf/stubs/logging.h>)  // before protobuf 22
#include <google/protobuf/stubs/logging.h>
#endif

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>
#include <vector>

#include "tools/client.h"
#include "tools/commands.h"

namespace {

// "generate, experts, ..."
std::string CommandNames(const CLI::App& app) {
  std::string names;
  for (const CLI::App* command : app.get_subcommands({})) names += (names.empty() ? "" : ", ") + command->get_name();
  return names;
}

// CLI11's own words, but for the two most common mistakes.
std::string ExplainUsageError(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> extras = app.remaining(/*recurse=*/true);
  if (app.get_subcommands().empty()) {
    const bool has_word = !extras.empty() && !extras.front().empty() && extras.front()[0] != '-';
    return (has_word ? "there is no command \"" + extras.front() + "\"" : "a command is missing") +
           "; commands are: " + CommandNames(app);
  }
  for (const std::string& extra : extras) {
    if (extra.starts_with("-")) return "unknown option " + extra + "; see --help";
  }
  return error.what();
}

}  // namespace

int main(int argc, char** argv) {
#ifdef GOOGLE_LOG
  // What protobuf has to say, such as that a text is not UTF-8, the server says better.
  google::protobuf::SetLogHandler(nullptr);
#endif
  CLI::App app("Talks to a cadre server: generates text, and shows what its experts do.", "cadre");
  cadre::ClientOptions client;
  int exit_code = cadre::kExitOk;
  app.add_option("-a,--address", client.address, "Where the server listens (host:port)")
      ->envname("CADRE_ADDRESS")
      ->capture_default_str();
  app.add_flag("--json", client.json, "Print JSON, one object a line, instead of text for people");
  app.add_option("--tls-ca", client.tls_ca, "TLS: who may have signed the server's certificate (PEM)")
      ->envname("CADRE_TLS_CA");
  app.add_option("--tls-cert", client.tls_cert, "TLS: the certificate that the client shows (PEM)")
      ->envname("CADRE_TLS_CERT");
  app.add_option("--tls-key", client.tls_key, "Private key of --tls-cert (PEM)")->envname("CADRE_TLS_KEY");
  app.add_option("--tls-server-name", client.tls_server_name,
                 "TLS: the name in the server's certificate, not the address")
      ->envname("CADRE_TLS_SERVER_NAME");
  app.add_option("--api-key-file", client.api_key_file, "File with the API key; without one: CADRE_API_KEY")
      ->envname("CADRE_API_KEY_FILE");
  app.set_version_flag("--version", "cadre " CADRE_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.footer("Exit codes: 0 ok, 1 refused or not serving, 64 wrong usage, 69 nobody answers.");

  cadre::AddGenerateCommand(app, client, &exit_code);
  cadre::AddChatCommand(app, client, &exit_code);
  cadre::AddExpertsCommand(app, client, &exit_code);
  cadre::AddBenchCommand(app, client, &exit_code);
  cadre::AddTopCommand(app, client, &exit_code);
  cadre::AddModelCommand(app, client, &exit_code);
  cadre::AddTokenizeCommand(app, client, &exit_code);
  cadre::AddProfileCommand(app, client, &exit_code);
  cadre::AddPinCommand(app, client, &exit_code);
  cadre::AddHealthCommand(app, client, &exit_code);

  // Before the subcommand runs, which is within the parse. Set last: subcommands would take it over.
  app.immediate_callback();
  app.parse_complete_callback([&client] {
    const absl::Status status = cadre::LoadSecrets(&client);
    if (!status.ok()) throw CLI::ValidationError(std::string(status.message()), CLI::ExitCodes::ValidationError);
  });

  // Parsing also runs the subcommand.
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& answer) {  // --help, --version
    return app.exit(answer);
  } catch (const CLI::ParseError& error) {
    std::cerr << "cadre: " << ExplainUsageError(app, error) << "\n";
    return cadre::kExitUsage;
  }
  return exit_code;
}
