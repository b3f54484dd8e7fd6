// The shared memory of the running block.
#ifndef CADRE_TESTS_SUPPORT_SIMT_SHARED_MEMORY_H_
#define CADRE_TESTS_SUPPORT_SIMT_SHARED_MEMORY_H_

#include <cstddef>
#include <cstdint>

namespace simt {

// Aligned to 16 bytes and no more, as kernels declare it. Every block begins with all bytes 0xFF, which is NaN in every
// float type and -1 as an integer; a write beyond the bytes of the launch is found when the block ends.
unsigned char* DynamicShared();

// ---- by the runner of blocks ----

void BeginSharedMemory(size_t dynamic_bytes);
void CheckSharedMemory();

// Fills a static shared variable with 0xFF when the first thread of each block comes to its declaration.
class StaticShared {
 public:
  void Enter(void* data, size_t size_bytes);

 private:
  uint64_t block_ = 0;
};

}  // namespace simt

// NOLINTBEGIN(bugprone-macro-parentheses): types and names take none
#define CADRE_DYNAMIC_SHARED(type, name) type* const name = reinterpret_cast<type*>(::simt::DynamicShared())

#define CADRE_SHARED(type, name, dimensions)   \
  static type name dimensions;                 \
  static ::simt::StaticShared name##_of_block; \
  name##_of_block.Enter(&name, sizeof(name))
// NOLINTEND(bugprone-macro-parentheses)

#endif  // CADRE_TESTS_SUPPORT_SIMT_SHARED_MEMORY_H_
