#include "server/tokenizer_archive.h"

#include <openssl/sha.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "server/errors.h"

namespace cadre {
namespace {

// Public names of Hugging Face's tokenizers; beside them go all files that end like one of kSuffixes.
constexpr std::array<std::string_view, 9> kNames = {
    "chat_template.json",      "config.json",    "generation_config.json", "merges.txt",
    "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",  "vocab.json",
    "added_tokens.json",
};
constexpr std::array<std::string_view, 3> kSuffixes = {".jinja", ".model", ".tiktoken"};

// ZIP's records, as APPNOTE.TXT has them: all numbers little-endian.
constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr uint32_t kCentralHeader = 0x02014b50;
constexpr uint32_t kEndOfDirectory = 0x06054b50;
constexpr uint16_t kVersion = 20;
constexpr uint16_t kUtf8Names = 1 << 11;
constexpr uint16_t kStored = 0;
constexpr uint16_t kFirstDay = (1 << 5) | 1;  // 1980-01-01: an archive knows no earlier one

struct Entry {
  std::string name;
  uint32_t crc = 0;
  uint32_t size = 0;
  uint32_t offset = 0;  // of its local header
};

template <typename Number>
void Append(Number number, std::string* out) {
  for (size_t i = 0; i < sizeof(number); ++i) out->push_back(static_cast<char>((number >> (8 * i)) & 0xFF));
}

// What both headers of a file have in common.
void AppendFileFacts(const Entry& entry, std::string* out) {
  Append(kVersion, out);
  Append(kUtf8Names, out);
  Append(kStored, out);
  Append(uint16_t{0}, out);  // midnight
  Append(kFirstDay, out);
  Append(entry.crc, out);
  Append(entry.size, out);  // as stored
  Append(entry.size, out);
  Append(static_cast<uint16_t>(entry.name.size()), out);
  Append(uint16_t{0}, out);  // bytes of extra fields
}

void AppendCentralHeader(const Entry& entry, std::string* out) {
  Append(kCentralHeader, out);
  Append(kVersion, out);  // that made it
  AppendFileFacts(entry, out);
  Append(uint16_t{0}, out);  // bytes of the comment
  Append(uint16_t{0}, out);  // disk
  Append(uint16_t{0}, out);  // internal attributes
  Append(uint32_t{0}, out);  // external attributes
  Append(entry.offset, out);
  out->append(entry.name);
}

bool IsTokenizerFile(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end() ||
         std::any_of(kSuffixes.begin(), kSuffixes.end(), [&](std::string_view end) { return name.ends_with(end); });
}

absl::StatusOr<std::vector<std::filesystem::path>> ListFiles(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (auto it = std::filesystem::directory_iterator(folder, error); !error && it != end(it); it.increment(error)) {
    std::error_code is_gone;
    if (IsTokenizerFile(it->path()) && it->is_regular_file(is_gone)) files.push_back(it->path());
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    return MakeError({.code = absl::StatusCode::kFailedPrecondition,
                      .reason = reason::kNoTokenizerFiles,
                      .message = "the model has no tokenizer files that could be sent"});
  }
  return files;
}

absl::Status TooLarge(absl::string_view what, size_t limit) {
  return absl::ResourceExhaustedError(absl::StrCat("the tokenizer's files have more than ", limit, " ", what));
}

absl::Status AppendFile(const std::filesystem::path& path, std::string* zip, std::vector<Entry>* entries) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  if (size < 0) return absl::InternalError(absl::StrCat("cannot read ", path.string()));
  if (zip->size() + static_cast<size_t>(size) > kMaxArchiveBytes) return TooLarge("bytes", kMaxArchiveBytes);
  std::string data(static_cast<size_t>(size), '\0');
  if (!file.seekg(0) || !file.read(data.data(), size)) {
    return absl::InternalError(absl::StrCat("cannot read ", path.string()));
  }
  Entry entry{.name = path.filename().string(), .size = static_cast<uint32_t>(size)};
  entry.offset = static_cast<uint32_t>(zip->size());
  entry.crc = static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(size)));
  Append(kLocalHeader, zip);
  AppendFileFacts(entry, zip);
  zip->append(entry.name).append(data);
  entries->push_back(std::move(entry));
  return absl::OkStatus();
}

std::string Sha256(std::string_view data) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest = {};
  SHA256(reinterpret_cast<const unsigned char*>(data.data()), data.size(), digest.data());
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

}  // namespace

absl::StatusOr<TokenizerArchive> MakeTokenizerArchive(const std::filesystem::path& folder) {
  CADRE_ASSIGN_OR_RETURN(const std::vector<std::filesystem::path> files, ListFiles(folder));
  if (files.size() > kMaxArchiveFiles) return TooLarge("files", kMaxArchiveFiles);
  TokenizerArchive archive;
  std::vector<Entry> entries;
  for (const std::filesystem::path& path : files) CADRE_RETURN_IF_ERROR(AppendFile(path, &archive.zip, &entries));
  const auto directory = static_cast<uint32_t>(archive.zip.size());
  for (const Entry& entry : entries) AppendCentralHeader(entry, &archive.zip);
  const auto directory_bytes = static_cast<uint32_t>(archive.zip.size()) - directory;
  Append(kEndOfDirectory, &archive.zip);
  Append(uint16_t{0}, &archive.zip);  // this disk
  Append(uint16_t{0}, &archive.zip);  // the disk of the directory
  Append(static_cast<uint16_t>(entries.size()), &archive.zip);
  Append(static_cast<uint16_t>(entries.size()), &archive.zip);
  Append(directory_bytes, &archive.zip);
  Append(directory, &archive.zip);
  Append(uint16_t{0}, &archive.zip);  // bytes of the comment
  archive.sha256 = Sha256(archive.zip);
  return archive;
}

}  // namespace cadre
