#ifndef CADRE_TESTS_SUPPORT_GUARDED_MEMORY_H_
#define CADRE_TESTS_SUPPORT_GUARDED_MEMORY_H_

#include <sys/mman.h>

#include <cstddef>

#include "gtest/gtest.h"

namespace cadre {

// Zeros that end where the next page may not be touched.
class GuardedMemory {
 public:
  explicit GuardedMemory(size_t size_bytes) : size_(size_bytes) {
    mapped_ = (size_ + kPage - 1) / kPage * kPage + kPage;
    base_ = static_cast<std::byte*>(mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT_NE(static_cast<void*>(base_), MAP_FAILED);
    EXPECT_EQ(mprotect(base_ + mapped_ - kPage, kPage, PROT_NONE), 0);
  }
  ~GuardedMemory() { munmap(base_, mapped_); }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  std::byte* data() const { return base_ + mapped_ - kPage - size_; }

 private:
  static constexpr size_t kPage = 4096;
  size_t size_;
  size_t mapped_;
  std::byte* base_;
};

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_GUARDED_MEMORY_H_
