// cadre model: what is served, where, and within which limits.

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cadre/v1/model_service.grpc.pb.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/duration_option.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

struct ModelOptions {
  std::string model;
  absl::Duration timeout = absl::Seconds(10);
};

std::string StateText(const v1::Model& model) {
  switch (model.state()) {
    case v1::MODEL_STATE_LOADING:
      return absl::StrFormat("loading, %.0f %%", 100.0 * model.load_progress());
    case v1::MODEL_STATE_READY:
      return "ready";
    case v1::MODEL_STATE_DRAINING:
      return "draining";
    default:
      return "unknown";
  }
}

std::string BytesText(int64_t bytes) {
  constexpr double kMebibyte = 1 << 20;
  const double mebibytes = static_cast<double>(bytes) / kMebibyte;
  return mebibytes < 1024.0 ? absl::StrFormat("%.1f MiB", mebibytes) : absl::StrFormat("%.2f GiB", mebibytes / 1024.0);
}

void PrintLine(const char* name, const std::string& value) {
  std::cout << absl::StreamFormat("%-12s%s\n", name, value);
}

// "off", or "scope request, factor 1.25, at least 1, groups of 256, overflow reroute".
std::string CapacityText(const v1::ModelCapacity& capacity) {
  const v1::CapacityPolicy& policy = capacity.policy();
  if (!capacity.is_supported()) return "off; this device does not limit experts";
  std::string text = "off";
  if (policy.scope() != v1::CAPACITY_SCOPE_OFF) {
    const bool is_request = policy.scope() == v1::CAPACITY_SCOPE_REQUEST;
    text = absl::StrCat("scope ", is_request ? "request" : "batch", ", factor ", policy.capacity_factor(),
                        ", at least ", policy.min_capacity());
    if (is_request) absl::StrAppend(&text, ", groups of ", policy.group_tokens());
    constexpr const char* kOverflows[] = {"?", "drop", "reweight", "reroute"};
    const int overflow = v1::OverflowPolicy_IsValid(policy.overflow()) ? policy.overflow() : 0;
    absl::StrAppend(&text, ", overflow ", kOverflows[overflow]);
  }
  return absl::StrCat(text, capacity.allows_override() ? "; requests may choose" : "; requests may not choose");
}

void PrintModel(const v1::Model& model, const std::string& server_version) {
  const v1::ModelArchitecture& architecture = model.architecture();
  const v1::ModelExecution& execution = model.execution();
  const v1::MemoryPlan& memory = model.memory_plan();
  const v1::ModelLimits& limits = model.limits();
  PrintLine("model", model.name());
  PrintLine("state", StateText(model));
  PrintLine("server", absl::StrCat("cadre ", server_version));
  if (model.state() == v1::MODEL_STATE_LOADING) return;
  PrintLine("family",
            absl::StrFormat("%s, %d layers, %d wide, vocabulary of %d", architecture.family(),
                            architecture.num_layers(), architecture.hidden_size(), architecture.vocab_size()));
  PrintLine("experts", absl::StrFormat("%d MoE layers x %d experts, %d per token%s", architecture.moe_layers_size(),
                                       architecture.num_experts(), architecture.top_k(),
                                       architecture.has_shared_expert() ? ", and a shared one" : ""));
  PrintLine("capacity", CapacityText(model.capacity()));
  PrintLine("runs on",
            absl::StrCat(execution.device(), ", ", execution.kernels(), ", weights ", execution.weight_dtype(),
                         ", experts ", execution.expert_dtype(), ", KV cache ", execution.kv_cache_dtype()));
  PrintLine("memory",
            absl::StrFormat("%s = %s dense + %s experts + %s KV cache + %s workspace", BytesText(memory.total_bytes()),
                            BytesText(memory.dense_weight_bytes()), BytesText(memory.expert_weight_bytes()),
                            BytesText(memory.kv_cache_bytes()), BytesText(memory.workspace_bytes())));
  PrintLine("KV cache", absl::StrFormat("%d blocks of %d tokens", memory.num_kv_blocks(), memory.kv_block_size()));
  PrintLine("limits", absl::StrFormat("%d tokens per request, %d sequences and %d tokens per step, %d requests waiting",
                                      limits.max_model_len(), limits.max_num_seqs(), limits.max_num_batched_tokens(),
                                      limits.max_queue_requests()));
}

int RunModel(const ModelOptions& options, const ClientOptions& client) {
  const auto stub = v1::ModelService::NewStub(OpenChannel(client));
  v1::GetModelRequest request;
  request.set_model(options.model);
  v1::GetModelResponse response;
  const grpc::Status status = stub->GetModel(MakeContext(options.timeout).get(), request, &response);
  if (!status.ok()) return ReportError(status, client.address);
  if (client.json) {
    std::cout << ToJsonLine(response);
  } else {
    PrintModel(response.model(), response.server_version());
  }
  return kExitOk;
}

}  // namespace

void AddModelCommand(CLI::App& app, const ClientOptions& client, int* exit_code) {
  auto options = std::make_shared<ModelOptions>();
  CLI::App* command = app.add_subcommand("model", "Show what is served, where it runs, and its limits");
  command->add_option("model", options->model, "Model name; default: the one that is served");
  AddTimeoutOption(*command, &options->timeout);
  command->callback([options, &client, exit_code] { *exit_code = RunModel(*options, client); });
}

}  // namespace cadre
