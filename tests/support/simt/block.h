// The block that runs: who its threads are, what each waits for, and whose turn is next.
#ifndef CADRE_TESTS_SUPPORT_SIMT_BLOCK_H_
#define CADRE_TESTS_SUPPORT_SIMT_BLOCK_H_

#include <cstdint>

#include "tests/support/simt/vector_types.h"

namespace simt {

// Where in a kernel an operation stands.
struct CallSite {
  const char* file;
  int line;

  static constexpr CallSite Here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  friend bool operator==(const CallSite&, const CallSite&) = default;
};

// What the lanes of a warp do together. `in` and `out` are the arguments and results of the lanes in `mask`, by lane;
// they stay valid until every one of these lanes goes on, so that no operation can overwrite another's.
struct WarpOperation {
  using Complete = void (*)(uint32_t mask, const void* const* in, void* const* out);
  const char* name;
  Complete complete;
  // Whether all lanes must stand at the same place of the kernel (.aligned in PTX).
  bool is_aligned = false;
};

enum class BarrierKind { kSync, kCount, kAnd, kOr };

// ---- what the running thread calls ----

// Waits until every lane of `mask` has come to the same operation with the same mask.
void WaitForWarp(const WarpOperation& operation, uint32_t mask, const void* in, void* out, CallSite site);
// Waits for every living thread of the block; the result of __syncthreads_count, _and or _or.
int WaitForBlock(BarrierKind kind, int predicate, CallSite site);
// A point where other threads may go first, though nothing is waited for.
void MayYield();
// Lanes of the running warp that have not exited.
uint32_t LivingLanes();
// 0 to 31.
int Lane();

// Ends the process. The message names the kernel, the block, the running thread and how to run the same order again.
[[noreturn]] void Fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

namespace internal {

inline uint3 thread_index;
inline uint3 block_index;
inline dim3 block_shape;
inline dim3 grid_shape;

}  // namespace internal
}  // namespace simt

inline constexpr const uint3& threadIdx = simt::internal::thread_index;
inline constexpr const uint3& blockIdx = simt::internal::block_index;
inline constexpr const dim3& blockDim = simt::internal::block_shape;
inline constexpr const dim3& gridDim = simt::internal::grid_shape;
inline constexpr int warpSize = 32;

#endif  // CADRE_TESTS_SUPPORT_SIMT_BLOCK_H_
