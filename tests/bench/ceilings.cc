#include "tests/bench/ceilings.h"

#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace cadre {

absl::StatusOr<Ceilings> ReadCeilings(const std::filesystem::path& file) {
  std::ifstream stream(file);
  if (!stream) return absl::NotFoundError(absl::StrCat(file.string(), ": cannot be read"));
  Ceilings ceilings;
  for (std::string line; std::getline(stream, line);) {
    const auto entry = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!entry.is_object() || !entry.contains("value") || !entry["value"].is_number()) continue;
    const std::string name = entry.value("name", "");
    if (name == "read") ceilings.read_gb_s = entry["value"].get<double>();
    if (name == "copy") ceilings.copy_gb_s = entry["value"].get<double>();
    if (name == "dense") ceilings.dense_tflop_s = entry["value"].get<double>();
  }
  if (std::isnan(ceilings.read_gb_s)) {
    return absl::InvalidArgumentError(absl::StrCat(file.string(), ": has no line of gpu_calibrate for \"read\""));
  }
  return ceilings;
}

}  // namespace cadre
