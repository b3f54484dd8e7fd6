// __syncthreads, __syncwarp, and what else orders the threads of a block.
#ifndef CADRE_TESTS_SUPPORT_SIMT_BARRIERS_H_
#define CADRE_TESTS_SUPPORT_SIMT_BARRIERS_H_

#include <cstdint>

#include "tests/support/simt/block.h"

// NOLINTBEGIN(bugprone-reserved-identifier): the names are CUDA's

inline void __syncthreads(simt::CallSite site = simt::CallSite::Here()) {
  simt::WaitForBlock(simt::BarrierKind::kSync, 0, site);
}
inline int __syncthreads_count(int predicate, simt::CallSite site = simt::CallSite::Here()) {
  return simt::WaitForBlock(simt::BarrierKind::kCount, predicate, site);
}
inline int __syncthreads_and(int predicate, simt::CallSite site = simt::CallSite::Here()) {
  return simt::WaitForBlock(simt::BarrierKind::kAnd, predicate, site);
}
inline int __syncthreads_or(int predicate, simt::CallSite site = simt::CallSite::Here()) {
  return simt::WaitForBlock(simt::BarrierKind::kOr, predicate, site);
}

namespace simt::internal {

inline constexpr WarpOperation kSyncWarp = {"__syncwarp", [](uint32_t, const void* const*, void* const*) {}};

}  // namespace simt::internal

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, simt::CallSite site = simt::CallSite::Here()) {
  simt::WaitForWarp(simt::internal::kSyncWarp, mask, nullptr, nullptr, site);
}

// Memory is coherent here: a fence is only a place where others may go first.
inline void __threadfence() { simt::MayYield(); }
inline void __threadfence_block() { simt::MayYield(); }
inline void __threadfence_system() { simt::MayYield(); }
inline void __nanosleep(unsigned) { simt::MayYield(); }

[[noreturn]] inline void __trap() { simt::Fail("__trap()"); }

// NOLINTEND(bugprone-reserved-identifier)

#endif  // CADRE_TESTS_SUPPORT_SIMT_BARRIERS_H_
