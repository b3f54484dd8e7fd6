#include "proto/profile_file.h"

#include <zlib.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace cadre {
namespace {

constexpr std::string_view kMagic = "CADREPRF";
constexpr uint32_t kFileVersion = 1;
constexpr size_t kHeadBytes = 8 + 4 + 8;
constexpr size_t kTailBytes = 4;

void AppendNumber(uint64_t value, int num_bytes, std::string* bytes) {
  for (int i = 0; i < num_bytes; ++i) bytes->push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t NumberAt(std::string_view bytes, size_t position, int num_bytes) {
  uint64_t value = 0;
  for (int i = 0; i < num_bytes; ++i) {
    value |= uint64_t{static_cast<unsigned char>(bytes[position + static_cast<size_t>(i)])} << (8 * i);
  }
  return value;
}

uint32_t Checksum(std::string_view message) {
  return static_cast<uint32_t>(
      crc32(crc32(0, nullptr, 0), reinterpret_cast<const Bytef*>(message.data()), static_cast<uInt>(message.size())));
}

absl::Status FileError(std::string_view what, const std::string& path) {
  return absl::UnavailableError(absl::StrCat(std::string(what), " ", path, ": ", std::strerror(errno)));
}

}  // namespace

std::string EncodeProfile(const v1::ExpertProfile& profile) {
  const std::string message = profile.SerializeAsString();
  std::string bytes(kMagic);
  AppendNumber(kFileVersion, 4, &bytes);
  AppendNumber(message.size(), 8, &bytes);
  bytes += message;
  AppendNumber(Checksum(message), 4, &bytes);
  return bytes;
}

absl::StatusOr<v1::ExpertProfile> DecodeProfile(const std::string& bytes) {
  const std::string_view all = bytes;
  if (all.size() < kHeadBytes + kTailBytes || all.substr(0, kMagic.size()) != kMagic) {
    return absl::InvalidArgumentError("is no profile of cadre");
  }
  if (const uint64_t version = NumberAt(all, 8, 4); version != kFileVersion) {
    return absl::InvalidArgumentError(absl::StrCat("has version ", version, "; version ", kFileVersion, " is read"));
  }
  const uint64_t size = NumberAt(all, 12, 8);
  if (size != all.size() - kHeadBytes - kTailBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("says that it has ", size, " bytes of profile, and has ", all.size() - kHeadBytes - kTailBytes));
  }
  const std::string_view message = all.substr(kHeadBytes, size);
  if (NumberAt(all, kHeadBytes + size, 4) != Checksum(message)) {
    return absl::InvalidArgumentError("is damaged: its checksum is another");
  }
  v1::ExpertProfile profile;
  if (!profile.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
    return absl::InvalidArgumentError("holds no profile, although its checksum is right");
  }
  return profile;
}

absl::Status WriteProfile(const v1::ExpertProfile& profile, const std::string& path) {
  const std::string partial = path + ".partial";
  std::ofstream file(partial, std::ios::binary | std::ios::trunc);
  file << EncodeProfile(profile);
  file.close();
  if (!file) {
    absl::Status status = FileError("cannot write", partial);
    std::remove(partial.c_str());
    return status;
  }
  if (std::rename(partial.c_str(), path.c_str()) != 0) {
    absl::Status status = FileError("cannot write", path);
    std::remove(partial.c_str());
    return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::ExpertProfile> ReadProfileFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return FileError("cannot read", path);
  // Devices and pipes tell no size, or a wrong one.
  std::string bytes(kMaxProfileBytes + 1, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (file.bad()) return FileError("cannot read", path);
  bytes.resize(static_cast<size_t>(file.gcount()));
  if (bytes.size() > kMaxProfileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has more than ", kMaxProfileBytes, " bytes, which is the limit of a profile"));
  }
  absl::StatusOr<v1::ExpertProfile> profile = DecodeProfile(bytes);
  if (profile.ok()) return profile;
  return absl::InvalidArgumentError(absl::StrCat(path, " ", std::string(profile.status().message())));
}

}  // namespace cadre
