// One loop for every float type: `DispatchFloat(dtype, [&]<typename T>() { ... })` calls the lambda with the C++ type.
#ifndef CADRE_KERNELS_CPU_CONVERT_H_
#define CADRE_KERNELS_CPU_CONVERT_H_

#include <cstdint>

#include "kernels/check.h"
#include "kernels/dtype.h"
#include "kernels/op_checks.h"
#include "kernels/view.h"

namespace cadre {

template <typename Body>
void DispatchFloat(DType dtype, Body&& body) {
  CADRE_CHECK(IsFloat(dtype));
  switch (dtype) {
    case DType::kBF16:
      return body.template operator()<BFloat16>();
    case DType::kF16:
      return body.template operator()<Float16>();
    default:
      return body.template operator()<float>();
  }
}

// out[i] = element begin + i of x.
inline void LoadFloats(float* out, ConstView x, int64_t begin, int64_t count) {
  DispatchFloat(x.dtype(), [&]<typename T>() {
    const T* from = x.data<T>() + begin;
    for (int64_t i = 0; i < count; ++i) out[i] = ToFloat(from[i]);
  });
}

}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_CONVERT_H_
