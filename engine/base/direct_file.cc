#include "engine/base/direct_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};

// Null while there is no memory for it.
std::byte* ThreadBuffer() {
  thread_local std::unique_ptr<std::byte, Free> buffer;
  if (buffer == nullptr) {
    buffer.reset(static_cast<std::byte*>(std::aligned_alloc(static_cast<size_t>(DirectFile::kAlignment),
                                                            static_cast<size_t>(DirectFile::kBufferBytes))));
  }
  return buffer.get();
}

absl::Status ReadError(const InputFile& file, int64_t offset) {
  const absl::Status error = absl::ErrnoToStatus(errno, file.path().string());
  return absl::Status(error.code(), absl::StrCat(error.message(), ", reading at byte ", offset));
}

}  // namespace

DirectFile::DirectFile(DirectFile&& other) noexcept : file_(other.file_), fd_(std::exchange(other.fd_, -1)) {}

DirectFile& DirectFile::operator=(DirectFile&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(fd_, other.fd_);
  return *this;
}

DirectFile::~DirectFile() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<DirectFile> DirectFile::Open(const InputFile& file) {
  const std::string path = file.path().string();
  DirectFile direct(&file, open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_DIRECT));
  if (direct.fd_ < 0) {
    const absl::Status error = absl::ErrnoToStatus(errno, "it cannot be opened past the page cache");
    return absl::FailedPreconditionError(absl::StrCat(path, ": ", error.message()));
  }
  CADRE_RETURN_IF_ERROR(file.CheckSameFile(direct.fd_));
  // Some file systems only say so at the first read.
  std::byte probe{};
  if (file.size_bytes() == 0) return direct;
  if (const absl::Status read = direct.ReadAt(0, std::span(&probe, 1)); !read.ok()) {
    return absl::FailedPreconditionError(absl::StrCat("it cannot be read past the page cache: ", read.message()));
  }
  return direct;
}

absl::Status DirectFile::ReadAt(int64_t offset, std::span<std::byte> out) const {
  std::byte* const buffer = ThreadBuffer();
  if (buffer == nullptr) return absl::ResourceExhaustedError("no memory to read through");
  size_t num_read = 0;
  while (num_read < out.size()) {
    const int64_t position = offset + static_cast<int64_t>(num_read);
    const int64_t begin = position / kAlignment * kAlignment;
    const auto skipped = static_cast<size_t>(position - begin);
    const size_t wanted = std::min(skipped + out.size() - num_read, static_cast<size_t>(kBufferBytes));
    const size_t blocks = (wanted + kAlignment - 1) / kAlignment;
    const ssize_t n = pread(fd_, buffer, blocks * kAlignment, static_cast<off_t>(begin));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ReadError(*file_, position);
    if (static_cast<size_t>(n) <= skipped) {
      return absl::DataLossError(absl::StrCat(file_->path().string(), ": ends at byte ", begin + n, ", expected ",
                                              out.size() - num_read, " more bytes"));
    }
    const size_t count = std::min(static_cast<size_t>(n) - skipped, out.size() - num_read);
    std::memcpy(out.data() + num_read, buffer + skipped, count);
    num_read += count;
  }
  return absl::OkStatus();
}

}  // namespace cadre
