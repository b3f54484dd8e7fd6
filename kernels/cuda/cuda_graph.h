// A captured stretch of a stream, which can be launched again as one piece.
#ifndef CADRE_KERNELS_CUDA_CUDA_GRAPH_H_
#define CADRE_KERNELS_CUDA_CUDA_GRAPH_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/launch.h"
#include "kernels/device.h"

namespace cadre::cuda {

class CudaGraph final : public RecordedWork {
 public:
  // What `order` orders on `stream`, which is not run.
  static absl::StatusOr<std::unique_ptr<CudaGraph>> Capture(cudaStream_t stream, absl::FunctionRef<void()> order);
  ~CudaGraph() override;
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  [[nodiscard]] cudaError_t Launch(cudaStream_t stream) const;

 private:
  explicit CudaGraph(cudaGraphExec_t executable) : executable_(executable) {}

  const cudaGraphExec_t executable_;
};

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_CUDA_GRAPH_H_
