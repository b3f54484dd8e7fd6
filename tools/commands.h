// The subcommands of `cadre`. Each Add... function adds one to the program; when it is the one asked for, it runs and
// leaves the exit code. `client` and `exit_code` outlive `app`.
#ifndef CADRE_TOOLS_COMMANDS_H_
#define CADRE_TOOLS_COMMANDS_H_

#include <CLI/CLI.hpp>

#include "tools/client.h"

namespace cadre {

void AddGenerateCommand(CLI::App& app, const ClientOptions& client, int* exit_code);
void AddExpertsCommand(CLI::App& app, const ClientOptions& client, int* exit_code);
void AddBenchCommand(CLI::App& app, const ClientOptions& client, int* exit_code);
void AddTopCommand(CLI::App& app, const ClientOptions& client, int* exit_code);
void AddChatCommand(CLI::App& app, const ClientOptions& client, int* exit_code);
void AddModelCommand(CLI::App& app, const ClientOptions& client, int* exit_code);
void AddTokenizeCommand(CLI::App& app, const ClientOptions& client, int* exit_code);
void AddProfileCommand(CLI::App& app, const ClientOptions& client, int* exit_code);
void AddPinCommand(CLI::App& app, const ClientOptions& client, int* exit_code);
void AddHealthCommand(CLI::App& app, const ClientOptions& client, int* exit_code);

}  // namespace cadre

#endif  // CADRE_TOOLS_COMMANDS_H_
