// Runs one block; what launch.cc needs of block.cc.
#ifndef CADRE_TESTS_SUPPORT_SIMT_BLOCK_RUNNER_H_
#define CADRE_TESTS_SUPPORT_SIMT_BLOCK_RUNNER_H_

#include <cstdint>

#include "tests/support/simt/launch.h"
#include "tests/support/simt/random_order.h"

namespace simt {

struct RunningLaunch {
  KernelName name;
  LaunchShape shape;
  void (*body)(const void*) = nullptr;
  const void* context = nullptr;
  uint64_t seed = 0;
  uint64_t number = 0;  // of launches before this one since the seed was set
};

// Runs block `index` to its end.
void RunBlock(const RunningLaunch& launch, uint3 index, RandomOrder& random);

// The running thread by number, x fastest, 0 to 1023.
unsigned ThreadNumber();

}  // namespace simt

#endif  // CADRE_TESTS_SUPPORT_SIMT_BLOCK_RUNNER_H_
