// What tests of kernels and models run on. Which targets there are is decided by what is linked: cpu_targets.cc, or
// cuda_targets.cc.
#ifndef CADRE_TESTS_SUPPORT_TEST_TARGET_H_
#define CADRE_TESTS_SUPPORT_TEST_TARGET_H_

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/device.h"

namespace cadre {

struct TestTarget {
  std::string name;  // letters and digits
  // A device whose tensors the host may read and write, when a verb has returned.
  std::function<std::unique_ptr<Device>(int num_threads)> make;
  // One as servers use it.
  std::function<std::unique_ptr<Device>(int num_threads)> make_for_model;
  std::vector<int> thread_counts = {1, 2, 3};  // that must all give the same bits
  int num_rounds = 8;                          // of random steps of whole models: fewer where they are slow
  // Adds in steps of 32 inputs, and pairs within a step, as AMX does; others in 16 lanes or more.
  bool adds_in_tiles = false;
  // Queries meet bfloat16 caches as bfloat16, and so do the weights of the softmax, where the width of a head is a
  // multiple of 32 up to 128.
  bool rounds_attention = false;
  // Whether wrong ids end the process where they are met, so that a test can see it.
  bool dies_of_wrong_ids = true;
  // Whether tensors may lie in any memory of the host, and not only in what the device allocated.
  bool reads_host_memory = true;
};

std::vector<TestTarget> TestTargets();

inline std::ostream& operator<<(std::ostream& out, const TestTarget& target) { return out << target.name; }

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_TEST_TARGET_H_
