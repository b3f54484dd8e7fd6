// One request of a load run, from sending to its end, without a thread of its own.
#ifndef CADRE_TOOLS_LOADGEN_GENERATE_CALL_H_
#define CADRE_TOOLS_LOADGEN_GENERATE_CALL_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>

#include "absl/time/time.h"
#include "cadre/v1/generation_service.grpc.pb.h"
#include "tools/loadgen/load_recorder.h"

namespace cadre {

// The clock of a run: nanoseconds since its start.
class RunClock {
 public:
  int64_t Now() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start_).count();
  }
  std::chrono::steady_clock::time_point At(int64_t nanoseconds) const {
    return start_ + std::chrono::nanoseconds(nanoseconds);
  }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Reads its stream as fast as events come, and tells `recorder`. `on_done` is called last, from a thread of gRPC; it
// may delete the call.
class GenerateCall final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  using DoneCallback = std::function<void(GenerateCall*)>;

  // `clock` and `recorder` outlive the call. `intended` is when it should have been sent.
  GenerateCall(v1::GenerateRequest request, int64_t intended, bool measured, const RunClock* clock,
               LoadRecorder* recorder, DoneCallback on_done);

  // `deadline` counts from the intended time; zero: none.
  void Start(v1::GenerationService::Stub& stub, absl::Duration deadline);
  // Ends it as unfinished, unless it has ended already. Any thread, before on_done.
  void Abandon();

  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  void OnTokens(int64_t now, int64_t tokens);
  void Classify(const grpc::Status& status);

  const v1::GenerateRequest request_;
  const RunClock* const clock_;
  LoadRecorder* const recorder_;
  DoneCallback on_done_;
  grpc::ClientContext context_;
  v1::GenerateResponse event_;
  RequestRecord record_;
  bool has_event_ = false;
  bool has_finished_ = false;
  std::atomic<bool> abandoned_{false};
};

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_GENERATE_CALL_H_
