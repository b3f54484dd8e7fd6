// The experts of each token as a file: cadre.v1.RoutedExperts as JSON, names as in the .proto files.
#ifndef CADRE_TOOLS_ROUTING_FILE_H_
#define CADRE_TOOLS_ROUTING_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cadre/v1/generation_service.pb.h"

namespace cadre {

// Room for the largest record that a server tells, 2^19 choices, with every number at its longest.
inline constexpr size_t kMaxRoutingFileBytes = size_t{32} << 20;

// Errors name the file.
absl::Status WriteRoutedExperts(const v1::RoutedExperts& routed, const std::string& path);
absl::StatusOr<v1::RoutedExperts> ReadRoutedExperts(const std::string& path);

}  // namespace cadre

#endif  // CADRE_TOOLS_ROUTING_FILE_H_
