#include "tests/support/simt/block_report.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <tuple>
#include <vector>

#include "absl/debugging/symbolize.h"

namespace simt {
namespace {

constexpr size_t kMaxWaits = 24;

std::string NameOf(const KernelName& name) {
  if (name.kernel == nullptr) return std::string(name.description);
  char symbol[512];
  absl::InitializeSymbolizer("/proc/self/exe");
  return absl::Symbolize(name.kernel, symbol, sizeof(symbol)) ? symbol : "(stripped)";
}

void PrintPlace(const BlockState& block) {
  if (block.launch == nullptr) {
    std::fprintf(stderr, "simt: ");
    return;
  }
  const RunningLaunch& launch = *block.launch;
  std::fprintf(stderr, "simt: kernel %s, block (%u, %u, %u)", NameOf(launch.name).c_str(), blockIdx.x, blockIdx.y,
               blockIdx.z);
  if (block.is_running) std::fprintf(stderr, ", thread (%u, %u, %u)", threadIdx.x, threadIdx.y, threadIdx.z);
  std::fprintf(stderr, ", launch %llu of CADRE_SIMT_SEED=%llu: ", static_cast<unsigned long long>(launch.number),
               static_cast<unsigned long long>(launch.seed));
}

[[noreturn]] void End() {
  std::fflush(stderr);
  std::abort();
}

// Threads that wait at the same.
struct Wait {
  const char* operation;  // null: runs or may run
  uint32_t mask;
  CallSite site;
  uint3 first_thread;
  int num_threads;
};

Wait WaitOf(const BlockState& block, unsigned number) {
  const Thread& thread = block.threads[number];
  const Warp& warp = block.warps[number / 32];
  const uint32_t lane = 1u << (number % 32);
  const bool is_itself = block.is_running && block.running == number;
  Wait wait = {nullptr, 0, {"", 0}, thread.index, 1};
  if ((warp.at_barrier & lane) != 0) {
    wait.operation = "a barrier of the block";
    wait.site = thread.site;
  } else if ((warp.at_operation & lane) != 0 || (is_itself && thread.operation != nullptr)) {
    wait.operation = thread.operation->name;
    wait.mask = thread.mask;
    wait.site = thread.site;
  }
  return wait;
}

std::vector<Wait> WaitsOf(const BlockState& block) {
  std::vector<Wait> waits;
  for (unsigned number = 0; number < block.num_warps * 32; ++number) {
    if ((block.warps[number / 32].living >> (number % 32) & 1u) == 0) continue;
    const Wait wait = WaitOf(block, number);
    bool is_known = false;
    for (Wait& known : waits) {
      if (known.operation != wait.operation || known.mask != wait.mask || known.site != wait.site) continue;
      ++known.num_threads;
      is_known = true;
      break;
    }
    if (!is_known) waits.push_back(wait);
  }
  return waits;
}

}  // namespace

void Fail(const char* format, ...) {
  PrintPlace(RunningBlock());
  std::va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fprintf(stderr, "\n");
  End();
}

void FailForWaits(const BlockState& block, const char* reason) {
  PrintPlace(block);
  std::fprintf(stderr, "%s\n", reason);
  const std::vector<Wait> waits = WaitsOf(block);
  for (size_t i = 0; i < waits.size() && i < kMaxWaits; ++i) {
    const Wait& wait = waits[i];
    std::fprintf(stderr, "  %d threads, the first is (%u, %u, %u): ", wait.num_threads, wait.first_thread.x,
                 wait.first_thread.y, wait.first_thread.z);
    if (wait.operation == nullptr) {
      std::fprintf(stderr, "not waiting\n");
    } else if (wait.mask == 0) {
      std::fprintf(stderr, "at %s, %s:%d\n", wait.operation, wait.site.file, wait.site.line);
    } else {
      std::fprintf(stderr, "at %s(mask %#x), %s:%d\n", wait.operation, wait.mask, wait.site.file, wait.site.line);
    }
  }
  if (waits.size() > kMaxWaits) std::fprintf(stderr, "  ... and at %zu other places\n", waits.size() - kMaxWaits);
  End();
}

}  // namespace simt
