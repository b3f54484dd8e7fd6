// The process's log, on stderr: text for people or one JSON object a line for collectors. Whoever logs never waits for
// whoever reads: lines go through a queue, and are dropped and counted when stderr takes no more.
#ifndef CADRE_SERVER_LOGGING_H_
#define CADRE_SERVER_LOGGING_H_

#include <spdlog/formatter.h>

#include <memory>
#include <string>
#include <string_view>

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

// Writes past the log. False when stderr took not all of it: nobody reads it, and `patience` passed.
bool WriteToStderr(std::string_view text, absl::Duration patience);

// {"time":"2026-01-31T12:00:00.123Z","level":"info","message":"..."} and a new line.
std::unique_ptr<spdlog::formatter> MakeJsonFormatter();

}  // namespace cadre

#endif  // CADRE_SERVER_LOGGING_H_
