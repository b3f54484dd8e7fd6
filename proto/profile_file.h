// A profile of expert use as a file: "CADREPRF", the version of the file, the size of the message, the message
// (cadre.v1.ExpertProfile) and its CRC-32. Numbers are little-endian.
#ifndef CADRE_PROTO_PROFILE_FILE_H_
#define CADRE_PROTO_PROFILE_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cadre/v1/expert_service.pb.h"

namespace cadre {

// As large as a request may be.
inline constexpr size_t kMaxProfileBytes = size_t{16} << 20;

std::string EncodeProfile(const v1::ExpertProfile& profile);
// INVALID_ARGUMENT says what is wrong with the bytes.
absl::StatusOr<v1::ExpertProfile> DecodeProfile(const std::string& bytes);

// Replaces the file as a whole, or leaves it as it was. Errors name the file.
absl::Status WriteProfile(const v1::ExpertProfile& profile, const std::string& path);
absl::StatusOr<v1::ExpertProfile> ReadProfileFile(const std::string& path);

}  // namespace cadre

#endif  // CADRE_PROTO_PROFILE_FILE_H_
