// What is sent: one request after the other, each with its prompt and its lengths.
#ifndef CADRE_TOOLS_LOADGEN_WORKLOAD_H_
#define CADRE_TOOLS_LOADGEN_WORKLOAD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cadre/v1/generation_service.pb.h"
#include "tools/loadgen/length_distribution.h"
#include "tools/loadgen/random.h"
#include "tools/loadgen/trace.h"

namespace cadre {

struct WorkloadOptions {
  v1::GenerateRequest base;  // what all requests have in common
  int32_t vocab_size = 0;    // of the model: prompts are random ids below it
  LengthDistribution prompt_tokens;
  LengthDistribution output_tokens;
  std::vector<std::string> prompts;  // texts that are sent in turn instead of random ids
  // The first so many tokens of a random prompt are one of `prefix_groups` texts that requests share in turn, as system
  // prompts are; a prompt that is not longer is a beginning of it. With `prompts`: none.
  int32_t shared_prefix_tokens = 0;
  int32_t prefix_groups = 1;
  std::vector<std::string> tenants;  // given in turn
  uint64_t seed = 1;
};

// The same options give the same requests.
class Workload {
 public:
  explicit Workload(WorkloadOptions options);

  // The next request; lengths, tenant and priority are those of `shape` where there is one.
  v1::GenerateRequest Next(const TraceRequest* shape);

 private:
  void FillPrompt(int32_t length, v1::GenerateRequest* request);

  const WorkloadOptions options_;
  Random random_;
  std::vector<std::vector<int32_t>> prefixes_;  // [prefix_groups][shared_prefix_tokens]
  size_t num_made_ = 0;
};

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_WORKLOAD_H_
