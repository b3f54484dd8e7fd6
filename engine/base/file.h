// Reading files that come from outside. They are read, never mapped: a mapped file that another process cuts short
// kills the reader with SIGBUS, a read one ends early and gives a status.
#ifndef CADRE_ENGINE_BASE_FILE_H_
#define CADRE_ENGINE_BASE_FILE_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace cadre {

// A regular file, open for positioned reads. Movable; reads are thread-safe.
class InputFile {
 public:
  // A symbolic link is followed (model caches are made of them), but what it leads to must be a regular file: a FIFO,
  // a device or a directory is INVALID_ARGUMENT and is never waited for. Otherwise the error of open(2), by name.
  static absl::StatusOr<InputFile> Open(const std::filesystem::path& path);

  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;
  ~InputFile();

  const std::filesystem::path& path() const { return path_; }
  int64_t size_bytes() const { return size_bytes_; }  // when it was opened

  // Fills `out` from byte `offset` on. DATA_LOSS when the file ends first.
  absl::Status ReadAt(int64_t offset, std::span<std::byte> out) const;

  // Tells the kernel that reads rise from here on, so that it reads ahead at the disk's full rate.
  void ExpectSequentialReads() const;

  // DATA_LOSS when the file was written to since it was opened, as far as size and modification time tell.
  absl::Status CheckUnchanged() const;

  // FAILED_PRECONDITION if `fd` is of another file.
  absl::Status CheckSameFile(int fd) const;

 private:
  InputFile(std::filesystem::path path, int fd);

  std::filesystem::path path_;
  int fd_ = -1;
  int64_t size_bytes_ = 0;
  int64_t modified_ns_ = 0;
};

// The whole file. INVALID_ARGUMENT, before anything is read, when it has more than `max_bytes`.
absl::StatusOr<std::string> ReadFileToString(const std::filesystem::path& path, int64_t max_bytes);

namespace internal {

using PreadFunction = ssize_t (*)(int fd, void* out, size_t size, off_t offset);

// InputFile::ReadAt over any pread: goes on after short reads and EINTR.
absl::Status ReadFully(PreadFunction pread_function, int fd, const std::filesystem::path& path, int64_t offset,
                       std::span<std::byte> out);

}  // namespace internal
}  // namespace cadre

#endif  // CADRE_ENGINE_BASE_FILE_H_
