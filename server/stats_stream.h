// The stream of WatchExpertStats. It takes a snapshot when its last message has been taken, so that a slow reader gets
// fewer messages and the engine never waits for one.
#ifndef CADRE_SERVER_STATS_STREAM_H_
#define CADRE_SERVER_STATS_STREAM_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>

#include "server/call_place.h"
#include "server/model_host.h"

namespace cadre {

// Deletes itself when gRPC is done with it. RESOURCE_EXHAUSTED while kMaxStatsWatchers others are open.
grpc::ServerWriteReactor<grpc::ByteBuffer>* NewStatsStream(ModelHost& host, const grpc::ByteBuffer& request,
                                                           std::shared_ptr<CallPlaces> watchers);

}  // namespace cadre

#endif  // CADRE_SERVER_STATS_STREAM_H_
