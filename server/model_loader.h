// From a folder of checkpoint files to a model that an engine can run.
#ifndef CADRE_SERVER_MODEL_LOADER_H_
#define CADRE_SERVER_MODEL_LOADER_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "server/config.h"
#include "server/metrics.h"
#include "server/model_host.h"

namespace cadre {

// Whether config.model asks for the simulator, which needs no device.
bool IsSimulated(const ServerConfig& config);

// Logs the memory plan before it allocates anything, and tells `on_progress` the share of the weights that is loaded.
// `device` may be null for a simulated model. NOT_FOUND, RESOURCE_EXHAUSTED, INVALID_ARGUMENT, UNIMPLEMENTED and
// DATA_LOSS say which file or setting is at fault, and why (see LoadErrorExitCode).
absl::StatusOr<LoadedModel> LoadModel(const ServerConfig& config, std::unique_ptr<Device> device,
                                      const std::function<void(double)>& on_progress);

// What the recorded choices of all requests in flight may take on a device with `available_bytes`: a 64th, at most
// 256 MiB, and as much as one request may bring in any case.
int64_t MaxReplayBytes(int64_t available_bytes);

// What the metrics tell of a model.
ServedModel DescribeForMetrics(const ModelCard& card);

}  // namespace cadre

#endif  // CADRE_SERVER_MODEL_LOADER_H_
