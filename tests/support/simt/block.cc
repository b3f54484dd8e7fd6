#include "tests/support/simt/block.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>

#include "tests/support/simt/async_copy.h"
#include "tests/support/simt/block_report.h"
#include "tests/support/simt/block_runner.h"
#include "tests/support/simt/block_state.h"
#include "tests/support/simt/fiber_pool.h"
#include "tests/support/simt/shared_memory.h"

namespace simt {
namespace {

// So many turns without progress mean that the block waits for something that no other thread of it will do.
constexpr int64_t kMaxTurnsWithoutProgress = 50'000'000;

BlockState block;
RandomOrder* order = nullptr;

FiberPool& Fibers() {
  static FiberPool& pool = *new FiberPool;  // never destroyed: its fibers never end
  return pool;
}

Warp& RunningWarp() { return block.warps[block.running / 32]; }
Thread& RunningThread() { return block.threads[block.running]; }
uint32_t LaneBit() { return 1u << (block.running % 32); }

void MakeReady(unsigned warp, uint32_t lanes) {
  block.warps[warp].ready |= lanes;
  if (block.warps[warp].ready != 0) block.ready_warps |= 1u << warp;
  block.turns_without_progress = 0;
}

void CompleteBarrier() {
  block.barrier_result = block.barrier_kind == BarrierKind::kAnd  ? block.num_true == block.num_arrived
                         : block.barrier_kind == BarrierKind::kOr ? block.num_true > 0
                                                                  : static_cast<int>(block.num_true);
  block.num_arrived = 0;
  block.num_true = 0;
  for (unsigned w = 0; w < block.num_warps; ++w) {
    MakeReady(w, block.warps[w].at_barrier);
    block.warps[w].at_barrier = 0;
  }
}

// Whether the lanes of `mask` all wait for the running lane's operation with its mask.
bool AllLanesMeet(const Warp& warp, uint32_t mask) {
  if ((warp.at_operation & mask) != mask) return false;
  const Thread& own = RunningThread();
  const Thread* const lanes = block.threads.data() + block.running / 32 * 32;
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    const Thread& lane = lanes[std::countr_zero(rest)];
    if (lane.operation != own.operation || lane.mask != mask) return false;
  }
  return true;
}

void CompleteOperation(Warp& warp, uint32_t mask) {
  const Thread& own = RunningThread();
  const Thread* const lanes = block.threads.data() + block.running / 32 * 32;
  std::array<const void*, 32> in = {};
  std::array<void*, 32> out = {};
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    const int l = std::countr_zero(rest);
    if (own.operation->is_aligned && lanes[l].site != own.site) {
      FailForWaits(block, "lanes of one warp come to an aligned operation at different places");
    }
    in[l] = lanes[l].in;
    out[l] = lanes[l].out;
  }
  own.operation->complete(mask, in.data(), out.data());
  warp.at_operation &= ~mask;
  MakeReady(block.running / 32, mask);
}

void ExitThread() {
  FinishAsyncCopies();
  Warp& warp = RunningWarp();
  warp.living &= ~LaneBit();
  --block.num_living;
  block.turns_without_progress = 0;
  for (uint32_t rest = warp.at_operation; rest != 0; rest &= rest - 1) {
    if ((block.threads[block.running / 32 * 32 + std::countr_zero(rest)].mask & LaneBit()) != 0) {
      FailForWaits(block, "the running thread exits though others of its warp wait for it");
    }
  }
  if (block.num_living > 0 && block.num_arrived == block.num_living) CompleteBarrier();
}

void RunThread() {
  block.launch->body(block.launch->context);
  ExitThread();
}

void Begin(const RunningLaunch& launch, uint3 index) {
  const dim3& shape = launch.shape.block;
  block.Reset(launch, shape.x * shape.y * shape.z);
  for (unsigned t = 0; t < block.num_living; ++t) {
    block.threads[t].index = {t % shape.x, t / shape.x % shape.y, t / shape.x / shape.y};
  }
  internal::block_index = index;
  internal::block_shape = shape;
  internal::grid_shape = launch.shape.grid;
  Fibers().Grow(block.num_living);
  BeginSharedMemory(launch.shape.dynamic_shared_bytes);
}

}  // namespace

void RunBlock(const RunningLaunch& launch, uint3 index, RandomOrder& random) {
  order = &random;
  Begin(launch, index);
  FiberPool& fibers = Fibers();
  // Half of the blocks let one warp run as far ahead as it can, the others let all go at about the same pace.
  const bool is_greedy = random.Below(2) == 0;
  const int favorite = static_cast<int>(random.Below(32));
  while (block.ready_warps != 0) {
    const unsigned w =
        is_greedy ? RandomOrder::FirstFrom(block.ready_warps, favorite) : random.AnyBit(block.ready_warps);
    Warp& warp = block.warps[w];
    const unsigned lane = random.AnyBit(warp.ready);
    warp.ready &= ~(1u << lane);
    if (warp.ready == 0) block.ready_warps &= ~(1u << w);
    block.running = w * 32 + lane;
    block.is_running = true;
    internal::thread_index = block.threads[block.running].index;
    fibers.Resume(block.running, RunThread);
    block.is_running = false;
  }
  if (block.num_living > 0) FailForWaits(block, "no thread of the block can go on");
  CheckSharedMemory();
  block.launch = nullptr;
}

void WaitForWarp(const WarpOperation& operation, uint32_t mask, const void* in, void* out, CallSite site) {
  Thread& thread = RunningThread();
  Warp& warp = RunningWarp();
  thread.operation = &operation;
  thread.mask = mask;
  thread.in = in;
  thread.out = out;
  thread.site = site;
  if ((mask & LaneBit()) == 0) FailForWaits(block, "the mask of the operation lacks the running thread's own lane");
  if ((mask & ~warp.living) != 0) FailForWaits(block, "the mask of the operation names lanes that have exited");
  warp.at_operation |= LaneBit();
  if (AllLanesMeet(warp, mask)) CompleteOperation(warp, mask);
  Fibers().Suspend();
}

int WaitForBlock(BarrierKind kind, int predicate, CallSite site) {
  Thread& thread = RunningThread();
  Warp& warp = RunningWarp();
  thread.site = site;
  if (block.num_arrived > 0 && kind != block.barrier_kind) {
    FailForWaits(block, "the running thread comes to another kind of barrier than those who wait");
  }
  if (warp.at_barrier != 0) {
    const Thread& other = block.threads[block.running / 32 * 32 + std::countr_zero(warp.at_barrier)];
    if (other.site != site) FailForWaits(block, "threads of one warp come to __syncthreads at different places");
  }
  block.barrier_kind = kind;
  ++block.num_arrived;
  block.num_true += predicate != 0 ? 1 : 0;
  warp.at_barrier |= LaneBit();
  if (block.num_arrived == block.num_living) CompleteBarrier();
  Fibers().Suspend();
  return block.barrier_result;
}

void MayYield() {
  if (!block.is_running) return;
  if (++block.turns_without_progress > kMaxTurnsWithoutProgress) {
    FailForWaits(block, "the block spins: it waits for what no other thread of it does");
  }
  if (order->Below(4) != 0) return;
  const int64_t turns = block.turns_without_progress;
  MakeReady(block.running / 32, LaneBit());
  block.turns_without_progress = turns;
  Fibers().Suspend();
}

uint32_t LivingLanes() { return RunningWarp().living; }
int Lane() { return static_cast<int>(block.running % 32); }
unsigned ThreadNumber() { return block.running; }

const BlockState& RunningBlock() { return block; }

}  // namespace simt
