// What VllmEngine tells of model, process and load.
#ifndef CADRE_SERVER_VLLM_INFO_H_
#define CADRE_SERVER_VLLM_INFO_H_

#include <mutex>
#include <string>

#include "absl/time/time.h"
#include "engine/engine.h"
#include "server/model_card.h"
#include "vllm/grpc/engine/vllm_engine.pb.h"

namespace cadre {

namespace vllm_api = vllm::grpc::engine;

// A JSON object of the defaults that differ from those of VllmEngine's SamplingParams; empty when none does.
std::string SamplingDefaultsJson(const GenerationDefaults& defaults);

void FillModelInfo(const ModelCard& card, vllm_api::GetModelInfoResponse* info);
// Without what changes.
void FillServerInfo(const ModelCard& card, vllm_api::GetServerInfoResponse* info);
// Without gen_throughput.
void FillLoad(const EngineSnapshot& snapshot, const ModelCard& card, vllm_api::SchedulerLoad* load);

// The rate of a counter between the readings of those who ask. Any thread.
class CounterRate {
 public:
  // Per second, since the last reading that was kMinSpan or more before this one; 0 at first.
  double Observe(int64_t count, absl::Time now);

  static constexpr absl::Duration kMinSpan = absl::Seconds(1);

 private:
  std::mutex mutex_;
  absl::Time since_ = absl::InfinitePast();
  int64_t count_ = 0;
  double rate_ = 0;
};

}  // namespace cadre

#endif  // CADRE_SERVER_VLLM_INFO_H_
