// What the runner of a block knows of its threads.
#ifndef CADRE_TESTS_SUPPORT_SIMT_BLOCK_STATE_H_
#define CADRE_TESTS_SUPPORT_SIMT_BLOCK_STATE_H_

#include <array>
#include <cstdint>

#include "tests/support/simt/block.h"
#include "tests/support/simt/block_runner.h"

namespace simt {

struct Thread {
  uint3 index = {};
  // What it waits at, or came from last.
  const WarpOperation* operation = nullptr;
  uint32_t mask = 0;
  const void* in = nullptr;
  void* out = nullptr;
  CallSite site = {};
};

// Lanes by state; a living lane that is in none of the three other sets runs.
struct Warp {
  uint32_t living = 0;
  uint32_t ready = 0;
  uint32_t at_operation = 0;
  uint32_t at_barrier = 0;
};

struct BlockState {
  const RunningLaunch* launch = nullptr;  // null between blocks
  std::array<Thread, kMaxThreads> threads;
  std::array<Warp, kMaxThreads / 32> warps;
  unsigned num_warps = 0;
  unsigned num_living = 0;
  uint32_t ready_warps = 0;
  unsigned running = 0;  // thread number
  bool is_running = false;

  BarrierKind barrier_kind = BarrierKind::kSync;
  unsigned num_arrived = 0;
  unsigned num_true = 0;
  int barrier_result = 0;
  int64_t turns_without_progress = 0;

  // All `num_threads` threads are ready to begin.
  void Reset(const RunningLaunch& next_launch, unsigned num_threads) {
    launch = &next_launch;
    num_warps = (num_threads + 31) / 32;
    num_living = num_threads;
    for (unsigned w = 0; w < num_warps; ++w) {
      const unsigned lanes = num_threads - w * 32;
      const uint32_t all = lanes >= 32 ? 0xFFFFFFFFu : (1u << lanes) - 1u;
      warps[w] = {.living = all, .ready = all};
    }
    ready_warps = num_warps == 32 ? 0xFFFFFFFFu : (1u << num_warps) - 1u;
    num_arrived = 0;
    num_true = 0;
    turns_without_progress = 0;
  }
};

// The block that runs on this process's one emulated multiprocessor.
const BlockState& RunningBlock();

}  // namespace simt

#endif  // CADRE_TESTS_SUPPORT_SIMT_BLOCK_STATE_H_
