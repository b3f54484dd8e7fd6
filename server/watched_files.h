// Small files that may change while the server runs: keys and certificates. What they say now holds until they say
// something else that is right; a mistake in a file changes nothing but the log and a counter.
#ifndef CADRE_SERVER_WATCHED_FILES_H_
#define CADRE_SERVER_WATCHED_FILES_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace cadre {

// A file that somebody else than the server's user may have an eye on.
struct GuardedFile {
  std::string flag;  // "--tls-key", for messages
  std::string path;
  size_t max_bytes = 1 << 20;
};

// What a file holds. Errors name flag, path and reason: it cannot be read, is no regular file, is bigger than its
// limit, or may be written by the group or by everybody, who could give themselves rights that way.
absl::StatusOr<std::string> ReadGuardedFile(const GuardedFile& file);
// Whether everybody on the machine may read it.
bool IsReadableByAll(const std::string& path);

// Some files that only make sense together. One thread at a time.
class WatchedFiles {
 public:
  // Takes what the files hold, in their order; an error leaves everything as it was.
  using Install = std::function<absl::Status(const std::vector<std::string>& texts)>;
  WatchedFiles(std::vector<GuardedFile> files, Install install);

  // Once, before all else.
  absl::Status LoadFirst();
  // Installs what is new. Absent: nothing is. An error is told when it is seen a second time, because whoever replaces
  // two files does so one after the other; and then once, until the files change again. What was wrong is tried again
  // at each poll: a certificate becomes valid by time alone.
  std::optional<absl::Status> Poll();
  // Whether an error was told, and the files are still what it is about.
  bool is_wrong() const { return !told_wrong_.empty(); }

 private:
  absl::StatusOr<std::vector<std::string>> Read() const;

  const std::vector<GuardedFile> files_;
  const Install install_;
  // Fingerprints of what was read, or of the error instead of it.
  std::string installed_;
  std::string seen_wrong_;
  std::string told_wrong_;
};

// Calls each of `polls` every interval, on a thread of its own.
class FileWatch {
 public:
  FileWatch(std::vector<std::function<void()>> polls, absl::Duration interval);
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;
  // Waits for the call that is under way.
  ~FileWatch();

 private:
  void Run();

  const std::vector<std::function<void()>> polls_;
  const absl::Duration interval_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_WATCHED_FILES_H_
