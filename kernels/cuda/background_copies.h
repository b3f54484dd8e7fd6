// Copies from the host to the GPU on a stream of their own, beside the kernels.
#ifndef CADRE_KERNELS_CUDA_BACKGROUND_COPIES_H_
#define CADRE_KERNELS_CUDA_BACKGROUND_COPIES_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/launch.h"
#include "kernels/view.h"

namespace cadre::cuda {

// As Device::CopyInBackground and its kin say. The stream is made with the first copy: who needs none has none.
class BackgroundCopies {
 public:
  BackgroundCopies() = default;
  // Waits for copies under way.
  ~BackgroundCopies();
  BackgroundCopies(const BackgroundCopies&) = delete;
  BackgroundCopies& operator=(const BackgroundCopies&) = delete;

  // Begins when what was ordered on `kernels` has ended.
  absl::Status Order(View to, const void* from, cudaStream_t kernels);
  absl::StatusOr<int64_t> CountEnded();
  absl::Status Finish();

 private:
  absl::Status Start();
  absl::StatusOr<cudaEvent_t> TakeEvent();

  cudaStream_t stream_ = nullptr;
  cudaEvent_t kernels_ended_ = nullptr;  // of whatever the latest copy waits for
  std::deque<cudaEvent_t> under_way_;    // the end of each copy, the oldest first
  std::vector<cudaEvent_t> spare_;
  int64_t num_ended_ = 0;
};

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_BACKGROUND_COPIES_H_
