// cp.async and the order of dependent launches, under the names of kernels/cuda/ptx.h, where their contracts are.
#ifndef CADRE_TESTS_SUPPORT_SIMT_ASYNC_COPY_H_
#define CADRE_TESTS_SUPPORT_SIMT_ASYNC_COPY_H_

#include "tests/support/simt/block.h"

namespace simt {

// Copies wait in groups of their thread. The destination is filled with 0xFF at once and gets its data at the matching
// wait: to read it before is seen, and so is a copy into what others still read.
void BeginAsyncCopy(void* smem, const void* global, bool valid);
void CommitAsyncCopies();
// Until at most `max_pending` groups are left.
void WaitForAsyncCopies(int max_pending);

// The running thread ends: fails if it leaves copies that it did not wait for.
void FinishAsyncCopies();

}  // namespace simt

namespace cadre::cuda {

inline void CpAsync16(void* smem, const void* global, bool valid) { simt::BeginAsyncCopy(smem, global, valid); }
inline void CpAsyncCommit() { simt::CommitAsyncCopies(); }
template <int N>
void CpAsyncWait() {
  static_assert(N >= 0);
  simt::WaitForAsyncCopies(N);
}

// The kernels before this one have always ended here.
inline void GridDependencyWait() {}
inline void GridDependencyLaunch() {}

}  // namespace cadre::cuda

#endif  // CADRE_TESTS_SUPPORT_SIMT_ASYNC_COPY_H_
