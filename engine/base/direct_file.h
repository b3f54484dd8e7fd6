// Reads past the operating system's page cache (O_DIRECT): for data that is read again and again, is larger than the
// memory, and is cached by whoever reads it. A page cache of it would hold the same bytes twice, and put out what
// others have in it.
#ifndef CADRE_ENGINE_BASE_DIRECT_FILE_H_
#define CADRE_ENGINE_BASE_DIRECT_FILE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/file.h"

namespace cadre {

// Movable; reads are thread-safe.
class DirectFile {
 public:
  // The same file as `file`, which outlives it. FAILED_PRECONDITION where the file system cannot do it (tmpfs, for
  // one), or where another file has taken its name meanwhile.
  static absl::StatusOr<DirectFile> Open(const InputFile& file);

  DirectFile(DirectFile&& other) noexcept;
  DirectFile& operator=(DirectFile&& other) noexcept;
  ~DirectFile();

  // As InputFile::ReadAt. What is read passes through memory of the thread's own, of kBufferBytes.
  absl::Status ReadAt(int64_t offset, std::span<std::byte> out) const;

  // Disks read whole blocks of theirs, to memory that lies alike.
  static constexpr int64_t kAlignment = 4096;
  static constexpr int64_t kBufferBytes = (int64_t{1} << 20) + kAlignment;

 private:
  DirectFile(const InputFile* file, int fd) : file_(file), fd_(fd) {}

  const InputFile* file_;
  int fd_ = -1;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_BASE_DIRECT_FILE_H_
