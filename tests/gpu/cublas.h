// Of cuBLAS one product, from the library of the machine that this runs on: it is far too large to travel.
#ifndef CADRE_TESTS_GPU_CUBLAS_H_
#define CADRE_TESTS_GPU_CUBLAS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/cuda/launch.h"
#include "kernels/dtype.h"

namespace cadre::gpu {

class Cublas {
 public:
  // NOT_FOUND when no libcublas of CUDA 13 or 12 is on the path of the loader (LD_LIBRARY_PATH).
  static absl::StatusOr<std::unique_ptr<Cublas>> Load();
  ~Cublas();

  // c = a b^T in bfloat16 with float32 accumulation; all of them [n, n], row-major.
  absl::Status Multiply(cudaStream_t stream, BFloat16* c, const BFloat16* a, const BFloat16* b, int n);
  const std::string& library() const { return library_; }

 private:
  struct Functions;
  Cublas(std::string library, std::unique_ptr<Functions> functions, void* handle);

  std::string library_;
  std::unique_ptr<Functions> functions_;
  void* handle_ = nullptr;
};

}  // namespace cadre::gpu

#endif  // CADRE_TESTS_GPU_CUBLAS_H_
