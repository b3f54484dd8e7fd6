#include "tests/gpu/cublas.h"

#include <dlfcn.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace cadre::gpu {
namespace {

// Values of cuBLAS's enumerations, which are part of its interface.
constexpr int kTransposed = 1;         // CUBLAS_OP_T
constexpr int kNotTransposed = 0;      // CUBLAS_OP_N
constexpr int kBFloat16 = 14;          // CUDA_R_16BF
constexpr int kComputeInFloat = 68;    // CUBLAS_COMPUTE_32F
constexpr int kDefaultAlgorithm = -1;  // CUBLAS_GEMM_DEFAULT

}  // namespace

struct Cublas::Functions {
  int (*create)(void** handle) = nullptr;
  int (*destroy)(void* handle) = nullptr;
  int (*set_stream)(void* handle, cudaStream_t stream) = nullptr;
  int (*gemm)(void* handle, int transa, int transb, int m, int n, int k, const void* alpha, const void* a, int a_type,
              int lda, const void* b, int b_type, int ldb, const void* beta, void* c, int c_type, int ldc,
              int compute_type, int algorithm) = nullptr;

  template <typename Function>
  static bool Find(void* library, const char* name, Function* function) {
    *function = reinterpret_cast<Function>(dlsym(library, name));
    return *function != nullptr;
  }
  bool FindAll(void* library) {
    return Find(library, "cublasCreate_v2", &create) && Find(library, "cublasDestroy_v2", &destroy) &&
           Find(library, "cublasSetStream_v2", &set_stream) && Find(library, "cublasGemmEx", &gemm);
  }
};

Cublas::Cublas(std::string library, std::unique_ptr<Functions> functions, void* handle)
    : library_(std::move(library)), functions_(std::move(functions)), handle_(handle) {}
Cublas::~Cublas() { functions_->destroy(handle_); }

absl::StatusOr<std::unique_ptr<Cublas>> Cublas::Load() {
  for (const char* name : {"libcublas.so.13", "libcublas.so.12"}) {
    void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL);  // stays for as long as the process
    if (library == nullptr) continue;
    auto functions = std::make_unique<Functions>();
    if (!functions->FindAll(library)) return absl::NotFoundError(absl::StrCat(name, " lacks a function"));
    void* handle = nullptr;
    if (const int status = functions->create(&handle); status != 0) {
      return absl::InternalError(absl::StrCat("cublasCreate of ", name, " failed with status ", status));
    }
    return std::unique_ptr<Cublas>(new Cublas(name, std::move(functions), handle));
  }
  return absl::NotFoundError("libcublas.so.13 is not on the loader's path (LD_LIBRARY_PATH)");
}

absl::Status Cublas::Multiply(cudaStream_t stream, BFloat16* c, const BFloat16* a, const BFloat16* b, int n) {
  if (const int status = functions_->set_stream(handle_, stream); status != 0) {
    return absl::InternalError(absl::StrCat("cublasSetStream failed with status ", status));
  }
  const float one = 1.0f;
  const float zero = 0.0f;
  // Columns there are rows here: c^T = b a^T.
  const int status = functions_->gemm(handle_, kTransposed, kNotTransposed, n, n, n, &one, b, kBFloat16, n, a,
                                      kBFloat16, n, &zero, c, kBFloat16, n, kComputeInFloat, kDefaultAlgorithm);
  if (status == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cublasGemmEx failed with status ", status));
}

}  // namespace cadre::gpu
