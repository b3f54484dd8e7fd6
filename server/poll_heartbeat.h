// gRPC's threads for callbacks (1.51) look away: one that has heard nothing for a second sleeps for a tenth of a second
// without polling, so that the first call after a pause waits for up to 100 ms. A small call of the server to itself,
// more often than that, keeps one of them awake.
#ifndef CADRE_SERVER_POLL_HEARTBEAT_H_
#define CADRE_SERVER_POLL_HEARTBEAT_H_

#include <grpcpp/channel.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/time/time.h"

namespace cadre {

inline constexpr absl::Duration kPollHeartbeatInterval = absl::Milliseconds(400);

// Asks the health service through `channel` every interval. Must be gone before the server is shut down.
class PollHeartbeat {
 public:
  PollHeartbeat(std::shared_ptr<grpc::Channel> channel, absl::Duration interval);
  PollHeartbeat(const PollHeartbeat&) = delete;
  PollHeartbeat& operator=(const PollHeartbeat&) = delete;
  // Waits for the call that is under way.
  ~PollHeartbeat();

 private:
  void Run();
  void Beat();

  const std::shared_ptr<grpc::Channel> channel_;
  const absl::Duration interval_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_POLL_HEARTBEAT_H_
