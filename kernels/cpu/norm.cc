// RmsNorm and Clamp.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/lanes.h"

namespace cadre {
namespace {

float SumOfSquares(const float* x, int64_t n) {
  float lanes[kLanes] = {};
  AddProducts(lanes, x, x, n);
  return SumOfLanes(lanes);
}

}  // namespace

void CpuOps::RmsNorm(View out, ConstView x, ConstView weight, float epsilon) {
  CADRE_CHECK(out.shape() == x.shape());
  const int64_t d = weight.dim(0);
  CADRE_CHECK(weight.shape() == Shape({d}));
  CADRE_CHECK_EQ(x.dim(x.shape().rank() - 1), d);
  if (x.num_elements() == 0) return;
  float* const to = out.data<float>();
  const float* const from = x.data<float>();
  DispatchFloat(weight.dtype(), [&]<typename T>() {
    const T* const w = weight.data<T>();
    ForRows(x.num_elements() / d, 2 * d, [&](int64_t row) {
      const float* const x_row = from + row * d;
      float* const out_row = to + row * d;
      const float scale = 1.0f / std::sqrt(SumOfSquares(x_row, d) / static_cast<float>(d) + epsilon);
      for (int64_t i = 0; i < d; ++i) out_row[i] = x_row[i] * scale * ToFloat(w[i]);
    });
  });
}

void CpuOps::Clamp(View x, float limit) {
  CADRE_CHECK_GE(limit, 0.0f);
  float* const data = x.data<float>();
  const int64_t num_rows = x.dim(0);
  const int64_t row_size = num_rows == 0 ? 0 : x.num_elements() / num_rows;
  ForRows(num_rows, row_size, [&](int64_t row) {
    float* const values = data + row * row_size;
    for (int64_t i = 0; i < row_size; ++i) values[i] = std::clamp(values[i], -limit, limit);
  });
}

}  // namespace cadre
