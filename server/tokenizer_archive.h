// The files that a tokenizer is made of, as one ZIP archive.
#ifndef CADRE_SERVER_TOKENIZER_ARCHIVE_H_
#define CADRE_SERVER_TOKENIZER_ARCHIVE_H_

#include <cstddef>
#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace cadre {

// What clients take: so many files, and bytes of all of them together.
inline constexpr size_t kMaxArchiveFiles = 50;
inline constexpr size_t kMaxArchiveBytes = size_t{200} << 20;

struct TokenizerArchive {
  std::string zip;
  std::string sha256;  // of `zip`, in lower-case hexadecimal
};

// Of the files in `folder` that tokenizers, their configuration and chat templates have, in the order of their names,
// stored without compression or times: the same files give the same bytes. FAILED_PRECONDITION when there is none;
// RESOURCE_EXHAUSTED names the limit.
absl::StatusOr<TokenizerArchive> MakeTokenizerArchive(const std::filesystem::path& folder);

}  // namespace cadre

#endif  // CADRE_SERVER_TOKENIZER_ARCHIVE_H_
