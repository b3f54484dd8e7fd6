#include "engine/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

// Linux moves at most 2 GiB - 4 KiB in one call; smaller calls also let a signal be noticed.
constexpr size_t kMaxReadBytes = size_t{1} << 26;

int64_t ToNanoseconds(const timespec& time) {
  return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + static_cast<int64_t>(time.tv_nsec);
}

absl::Status ErrnoStatus(const std::filesystem::path& path) { return absl::ErrnoToStatus(errno, path.string()); }

}  // namespace

InputFile::InputFile(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}

InputFile::InputFile(InputFile&& other) noexcept { *this = std::move(other); }

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  // The old descriptor is closed when `other` goes.
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  size_bytes_ = other.size_bytes_;
  modified_ns_ = other.modified_ns_;
  return *this;
}

InputFile::~InputFile() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<InputFile> InputFile::Open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer. It means nothing for the regular files that pass below.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return ErrnoStatus(path);
  InputFile file(path, fd);
  struct stat status {};
  if (fstat(fd, &status) != 0) return ErrnoStatus(path);
  if (!S_ISREG(status.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a regular file"));
  file.size_bytes_ = static_cast<int64_t>(status.st_size);
  file.modified_ns_ = ToNanoseconds(status.st_mtim);
  return file;
}

absl::Status InputFile::ReadAt(int64_t offset, std::span<std::byte> out) const {
  return internal::ReadFully(&pread, fd_, path_, offset, out);
}

void InputFile::ExpectSequentialReads() const {
  // Advice only: a file system that refuses it still reads correctly.
  (void)posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
}

absl::Status InputFile::CheckUnchanged() const {
  struct stat status {};
  if (fstat(fd_, &status) != 0) return ErrnoStatus(path_);
  if (static_cast<int64_t>(status.st_size) == size_bytes_ && ToNanoseconds(status.st_mtim) == modified_ns_) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(path_.string(), ": changed after it was opened (", size_bytes_,
                                          " bytes then, ", static_cast<int64_t>(status.st_size), " bytes now)"));
}

absl::Status InputFile::CheckSameFile(int fd) const {
  struct stat mine {};
  struct stat other {};
  if (fstat(fd_, &mine) != 0 || fstat(fd, &other) != 0) return ErrnoStatus(path_);
  if (mine.st_dev == other.st_dev && mine.st_ino == other.st_ino) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(path_.string(), ": another file has taken its name"));
}

absl::StatusOr<std::string> ReadFileToString(const std::filesystem::path& path, int64_t max_bytes) {
  CADRE_ASSIGN_OR_RETURN(const InputFile file, InputFile::Open(path));
  if (file.size_bytes() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": has ", file.size_bytes(), " bytes, limit is ", max_bytes));
  }
  std::string text(static_cast<size_t>(file.size_bytes()), '\0');
  CADRE_RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(text))));
  return text;
}

namespace internal {

absl::Status ReadFully(PreadFunction pread_function, int fd, const std::filesystem::path& path, int64_t offset,
                       std::span<std::byte> out) {
  size_t num_read = 0;
  while (num_read < out.size()) {
    const int64_t position = offset + static_cast<int64_t>(num_read);
    const ssize_t n = pread_function(fd, out.data() + num_read, std::min(out.size() - num_read, kMaxReadBytes),
                                     static_cast<off_t>(position));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const absl::Status error = ErrnoStatus(path);
      return absl::Status(error.code(), absl::StrCat(error.message(), ", reading at byte ", position));
    }
    if (n == 0) {
      return absl::DataLossError(absl::StrCat(path.string(), ": ends at byte ", position, ", expected ",
                                              out.size() - num_read, " more bytes"));
    }
    num_read += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

}  // namespace internal
}  // namespace cadre
