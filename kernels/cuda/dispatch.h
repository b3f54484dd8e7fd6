// From views, which know their types at run time, to the typed pointers that kernels take.
#ifndef CADRE_KERNELS_CUDA_DISPATCH_H_
#define CADRE_KERNELS_CUDA_DISPATCH_H_

#include "kernels/check.h"
#include "kernels/dtype.h"
#include "kernels/view.h"

namespace cadre::cuda {

// Null for an absent argument.
template <typename T>
T* Data(const View& view) {
  return view.empty() ? nullptr : view.data<T>();
}
template <typename T>
const T* Data(const ConstView& view) {
  return view.empty() ? nullptr : view.data<T>();
}

// Calls `body` with the C++ type of a float type and returns what it returns.
template <typename Body>
auto DispatchFloat(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kBF16:
      return body.template operator()<BFloat16>();
    case DType::kF16:
      return body.template operator()<Float16>();
    default:
      CADRE_CHECK(dtype == DType::kF32);
      return body.template operator()<float>();
  }
}

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_DISPATCH_H_
