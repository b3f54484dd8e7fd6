#include "kernels/cuda/background_copies.h"

#include "kernels/cuda/cuda_check.h"

namespace cadre::cuda {

BackgroundCopies::~BackgroundCopies() {
  if (stream_ == nullptr) return;
  CADRE_CUDA_IGNORE_ERROR(cudaStreamSynchronize(stream_));
  for (const cudaEvent_t event : under_way_) CADRE_CUDA_IGNORE_ERROR(cudaEventDestroy(event));
  for (const cudaEvent_t event : spare_) CADRE_CUDA_IGNORE_ERROR(cudaEventDestroy(event));
  if (kernels_ended_ != nullptr) CADRE_CUDA_IGNORE_ERROR(cudaEventDestroy(kernels_ended_));
  CADRE_CUDA_IGNORE_ERROR(cudaStreamDestroy(stream_));
}

absl::Status BackgroundCopies::Start() {
  if (stream_ == nullptr) {
    CADRE_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                               "creating a stream for copies");
  }
  if (kernels_ended_ == nullptr) {
    CADRE_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&kernels_ended_, cudaEventDisableTiming), "creating an event");
  }
  return absl::OkStatus();
}

absl::StatusOr<cudaEvent_t> BackgroundCopies::TakeEvent() {
  if (!spare_.empty()) {
    const cudaEvent_t event = spare_.back();
    spare_.pop_back();
    return event;
  }
  cudaEvent_t event = nullptr;
  CADRE_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  return event;
}

absl::Status BackgroundCopies::Order(View to, const void* from, cudaStream_t kernels) {
  if (absl::Status status = Start(); !status.ok()) return status;
  const absl::StatusOr<cudaEvent_t> end = TakeEvent();
  if (!end.ok()) return end.status();
  // Kept, whatever happens below: nobody waits for a spare event.
  spare_.push_back(*end);
  CADRE_CUDA_RETURN_IF_ERROR(cudaEventRecord(kernels_ended_, kernels), "marking the end of kernels");
  CADRE_CUDA_RETURN_IF_ERROR(cudaStreamWaitEvent(stream_, kernels_ended_), "letting a copy wait for kernels");
  CADRE_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(to.raw(), from, to.size_bytes(), cudaMemcpyHostToDevice, stream_),
                             "copying in the background");
  CADRE_CUDA_RETURN_IF_ERROR(cudaEventRecord(*end, stream_), "marking the end of a copy");
  spare_.pop_back();
  under_way_.push_back(*end);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> BackgroundCopies::CountEnded() {
  while (!under_way_.empty()) {
    const cudaError_t state = cudaEventQuery(under_way_.front());
    if (state == cudaErrorNotReady) break;
    CADRE_CUDA_RETURN_IF_ERROR(state, "copying in the background");
    spare_.push_back(under_way_.front());
    under_way_.pop_front();
    ++num_ended_;
  }
  return num_ended_;
}

absl::Status BackgroundCopies::Finish() {
  if (stream_ == nullptr) return absl::OkStatus();
  CADRE_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(stream_), "copying in the background");
  return CountEnded().status();
}

}  // namespace cadre::cuda
