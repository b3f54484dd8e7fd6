// The process's log, on stderr: text for people or one JSON object a line for collectors. Whoever logs never waits for
// whoever reads: lines go through a queue, and are dropped and counted when stderr takes no more.
#ifndef CADRE_SERVER_LOGGING_H_
#define CADRE_SERVER_LOGGING_H_

#include <spdlog/common.h>
#include <spdlog/formatter.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/time/time.h"

namespace cadre {

struct LogOptions {
  std::string level = "info";  // debug, info, warn, error
  bool json = false;
};

// Sets spdlog's default logger, and sends the messages of gRPC and Protocol Buffers there at level debug, because
// clients can cause as many of them as they like (GRPC_VERBOSITY still chooses which). Once, before the first log line.
void StartLogging(const LogOptions& options);

// Writes what is queued, waiting at most a moment for a stderr that is not read. Once, last; lines logged from then on,
// by threads of libraries that go on, are dropped.
void StopLogging();

// A line whose `fields`, names and values, stand by themselves in JSON, between level and message; those with an empty
// value are left out, and so are all of them in text. No name is one that every line has. Any thread; before
// StartLogging and after StopLogging nothing is written.
using LogFields = std::initializer_list<std::pair<std::string_view, std::string_view>>;
void LogWithFields(spdlog::level::level_enum level, LogFields fields, std::string_view message);

// Writes past the log. False when stderr took not all of it: nobody reads it, and `patience` passed.
bool WriteToStderr(std::string_view text, absl::Duration patience);

// {"time":"2026-01-31T12:00:00.123Z","level":"info","message":"..."}, with what fields there are, and a new line.
std::unique_ptr<spdlog::formatter> MakeJsonFormatter();

}  // namespace cadre

#endif  // CADRE_SERVER_LOGGING_H_
