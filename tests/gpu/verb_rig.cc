#include "tests/gpu/verb_rig.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "kernels/check.h"
#include "tests/gpu/gpu_kernels.h"

namespace cadre::gpu {

int ReplaysOfASample(double replay_us) {
  // A launch by the host takes some microseconds, in which the first replay of a sample has not begun.
  constexpr double kLeastUs = 2000.0;
  constexpr double kMostReplays = 100.0;
  return static_cast<int>(std::clamp(std::ceil(kLeastUs / replay_us), 1.0, kMostReplays));
}

VerbRig::VerbRig(const OpsLimits& limits) : ops_(this) { Note(ops_.Reserve(limits)); }

View VerbRig::Keep(DType dtype, const Shape& shape) {
  memory_.emplace_back(static_cast<size_t>(shape.num_elements()) * DTypeBytes(dtype));
  return {memory_.back().data(), dtype, shape};
}

View VerbRig::Random(DType dtype, const Shape& shape, float deviation) {
  const View view = Keep(dtype, shape);
  const int64_t count = shape.num_elements();
  ++seed_;
  if (dtype == DType::kBF16) {
    OrDie(LaunchRandom(stream_.get(), reinterpret_cast<BFloat16*>(view.raw()), count, 0.0f, deviation, seed_),
          "filling");
  } else {
    CADRE_CHECK(dtype == DType::kF32);
    OrDie(LaunchRandom(stream_.get(), reinterpret_cast<float*>(view.raw()), count, 0.0f, deviation, seed_), "filling");
  }
  return view;
}

View VerbRig::Zeros(DType dtype, const Shape& shape) {
  const View view = Keep(dtype, shape);
  OrDie(cudaMemsetAsync(view.raw(), 0, view.size_bytes(), stream_.get()), "clearing");
  return view;
}

View VerbRig::Ints(const Shape& shape, const std::vector<int32_t>& values) {
  const View view = Keep(DType::kI32, shape);
  CADRE_CHECK_EQ(static_cast<int64_t>(values.size()), shape.num_elements());
  CopyToDevice(view, values.data());
  stream_.Wait();  // `values` may go
  return view;
}

std::vector<int32_t> VerbRig::ReadInts(ConstView view) {
  std::vector<int32_t> values(static_cast<size_t>(view.num_elements()));
  OrDie(cudaMemcpyAsync(values.data(), view.raw(), view.size_bytes(), cudaMemcpyDeviceToHost, stream_.get()),
        "copying");
  stream_.Wait();
  return values;
}

Spread VerbRig::TimeEachUs(int count, const std::function<void(int)>& order, double seconds) {
  const auto order_all = [&] {
    for (int i = 0; i < count; ++i) order(i);
  };
  order_all();
  stream_.Wait();
  const Graph graph(stream_, order_all);
  const double once_us = TimeUs(stream_, 1, [&] { graph.Replay(stream_); }).median;
  const int num_replays = ReplaysOfASample(once_us);
  const Spread all = TimeUsWithin(stream_, seconds, [&] {
    for (int i = 0; i < num_replays; ++i) graph.Replay(stream_);
  });
  const double num_calls = static_cast<double>(count) * num_replays;
  return {all.median / num_calls, all.low / num_calls, all.high / num_calls, all.count};
}

absl::StatusOr<DeviceBuffer> VerbRig::Allocate(size_t size_bytes) {
  const auto memory = std::make_shared<Memory>(size_bytes);
  OrDie(cudaMemsetAsync(memory->data(), 0, size_bytes, stream_.get()), "clearing");
  // Freed with what the deleter holds.
  return DeviceBuffer(memory->data(), size_bytes, [memory](std::byte* /*data*/) {});
}

void VerbRig::CopyToDevice(View to, const void* from) {
  OrDie(cudaMemcpyAsync(to.raw(), from, to.size_bytes(), cudaMemcpyHostToDevice, stream_.get()), "copying");
}

void VerbRig::Note(absl::Status status) {
  if (status.ok()) return;
  std::fprintf(stderr, "a verb failed: %s\n", status.ToString().c_str());
  std::exit(kExitFailed);
}

}  // namespace cadre::gpu
