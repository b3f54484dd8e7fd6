// Runs kernels on the host.
#ifndef CADRE_TESTS_SUPPORT_SIMT_LAUNCH_H_
#define CADRE_TESTS_SUPPORT_SIMT_LAUNCH_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "tests/support/simt/vector_types.h"

namespace simt {

// Limits of a block on compute capability 9.0.
inline constexpr unsigned kMaxThreads = 1024;
inline constexpr size_t kMaxSharedBytes = 227 << 10;

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t dynamic_shared_bytes = 0;
};

// What one launch is called in messages: the function at `kernel` (null: unknown), or a description.
struct KernelName {
  const void* kernel = nullptr;
  std::string_view description;
};

// Runs `body(context)` as every thread of every block of `shape`, and returns when all have ended. Blocks run one after
// the other in a random order; the threads of a block take turns at the operations that synchronize, in an order
// drawn anew for each block. Both orders follow from the seed and the number of launches before this one. A launch from
// another host thread waits for its turn.
void RunKernel(const KernelName& name, const LaunchShape& shape, void (*body)(const void*), const void* context);

template <typename Callable>
void Launch(dim3 grid, dim3 block, size_t dynamic_shared_bytes, Callable kernel, KernelName name = {}) {
  if (name.kernel == nullptr && name.description.empty()) name.description = __PRETTY_FUNCTION__;
  RunKernel(
      name, {grid, block, dynamic_shared_bytes},
      [](const void* context) { (*static_cast<const Callable*>(context))(); }, &kernel);
}

// Begins another series of orders. At start the seed is CADRE_SIMT_SEED of the environment, or 1.
void SetSeed(uint64_t seed);

}  // namespace simt

#endif  // CADRE_TESTS_SUPPORT_SIMT_LAUNCH_H_
