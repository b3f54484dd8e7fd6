// One generation request, complete and validated, as the service hands it to the engine.
#ifndef CADRE_ENGINE_REQUEST_REQUEST_H_
#define CADRE_ENGINE_REQUEST_REQUEST_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/request/sampling_params.h"
#include "engine/request/token_sink.h"

namespace cadre {

// Set by any thread, once; read by the engine thread at the start of each step. Nothing else runs backwards.
class CancelFlag {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_release); }
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> cancelled_{false};
};

struct Request {
  std::string id;               // for logs; need not be unique
  std::vector<int32_t> prompt;  // token ids, never empty
  SamplingParams sampling;
  absl::Time arrival;  // by the engine's clock
  absl::Time deadline = absl::InfiniteFuture();
  bool wants_text = true;  // false: deltas carry token ids only, and stop strings must be empty
  std::shared_ptr<TokenSink> sink;
  std::shared_ptr<CancelFlag> cancel;  // shared with whoever may cancel; never null
};

}  // namespace cadre

#endif  // CADRE_ENGINE_REQUEST_REQUEST_H_
