// The answer to a Generate of vllm.grpc.engine.VllmEngine: events of cadre.v1 in, messages of that protocol out.
#ifndef CADRE_SERVER_VLLM_ANSWER_H_
#define CADRE_SERVER_VLLM_ANSWER_H_

#include <cstdint>
#include <map>
#include <vector>

#include "cadre/v1/generation_service.pb.h"
#include "vllm/grpc/engine/vllm_engine.pb.h"

namespace cadre {

namespace vllm_api = vllm::grpc::engine;

// Of one request. Not thread-safe.
class VllmAnswer {
 public:
  VllmAnswer() = default;
  // Of a request for `num_sequences` that is told of tokens as they come, or only at the end.
  VllmAnswer(bool is_streamed, int32_t num_sequences) : is_streamed_(is_streamed), num_sequences_(num_sequences) {}

  bool is_streamed() const { return is_streamed_; }
  // What an event means to the client, which may be nothing yet. In the order of the events. Without chunks the
  // sequences come in the order of their indices, whichever ends first: clients number them as they come.
  std::vector<vllm_api::GenerateResponse> Translate(const v1::GenerateResponse& event);

 private:
  struct Sequence {
    bool has_chunk = false;
    bool is_complete = false;
    vllm_api::GenerateComplete complete;  // of one that is not streamed: what came until now
  };

  void Start(const v1::StartedEvent& event);
  vllm_api::GenerateResponse Chunk(const v1::DeltaEvent& event);
  void Collect(const v1::DeltaEvent& event);
  void Complete(const v1::FinishedEvent& event);
  // The sequence that ended, or, without chunks, those whose turn has come.
  std::vector<vllm_api::GenerateResponse> TakeComplete(int32_t ended);

  bool is_streamed_ = false;
  int32_t num_sequences_ = 1;
  uint32_t prompt_tokens_ = 0;
  uint32_t cached_tokens_ = 0;
  vllm_api::InputLogProbs input_logprobs_;  // until every sequence has them
  int32_t num_told_input_ = 0;
  int32_t next_index_ = 0;                 // of what is not streamed
  std::map<int32_t, Sequence> sequences_;  // by index
};

}  // namespace cadre

#endif  // CADRE_SERVER_VLLM_ANSWER_H_
