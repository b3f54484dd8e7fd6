// Sums of products in a fixed order, in plain C++: partial sums by index modulo kLanes, added pairwise at the end. That
// is also what SIMD registers of up to kLanes numbers compute when the compiler vectorizes the loops.
#ifndef CADRE_KERNELS_CPU_LANES_H_
#define CADRE_KERNELS_CPU_LANES_H_

#include <cstdint>

namespace cadre {

inline constexpr int64_t kLanes = 16;

// lanes[i % kLanes] += x[i] * y[i] for i in [0, n).
inline void AddProducts(float* lanes, const float* x, const float* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] += x[i + l] * y[i + l];
  }
  for (int64_t l = 0; i + l < n; ++l) lanes[l] += x[i + l] * y[i + l];
}

// Overwrites `lanes`.
inline float SumOfLanes(float* lanes) {
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_LANES_H_
