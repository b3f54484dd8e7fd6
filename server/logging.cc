#include "server/logging.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <poll.h>
#include <spdlog/async.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "engine/base/check.h"
#include "engine/base/strings.h"
#include "nlohmann/json.hpp"

namespace cadre {
namespace {

constexpr size_t kQueueLines = 8192;
// A write of at most this size to a pipe that is ready does not block (POSIX: PIPE_BUF).
constexpr size_t kAtomicWriteBytes = 4096;
constexpr absl::Duration kPatience = absl::Milliseconds(100);
// For the whole queue, at the end.
constexpr absl::Duration kFlushPatience = absl::Seconds(2);

// Unlike spdlog's own, never blocks on a pipe that nobody empties.
class StderrSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  // Waits until everything logged before a flush is written.
  void AwaitFlush(absl::Duration patience) {
    std::unique_lock lock(flush_mutex_);
    flushed_.wait_for(lock, absl::ToChronoNanoseconds(patience), [this] { return is_flushed_; });
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    if (num_dropped_ > 0 && Write(DroppedNotice(message.time))) num_dropped_ = 0;
    if (!Write(std::string_view(line.data(), line.size()))) ++num_dropped_;
  }
  void flush_() override {
    {
      const std::lock_guard lock(flush_mutex_);
      is_flushed_ = true;
    }
    flushed_.notify_all();
  }

 private:
  std::string DroppedNotice(spdlog::log_clock::time_point time) {
    const std::string text = absl::StrCat(num_dropped_, " log lines were dropped");
    spdlog::memory_buf_t line;
    formatter_->format(spdlog::details::log_msg(time, {}, "", spdlog::level::warn, text), line);
    return std::string(line.data(), line.size());
  }

  // Waits for a reader that is slow, but only once for one that is gone.
  bool Write(std::string_view text) { return WriteToStderr(text, num_dropped_ > 0 ? absl::ZeroDuration() : kPatience); }

  int64_t num_dropped_ = 0;
  std::mutex flush_mutex_;
  std::condition_variable flushed_;
  bool is_flushed_ = false;
};

// What a thread that logs may touch at any moment, the process's last one included: never destroyed.
struct Log {
  std::shared_ptr<StderrSink> sink;
  std::shared_ptr<spdlog::details::thread_pool> writer;
  std::shared_ptr<spdlog::async_logger> logger;
};
Log* log = nullptr;

// Bytes that are not UTF-8 become U+FFFD: a collector must be able to parse every line.
std::string ToLine(const nlohmann::ordered_json& object) {
  return object.dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
}

class JsonFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    nlohmann::ordered_json line;
    line["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromChrono(message.time), absl::UTCTimeZone());
    const spdlog::string_view_t level = spdlog::level::to_string_view(message.level);
    line["level"] = std::string(level.data(), level.size());
    // See LogWithFields.
    const std::string_view fields(message.logger_name.data(), message.logger_name.size());
    if (!fields.empty()) line.update(nlohmann::ordered_json::parse(fields));
    line["message"] = std::string(message.payload.data(), message.payload.size());
    const std::string text = ToLine(line);
    out.append(text.data(), text.data() + text.size());
    out.push_back('\n');
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<JsonFormatter>(); }
};

void LogGrpcMessage(gpr_log_func_args* args) { spdlog::debug("grpc: {}", args->message); }

void LogProtobufMessage(google::protobuf::LogLevel, const char*, int, const std::string& message) {
  spdlog::debug("protobuf: {}", message);
}

}  // namespace

bool WriteToStderr(std::string_view text, absl::Duration patience) {
  const int patience_ms = static_cast<int>(absl::ToInt64Milliseconds(patience));
  while (!text.empty()) {
    pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
    if (poll(&ready, 1, patience_ms) != 1 || (ready.revents & POLLOUT) == 0) return false;
    const ssize_t written = write(STDERR_FILENO, text.data(), std::min(text.size(), kAtomicWriteBytes));
    if (written <= 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

std::unique_ptr<spdlog::formatter> MakeJsonFormatter() { return std::make_unique<JsonFormatter>(); }

void StartLogging(const LogOptions& options) {
  CADRE_CHECK(log == nullptr);
  log = new Log{.sink = std::make_shared<StderrSink>(),
                .writer = std::make_shared<spdlog::details::thread_pool>(kQueueLines, 1),
                .logger = nullptr};
  auto logger =
      std::make_shared<spdlog::async_logger>("", log->sink, log->writer, spdlog::async_overflow_policy::overrun_oldest);
  log->logger = logger;
  if (options.json) {
    logger->set_formatter(MakeJsonFormatter());
  } else {
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %L %v");
  }
  logger->set_level(spdlog::level::from_str(options.level));
  spdlog::set_default_logger(std::move(logger));
  gpr_set_log_function(&LogGrpcMessage);
  google::protobuf::SetLogHandler(&LogProtobufMessage);
}

void LogWithFields(spdlog::level::level_enum level, LogFields fields, std::string_view message) {
  if (log == nullptr || !log->logger->should_log(level)) return;
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [name, value] : fields) {
    if (!value.empty()) object[std::string(name)] = std::string(value);
  }
  // A message of spdlog has no place for fields. The logger's name, which is ours and otherwise empty, takes them past
  // whatever a client may have put into the message.
  const std::string text = object.empty() ? "" : ToLine(object);
  log->writer->post_log(std::shared_ptr(log->logger),
                        spdlog::details::log_msg({}, text, level, {message.data(), message.size()}),
                        spdlog::async_overflow_policy::overrun_oldest);
}

void StopLogging() {
  log->logger->set_level(spdlog::level::off);
  log->logger->flush();
  log->sink->AwaitFlush(kFlushPatience);
}

}  // namespace cadre
