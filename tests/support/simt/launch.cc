#include "tests/support/simt/launch.h"

#include <cstdlib>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include "tests/support/simt/block.h"
#include "tests/support/simt/block_runner.h"

namespace simt {
namespace {

uint64_t SeedOfEnvironment() {
  const char* const text = std::getenv("CADRE_SIMT_SEED");  // NOLINT(concurrency-mt-unsafe)
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

struct Series {
  uint64_t seed = SeedOfEnvironment();
  uint64_t num_launches = 0;
};

std::mutex mutex;  // one launch at a time
Series series;

void Check(const LaunchShape& shape) {
  const uint64_t num_threads = uint64_t{shape.block.x} * shape.block.y * shape.block.z;
  if (num_threads == 0 || num_threads > kMaxThreads || shape.block.z > 64) {
    Fail("a block of %u x %u x %u threads, the limit is %u", shape.block.x, shape.block.y, shape.block.z, kMaxThreads);
  }
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0 || shape.grid.x > 0x7FFFFFFFu ||
      shape.grid.y > 65535 || shape.grid.z > 65535) {
    Fail("a grid of %u x %u x %u blocks", shape.grid.x, shape.grid.y, shape.grid.z);
  }
  if (shape.dynamic_shared_bytes > kMaxSharedBytes) {
    Fail("%zu bytes of shared memory, the limit is %zu", shape.dynamic_shared_bytes, kMaxSharedBytes);
  }
}

}  // namespace

void SetSeed(uint64_t seed) {
  const std::scoped_lock lock(mutex);
  series = {.seed = seed, .num_launches = 0};
}

void RunKernel(const KernelName& name, const LaunchShape& shape, void (*body)(const void*), const void* context) {
  const std::scoped_lock lock(mutex);
  Check(shape);
  const RunningLaunch launch = {name, shape, body, context, series.seed, series.num_launches++};
  RandomOrder random(RandomOrder(launch.seed).Next() + launch.number);

  std::vector<uint64_t> blocks(uint64_t{shape.grid.x} * shape.grid.y * shape.grid.z);
  std::iota(blocks.begin(), blocks.end(), uint64_t{0});
  for (size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[random.Below(i)]);
  for (const uint64_t b : blocks) {
    const uint64_t row = b / shape.grid.x;
    RunBlock(launch,
             {static_cast<unsigned>(b % shape.grid.x), static_cast<unsigned>(row % shape.grid.y),
              static_cast<unsigned>(row / shape.grid.y)},
             random);
  }
}

}  // namespace simt
