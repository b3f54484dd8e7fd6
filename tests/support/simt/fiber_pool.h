// Stacks and contexts for the threads of emulated blocks, kept from one block to the next.
#ifndef CADRE_TESTS_SUPPORT_SIMT_FIBER_POOL_H_
#define CADRE_TESTS_SUPPORT_SIMT_FIBER_POOL_H_

#include <boost/context/fiber.hpp>
#include <cstddef>
#include <vector>

namespace simt {

// Fibers that one host thread at a time runs. A fiber that is resumed and has no task under way begins `task`; it
// comes back when it suspends itself or its task has ended.
class FiberPool {
 public:
  using Task = void (*)();

  // Each with a stack of 128 KiB, behind which lies a page that may not be touched.
  void Grow(size_t num_fibers);
  // Runs fiber `index` until it suspends or its task ends.
  void Resume(size_t index, Task task);
  // From within a fiber: back to Resume.
  void Suspend();

 private:
  boost::context::fiber Loop(boost::context::fiber caller);

  std::vector<boost::context::fiber> fibers_;
  boost::context::fiber caller_;
  Task task_ = nullptr;
};

}  // namespace simt

#endif  // CADRE_TESTS_SUPPORT_SIMT_FIBER_POOL_H_
