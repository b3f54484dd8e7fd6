// Options that take a duration, such as --timeout.
#ifndef CADRE_TOOLS_DURATION_OPTION_H_
#define CADRE_TOOLS_DURATION_OPTION_H_

#include <CLI/CLI.hpp>
#include <string>

#include "absl/time/time.h"
#include "tools/client.h"

namespace cadre {

// `*duration` holds the default.
inline CLI::Option* AddDurationOption(CLI::App& command, const std::string& name, absl::Duration* duration,
                                      const std::string& description) {
  return command
      .add_option_function<std::string>(
          name,
          [name, duration](const std::string& text) {
            if (!ParseTimeout(text, duration)) {
              throw CLI::ValidationError(name, "\"" + text + "\" is no duration; try 30s, 500ms or 1.5");
            }
          },
          description)
      ->type_name("DURATION")
      ->default_str(*duration > absl::ZeroDuration() ? absl::FormatDuration(*duration) : "none");
}

inline CLI::Option* AddTimeoutOption(CLI::App& command, absl::Duration* timeout) {
  return AddDurationOption(command, "--timeout", timeout, "Give up after so long");
}

}  // namespace cadre

#endif  // CADRE_TOOLS_DURATION_OPTION_H_
