#include "tests/support/simt/fiber_pool.h"

#include <boost/context/protected_fixedsize_stack.hpp>
#include <utility>

namespace simt {
namespace {

constexpr size_t kStackBytes = size_t{128} << 10;

}  // namespace

boost::context::fiber FiberPool::Loop(boost::context::fiber caller) {
  caller_ = std::move(caller);
  for (;;) {
    task_();
    Suspend();
  }
}

void FiberPool::Grow(size_t num_fibers) {
  while (fibers_.size() < num_fibers) {
    fibers_.push_back(
        boost::context::fiber(std::allocator_arg, boost::context::protected_fixedsize_stack(kStackBytes),
                              [this](boost::context::fiber&& caller) { return Loop(std::move(caller)); }));
  }
}

void FiberPool::Resume(size_t index, Task task) {
  task_ = task;
  fibers_[index] = std::move(fibers_[index]).resume();
}

void FiberPool::Suspend() { caller_ = std::move(caller_).resume(); }

}  // namespace simt
