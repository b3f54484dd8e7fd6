// Bytes are the choices of a world for LimitCapacity: shapes, routers, policies, logits, and which sequences go on,
// begin again or change in each call. Every outcome and every counter is what the reference says.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>
#include <utility>

#include "kernels/cpu/cpu_device.h"
#include "kernels/device.h"
#include "tests/support/capacity_walk.h"

namespace cadre {
namespace {

constexpr CapacityWalkLimits kLimits = {.max_experts = 16, .max_top_k = 4, .max_rows = 24, .max_calls = 6};

Device& SharedDevice() {
  static const std::unique_ptr<Device> device = [] {
    auto created = std::move(CreateCpuDevice({.num_threads = 1})).value();
    const OpsLimits limits = {.max_tokens = kLimits.max_rows,
                              .hidden_size = 16,
                              .max_linear_inputs = 16,
                              .num_heads = 1,
                              .head_dim = 16,
                              .max_positions = 16,
                              .num_experts = kLimits.max_experts,
                              .top_k = kLimits.max_top_k,
                              .max_ffn_size = 16};
    if (!created->ops().Reserve(limits).ok()) std::abort();
    return created;
  }();
  return *device;
}

}  // namespace
}  // namespace cadre

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::span<const std::uint8_t> bytes(data, size);
  const auto draw = [&](uint32_t n) -> uint32_t {
    if (bytes.empty()) return 0;
    const uint32_t value = bytes.front();
    bytes = bytes.subspan(1);
    return value % n;
  };
  const auto counts = cadre::WalkCapacity(cadre::SharedDevice(), cadre::kLimits, draw);
  if (!counts.ok()) {
    std::fprintf(stderr, "%s\n", counts.status().ToString().c_str());
    std::abort();
  }
  return 0;
}
