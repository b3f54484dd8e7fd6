#include "tests/support/simt/async_copy.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "tests/support/simt/block_runner.h"

namespace simt {
namespace {

constexpr size_t kCopyBytes = 16;

struct Copy {
  void* to;
  const void* from;  // null: zeros
};

struct CopyQueue {
  std::vector<Copy> open;                // begun, not committed
  std::deque<std::vector<Copy>> groups;  // committed, oldest first
};

CopyQueue& RunningQueue() {
  static std::array<CopyQueue, kMaxThreads> queues;
  return queues[ThreadNumber()];
}

bool IsAligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % kCopyBytes == 0; }

}  // namespace

void BeginAsyncCopy(void* smem, const void* global, bool valid) {
  if (!IsAligned(smem) || !IsAligned(global)) {
    Fail("cp.async from %p to %p: both must be aligned to %zu bytes", global, smem, kCopyBytes);
  }
  std::memset(smem, 0xFF, kCopyBytes);
  RunningQueue().open.push_back({smem, valid ? global : nullptr});
}

void CommitAsyncCopies() {
  CopyQueue& queue = RunningQueue();
  queue.groups.push_back(std::move(queue.open));
  queue.open.clear();
}

void WaitForAsyncCopies(int max_pending) {
  std::deque<std::vector<Copy>>& groups = RunningQueue().groups;
  while (groups.size() > static_cast<size_t>(max_pending)) {
    for (const Copy& copy : groups.front()) {
      if (copy.from == nullptr) {
        std::memset(copy.to, 0, kCopyBytes);
      } else {
        std::memcpy(copy.to, copy.from, kCopyBytes);
      }
    }
    groups.pop_front();
  }
}

void FinishAsyncCopies() {
  const CopyQueue& queue = RunningQueue();
  size_t num_copies = queue.open.size();
  for (const std::vector<Copy>& group : queue.groups) num_copies += group.size();
  if (num_copies > 0) Fail("the thread ends with %zu copies of cp.async that it did not wait for", num_copies);
  RunningQueue().groups.clear();
}

}  // namespace simt
