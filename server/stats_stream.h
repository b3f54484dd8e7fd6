// The stream of WatchExpertStats. It takes a snapshot when its last message has been taken, so that a slow reader gets
// fewer messages and the engine never waits for one.
#ifndef CADRE_SERVER_STATS_STREAM_H_
#define CADRE_SERVER_STATS_STREAM_H_

#include <memory>

#include "server/call_place.h"
#include "server/incoming_call.h"
#include "server/services.h"

namespace cadre {

// Deletes itself when gRPC is done with it. RESOURCE_EXHAUSTED while kMaxStatsWatchers others are open.
// It ends with the reason when its key is withdrawn.
BytesReactor* NewStatsStream(const ServiceContext& services, grpc::CallbackServerContext* context,
                             std::shared_ptr<CallPlaces> watchers);

}  // namespace cadre

#endif  // CADRE_SERVER_STATS_STREAM_H_
