#include "tests/support/simt/shared_memory.h"

#include <algorithm>
#include <cstring>

#include "tests/support/simt/block.h"
#include "tests/support/simt/launch.h"

namespace simt {
namespace {

constexpr size_t kGuardBytes = 256;
constexpr unsigned char kPoison = 0xFF;
constexpr unsigned char kGuard = 0xA5;

// 16 more than a large alignment: nobody may rely on more than 16.
struct Memory {
  alignas(256) unsigned char front[16 + kGuardBytes];
  unsigned char data[kMaxSharedBytes + kGuardBytes];
};
Memory memory;
size_t num_bytes = 0;
uint64_t num_blocks = 0;

bool IsGuard(unsigned char byte) { return byte == kGuard; }

}  // namespace

unsigned char* DynamicShared() { return memory.data; }

void BeginSharedMemory(size_t dynamic_bytes) {
  num_bytes = dynamic_bytes;
  ++num_blocks;
  std::memset(memory.front, kGuard, sizeof(memory.front));
  std::memset(memory.data, kPoison, num_bytes);
  std::memset(memory.data + num_bytes, kGuard, kGuardBytes);
}

void CheckSharedMemory() {
  if (!std::ranges::all_of(memory.front, IsGuard)) Fail("the block wrote before its dynamic shared memory");
  const unsigned char* const end = memory.data + num_bytes;
  const unsigned char* const touched = std::find_if_not(end, end + kGuardBytes, IsGuard);
  if (touched != end + kGuardBytes) {
    Fail("the block wrote byte %zu of its dynamic shared memory, which has %zu",
         static_cast<size_t>(touched - memory.data), num_bytes);
  }
}

void StaticShared::Enter(void* data, size_t size_bytes) {
  if (block_ == num_blocks) return;
  block_ = num_blocks;
  std::memset(data, kPoison, size_bytes);
}

}  // namespace simt
