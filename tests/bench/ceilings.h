// What a GPU gives at best, as gpu_calibrate measured it in the same run.
#ifndef CADRE_TESTS_BENCH_CEILINGS_H_
#define CADRE_TESTS_BENCH_CEILINGS_H_

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "absl/status/statusor.h"

namespace cadre {

struct Ceilings {
  // NaN where it was not measured.
  double read_gb_s = std::numeric_limits<double>::quiet_NaN();
  double copy_gb_s = std::numeric_limits<double>::quiet_NaN();
  double dense_tflop_s = std::numeric_limits<double>::quiet_NaN();
};

// From the lines of JSON that gpu_calibrate printed; other lines are passed over. INVALID_ARGUMENT if the file has no
// line for "read", NOT_FOUND if there is no file.
absl::StatusOr<Ceilings> ReadCeilings(const std::filesystem::path& file);

// The time, in microseconds, below which nothing that moves `bytes` and does `flops` can get. NaN if a ceiling is.
inline double BoundUs(double bytes, double gb_s, double flops, double tflop_s) {
  const double math_us = flops / tflop_s * 1e-6;
  return std::isnan(math_us) ? math_us : std::max(bytes / gb_s * 1e-3, math_us);
}

}  // namespace cadre

#endif  // CADRE_TESTS_BENCH_CEILINGS_H_
