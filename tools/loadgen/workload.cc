#include "tools/loadgen/workload.h"

#include <algorithm>
#include <utility>

namespace cadre {

Workload::Workload(WorkloadOptions options) : options_(std::move(options)), random_(options_.seed) {
  prefixes_.resize(static_cast<size_t>(options_.prefix_groups));
  for (std::vector<int32_t>& prefix : prefixes_) {
    for (int32_t i = 0; i < options_.shared_prefix_tokens; ++i) {
      prefix.push_back(static_cast<int32_t>(random_.Integer(0, options_.vocab_size - 1)));
    }
  }
}

v1::GenerateRequest Workload::Next(const TraceRequest* shape) {
  v1::GenerateRequest request = options_.base;
  FillPrompt(shape != nullptr ? shape->prompt_tokens : options_.prompt_tokens.Draw(random_), &request);
  request.mutable_stopping()->set_max_tokens(shape != nullptr ? shape->output_tokens
                                                              : options_.output_tokens.Draw(random_));
  if (!options_.tenants.empty()) {
    request.mutable_scheduling()->set_tenant(options_.tenants[num_made_ % options_.tenants.size()]);
  }
  if (shape != nullptr && !shape->tenant.empty()) request.mutable_scheduling()->set_tenant(shape->tenant);
  if (shape != nullptr && shape->priority != 0) request.mutable_scheduling()->set_priority(shape->priority);
  // Every request has a seed of its own, so that the same run gets the same answers.
  request.mutable_sampling()->set_seed(options_.seed + num_made_);
  ++num_made_;
  return request;
}

void Workload::FillPrompt(int32_t length, v1::GenerateRequest* request) {
  if (!options_.prompts.empty()) {
    request->set_text(options_.prompts[num_made_ % options_.prompts.size()]);
    return;
  }
  auto* ids = request->mutable_token_ids()->mutable_ids();
  ids->Reserve(length);
  const std::vector<int32_t>& prefix = prefixes_[num_made_ % prefixes_.size()];
  const int32_t shared = std::min(length, static_cast<int32_t>(prefix.size()));
  ids->Add(prefix.begin(), prefix.begin() + shared);
  while (ids->size() < length) ids->Add(static_cast<int32_t>(random_.Integer(0, options_.vocab_size - 1)));
}

}  // namespace cadre
