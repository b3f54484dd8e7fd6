// The verbs of kernels/ops.h on a stream that a benchmark may capture and time, with tensors of random values.
#ifndef CADRE_TESTS_GPU_VERB_RIG_H_
#define CADRE_TESTS_GPU_VERB_RIG_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/cuda_ops.h"
#include "tests/gpu/gpu_bench.h"

namespace cadre::gpu {

// How often a graph that takes `replay_us` is replayed for one sample, so that launching it does not show in the time.
int ReplaysOfASample(double replay_us);

class VerbRig : private CudaOpsHost {
 public:
  // Scratch for `limits` is taken at once. Errors end the process.
  explicit VerbRig(const OpsLimits& limits);
  ~VerbRig() override = default;
  VerbRig(const VerbRig&) = delete;
  VerbRig& operator=(const VerbRig&) = delete;

  Ops& ops() { return ops_; }
  const Stream& cuda_stream() const { return stream_; }

  // Tensors live as long as the rig. Of mean 0, float32 or bfloat16.
  View Random(DType dtype, const Shape& shape, float deviation = 1.0f);
  View Zeros(DType dtype, const Shape& shape);
  View Ints(const Shape& shape, const std::vector<int32_t>& values);
  std::vector<int32_t> ReadInts(ConstView view);

  // Microseconds of each of `count` calls that `order(0..count - 1)` order: one graph of all of them, replayed as often
  // as ReplaysOfASample says. They are ordered once before, so that what verbs send to the device the first time is
  // there.
  Spread TimeEachUs(int count, const std::function<void(int)>& order, double seconds);

 private:
  cudaStream_t stream() const override { return stream_.get(); }
  absl::StatusOr<DeviceBuffer> Allocate(size_t size_bytes) override;
  void CopyToDevice(View to, const void* from) override;
  void Note(absl::Status status) override;
  void AfterVerb() override {}
  View Keep(DType dtype, const Shape& shape);

  Stream stream_;
  std::vector<Memory> memory_;
  uint32_t seed_ = 1;
  CudaOps ops_;
};

}  // namespace cadre::gpu

#endif  // CADRE_TESTS_GPU_VERB_RIG_H_
