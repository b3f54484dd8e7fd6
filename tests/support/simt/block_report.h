// The end of a process whose kernel is wrong: what is said about it.
#ifndef CADRE_TESTS_SUPPORT_SIMT_BLOCK_REPORT_H_
#define CADRE_TESTS_SUPPORT_SIMT_BLOCK_REPORT_H_

#include "tests/support/simt/block_state.h"

namespace simt {

// Fails with `reason` and what each living thread of `block` waits at.
[[noreturn]] void FailForWaits(const BlockState& block, const char* reason);

}  // namespace simt

#endif  // CADRE_TESTS_SUPPORT_SIMT_BLOCK_REPORT_H_
