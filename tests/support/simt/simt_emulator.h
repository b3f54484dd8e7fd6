// The words of CUDA that a kernel is written in, for the host's compiler: the same source runs on the CPU, one block at
// a time, one fiber for each thread. What this finds and what it cannot find: README.md.
#ifndef CADRE_TESTS_SUPPORT_SIMT_SIMT_EMULATOR_H_
#define CADRE_TESTS_SUPPORT_SIMT_SIMT_EMULATOR_H_

// NOLINTBEGIN(bugprone-reserved-identifier): the names are CUDA's
#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
// One block runs at a time, so that one copy is enough. It keeps what the block before left in it.
#define __shared__ static
// NOLINTEND(bugprone-reserved-identifier)

#include "tests/support/simt/arithmetic.h"
#include "tests/support/simt/async_copy.h"
#include "tests/support/simt/atomics.h"
#include "tests/support/simt/barriers.h"
#include "tests/support/simt/block.h"
#include "tests/support/simt/launch.h"
#include "tests/support/simt/shared_memory.h"
#include "tests/support/simt/tensor_core.h"
#include "tests/support/simt/vector_types.h"
#include "tests/support/simt/warp_functions.h"

#endif  // CADRE_TESTS_SUPPORT_SIMT_SIMT_EMULATOR_H_
