#include "server/watched_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "server/api_keys.h"

namespace cadre {
namespace {

absl::Status FileError(const GuardedFile& file, const std::string& reason) {
  return absl::InvalidArgumentError(absl::StrCat(file.flag, ": ", file.path, ": ", reason));
}

void AddDigest(const std::string& text, std::string* fingerprint) {
  const Sha256Digest digest = Sha256(text);
  fingerprint->append(digest.begin(), digest.end());
}

// Secrets themselves are not kept for the comparison.
std::string Fingerprint(const absl::StatusOr<std::vector<std::string>>& texts) {
  std::string fingerprint = texts.ok() ? "texts" : "error";
  if (!texts.ok()) AddDigest(std::string(texts.status().message()), &fingerprint);
  for (size_t i = 0; texts.ok() && i < texts->size(); ++i) AddDigest((*texts)[i], &fingerprint);
  return fingerprint;
}

}  // namespace

absl::StatusOr<std::string> ReadGuardedFile(const GuardedFile& file) {
  // A pipe must not make the server wait for whoever writes to it.
  const int fd = open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return FileError(file, strerror(errno));
  const absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat info = {};
  if (fstat(fd, &info) != 0) return FileError(file, strerror(errno));
  if (!S_ISREG(info.st_mode)) return FileError(file, "is no regular file");
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return FileError(file,
                     absl::StrCat("may be written by others than its owner (mode ", absl::Hex(info.st_mode >> 6 & 7),
                                  absl::Hex(info.st_mode >> 3 & 7), absl::Hex(info.st_mode & 7), "): chmod go-w"));
  }
  std::string text(file.max_bytes + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t count = read(fd, text.data() + size, text.size() - size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FileError(file, strerror(errno));
    if (count == 0) break;
    size += static_cast<size_t>(count);
  }
  if (size > file.max_bytes) return FileError(file, absl::StrCat("is bigger than ", file.max_bytes, " bytes"));
  text.resize(size);
  return text;
}

bool IsReadableByAll(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0 && (info.st_mode & S_IROTH) != 0;
}

WatchedFiles::WatchedFiles(std::vector<GuardedFile> files, Install install)
    : files_(std::move(files)), install_(std::move(install)) {}

absl::StatusOr<std::vector<std::string>> WatchedFiles::Read() const {
  std::vector<std::string> texts;
  for (const GuardedFile& file : files_) {
    CADRE_ASSIGN_OR_RETURN(std::string text, ReadGuardedFile(file));
    texts.push_back(std::move(text));
  }
  return texts;
}

absl::Status WatchedFiles::LoadFirst() {
  const absl::StatusOr<std::vector<std::string>> texts = Read();
  CADRE_RETURN_IF_ERROR(texts.status());
  CADRE_RETURN_IF_ERROR(install_(*texts));
  installed_ = Fingerprint(texts);
  return absl::OkStatus();
}

std::optional<absl::Status> WatchedFiles::Poll() {
  const absl::StatusOr<std::vector<std::string>> texts = Read();
  const std::string fingerprint = Fingerprint(texts);
  if (fingerprint == installed_) {
    seen_wrong_.clear();
    told_wrong_.clear();
    return std::nullopt;
  }
  absl::Status status = texts.ok() ? install_(*texts) : texts.status();
  if (status.ok()) {
    installed_ = fingerprint;
    seen_wrong_.clear();
    told_wrong_.clear();
    return status;
  }
  if (fingerprint == told_wrong_) return std::nullopt;
  if (fingerprint != seen_wrong_) {
    seen_wrong_ = fingerprint;
    return std::nullopt;
  }
  told_wrong_ = fingerprint;
  return status;
}

FileWatch::FileWatch(std::vector<std::function<void()>> polls, absl::Duration interval)
    : polls_(std::move(polls)), interval_(interval), thread_([this] { Run(); }) {}

FileWatch::~FileWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void FileWatch::Run() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, absl::ToChronoNanoseconds(interval_), [this] { return stopping_; })) {
    lock.unlock();
    for (const auto& poll : polls_) poll();
    lock.lock();
  }
}

}  // namespace cadre
