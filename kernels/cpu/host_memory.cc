#include "kernels/cpu/host_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/host_limits.h"

namespace cadre {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

constexpr size_t RoundUp(size_t size, size_t multiple) { return (size + multiple - 1) / multiple * multiple; }

std::byte* AllocateSmall(size_t size) {
  void* const data = std::aligned_alloc(kAlignment, size);
  if (data != nullptr) std::memset(data, 0, size);
  return static_cast<std::byte*>(data);
}

// `size` is a multiple of kHugePage. Maps one huge page more and gives the unaligned ends back.
std::byte* MapHuge(size_t size, int more_flags = 0) {
  void* const mapping =
      mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | more_flags, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  std::byte* const begin = static_cast<std::byte*>(mapping);
  const size_t head = RoundUp(reinterpret_cast<uintptr_t>(begin), kHugePage) - reinterpret_cast<uintptr_t>(begin);
  if (head > 0) munmap(begin, head);
  if (head < kHugePage) munmap(begin + head + size, kHugePage - head);
  // Advice only: without transparent huge pages the memory is as good, and slower.
  (void)madvise(begin + head, size, MADV_HUGEPAGE);
  return begin + head;
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif

// Takes the pages of a mapping without changing what is in them. False when there is no memory for them.
bool Populate(std::byte* data, size_t size) {
  if (madvise(data, size, MADV_POPULATE_WRITE) == 0) return true;
  if (errno != EINVAL) return false;
  // An older kernel. A write of the byte that is there is a write.
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (size_t offset = 0; offset < size; offset += page) {
    volatile std::byte* const byte = data + offset;
    *byte = *byte;
  }
  return true;
}

}  // namespace

absl::StatusOr<DeviceBuffer> HostMemory::Allocate(size_t size_bytes) {
  const bool is_huge = size_bytes >= kHugePage;
  const size_t size = RoundUp(std::max<size_t>(size_bytes, 1), is_huge ? kHugePage : kAlignment);
  // What is left is read from several files: too slow, and too exact, for small allocations.
  const bool fits = !is_huge || size_bytes <= AvailableBytes();
  std::byte* const data = !fits ? nullptr : is_huge ? MapHuge(size) : AllocateSmall(size);
  if (data == nullptr) {
    const size_t available = AvailableBytes();
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", size_bytes, " bytes (", size_bytes >> 20,
                                                     " MiB) of host memory: ", available, " bytes (", available >> 20,
                                                     " MiB) are available"));
  }
  books_->allocated_bytes += size;
  if (is_huge) {
    const std::lock_guard lock(books_->mutex);
    books_->mappings.emplace(data, size);
  }
  return DeviceBuffer(data, size_bytes, [size, is_huge, books = books_](std::byte* memory) {
    books->allocated_bytes -= size;
    if (is_huge) {
      const std::lock_guard lock(books->mutex);
      books->mappings.erase(memory);
      munmap(memory, size);
    } else {
      std::free(memory);
    }
  });
}

absl::StatusOr<DeviceBuffer> HostMemory::Reserve(size_t size_bytes, size_t counted_bytes) {
  const size_t size = RoundUp(std::max<size_t>(size_bytes, 1), kHugePage);
  // The system would count what is never used.
  std::byte* const data = counted_bytes <= AvailableBytes() ? MapHuge(size, MAP_NORESERVE) : nullptr;
  if (data == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot reserve ", size_bytes, " bytes (", size_bytes >> 20, " MiB) of address space, ", counted_bytes >> 20,
        " MiB of it to be used: ", AvailableBytes() >> 20, " MiB of memory are available"));
  }
  books_->allocated_bytes += counted_bytes;
  return DeviceBuffer(data, size_bytes, [size, counted_bytes, books = books_](std::byte* memory) {
    books->allocated_bytes -= counted_bytes;
    munmap(memory, size);
  });
}

absl::Status HostMemory::CommitPages(std::byte* data, size_t size) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t head = reinterpret_cast<uintptr_t>(data) % page;
  if (size == 0 || Populate(data - head, RoundUp(head + size, page))) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("the system has no memory for ", size >> 20, " MiB"));
}

absl::Status HostMemory::Commit() {
  const std::lock_guard lock(books_->mutex);
  for (const auto& [data, size] : books_->mappings) {
    if (Populate(data, size)) continue;
    return absl::ResourceExhaustedError(
        absl::StrCat("the system has no memory for ", size >> 20, " MiB that it had promised"));
  }
  return absl::OkStatus();
}

void HostMemory::ReleasePages(std::byte* data, size_t size) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(data);
  const size_t head = RoundUp(address, page) - address;
  if (size < head + page) return;
  // What cannot be given back is kept.
  (void)madvise(data + head, (size - head) / page * page, MADV_DONTNEED);
}

size_t HostMemory::AvailableBytes() const {
  const size_t allocated = books_->allocated_bytes;
  const size_t untouched = allocated - std::min(allocated, ResidentAnonymousBytes());
  const size_t available = AvailableMemoryBytes();
  return available - std::min(available, untouched);
}

}  // namespace cadre
