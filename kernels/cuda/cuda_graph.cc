#include "kernels/cuda/cuda_graph.h"

#include "kernels/cuda/cuda_check.h"

namespace cadre::cuda {

absl::StatusOr<std::unique_ptr<CudaGraph>> CudaGraph::Capture(cudaStream_t stream, absl::FunctionRef<void()> order) {
  // Other threads may allocate meanwhile: this one must not.
  CADRE_CUDA_RETURN_IF_ERROR(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                             "beginning to record a step");
  order();
  cudaGraph_t graph = nullptr;
  CADRE_CUDA_RETURN_IF_ERROR(cudaStreamEndCapture(stream, &graph), "recording a step");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&executable, graph, /*flags=*/0);
  CADRE_CUDA_IGNORE_ERROR(cudaGraphDestroy(graph));
  CADRE_CUDA_RETURN_IF_ERROR(error, "preparing a recorded step");
  return std::unique_ptr<CudaGraph>(new CudaGraph(executable));
}

CudaGraph::~CudaGraph() { CADRE_CUDA_IGNORE_ERROR(cudaGraphExecDestroy(executable_)); }

cudaError_t CudaGraph::Launch(cudaStream_t stream) const { return cudaGraphLaunch(executable_, stream); }

}  // namespace cadre::cuda
